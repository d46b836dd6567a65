"""The forms of `reslearn export`: options of the parity gate, and the table of the forms."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reslearn.cli.output import print_json
from reslearn.terminal import print_lines, safe_console

if TYPE_CHECKING:
    from reslearn.deploy.export import ExportReport, FormReport
    from reslearn.deploy.forms import ExportForm
    from reslearn.deploy.parity import Parity
    from reslearn.interop.as_bundle import InputOptions

GATE = "Parity gate"
# As in deploy/forms.py, which imports torch.
FORMS = ("onnx", "openvino", "torch-export", "int8")


class InputOption(StrEnum):
    """What an exported file takes."""

    image = "image"
    crop = "crop"
    tensor = "tensor"


@dataclass(frozen=True)
class GateOptions:
    """The options of the parity gate."""

    data: str | None
    images: str | None
    num_images: int
    tolerance: float | None
    data_dir: Path | None
    threads: int | None


def forms_of(to: str) -> list[ExportForm]:
    """Return the forms that --to names, or none if it names a dialect.

    Raises:
        ValueError: If only some of several names are forms.
    """
    names = [name.strip() for name in to.split(",")]
    unknown = [name for name in names if name not in FORMS]
    if unknown and len(names) == 1:
        return []
    from reslearn.deploy.forms import ExportForm

    if unknown:
        raise ValueError(
            f"--to {to}: {unknown[0]!r} is not a form; together are allowed: {', '.join(FORMS)}"
        )
    return [ExportForm(name) for name in dict.fromkeys(names)]


def targets(forms: list[ExportForm], out: Path, *, force: bool) -> dict[ExportForm, Path]:
    """Return the file of each form.

    Raises:
        ValueError: If a file exists, or the suffix of a single file is wrong.
    """
    paths = {forms[0]: out}
    if len(forms) > 1:
        paths = {form: out.with_name(out.name + _suffix(form)) for form in forms}
    elif out.suffix != forms[0].suffix:
        raise ValueError(
            f"--out {out}: the name of a file in the form {forms[0].value} ends in "
            f"{forms[0].suffix}"
        )
    weights = [path.with_suffix(".bin") for path in paths.values() if path.suffix == ".xml"]
    for path in (*paths.values(), *weights):
        if path.exists() and not force:
            raise ValueError(f"{path} already exists: choose another --out, or pass --force")
    return paths


def _suffix(form: ExportForm) -> str:
    return ".int8.onnx" if form.value == "int8" else form.suffix


def export_through_gate(
    source: str,
    paths: dict[ExportForm, Path],
    options: InputOptions,
    gate: GateOptions,
    *,
    input_kind: InputOption,
    license_text: str | None,
) -> ExportReport:
    """Export the network of a source in the form of each path."""
    from reslearn.deploy.export import NUM_CALIBRATION_IMAGES, export_forms
    from reslearn.deploy.forms import ExportForm
    from reslearn.deploy.open_model import card_of_bundle, license_of, open_bundle
    from reslearn.deploy.parity_images import load_parity_images

    if gate.threads is not None:
        import torch

        torch.set_num_threads(gate.threads)
    bundle = open_bundle(source, options)
    images = load_parity_images(
        source,
        card_of_bundle(bundle),
        data_name=gate.data,
        image_set=gate.images,
        num_images=gate.num_images,
        num_calibration=NUM_CALIBRATION_IMAGES if ExportForm.INT8 in paths else 0,
        data_dir=gate.data_dir,
    )
    return export_forms(
        bundle,
        paths,
        images,
        input_kind=input_kind.value,
        license=license_of(source) if license_text is None else license_text,
        tolerance=gate.tolerance,
        threads=gate.threads,
    )


def print_report(report: ExportReport, *, as_json: bool) -> None:
    """Print the table of the forms, and what was written or why nothing was."""
    if as_json:
        print_json(_record(report), indent=2)
        return
    from reslearn.train.numerics import processor_name

    console = safe_console(soft_wrap=True)
    console.print(_table(report))
    print_lines(
        "",
        "difference: the largest of one probability; other class: pictures with another top class",
        _compared_answers(report),
        f"compared on {report.images}; latency of one and throughput of 16 pictures of "
        f"{report.rows[-1].speed.picture_px} px, without decoding, on {processor_name()}",
    )
    if report.full_decoding is not None:
        print_lines(_full_decoding(report.full_decoding))
    for row in report.rows:
        if row.path is not None and report.is_written:
            print_lines(f"{row.path}: {report.card.name}, {row.form}, input {_input(report)}")
        for problem in row.problems:
            print_lines(f"{row.form} does not agree: {problem}")
    if not report.is_written:
        print_lines("nothing was written")


def _compared_answers(report: ExportReport) -> str:
    """Say which answers of the files were compared."""
    if report.is_served:
        return "compared: the files fed by hand, and the answers of `reslearn serve` over HTTP"
    return "compared: the files fed by hand, and in batches by `reslearn predict`"


def _full_decoding(parity: Parity) -> str:
    """Say what changes if a program decodes large JPEG files at full size."""
    accuracy = ""
    if parity.accuracy_pct is not None and parity.reference_accuracy_pct is not None:
        before, after = parity.reference_accuracy_pct, parity.accuracy_pct
        accuracy = f", accuracy {after:.2f} % instead of {before:.2f} %"
    return (
        "JPEG files decoded at full size, not at a fraction of it as in training: difference "
        f"{parity.largest_difference:.2g}, other class {parity.num_different} of "
        f"{parity.num_images}{accuracy}"
    )


def _input(report: ExportReport) -> str:
    preprocess = report.card.preprocess
    side, channels = preprocess.size_px, preprocess.channels
    shapes = {
        "image": f"image: uint8 [batch, height, width, {channels}]",
        "crop": f"crop: uint8 [batch, {side}, {side}, {channels}]",
        "tensor": f"tensor: float32 [batch, {channels}, {side}, {side}]",
    }
    return shapes[report.card.input_kind]


def _table(report: ExportReport) -> Any:
    from rich.table import Table

    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("form", no_wrap=True)
    for heading in ("accuracy", "difference", "other class", "ms", "images/s", "bytes"):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in report.rows:
        accuracy = "" if row.accuracy_pct is None else f"{row.accuracy_pct:.2f} %"
        table.add_row(
            row.form,
            accuracy,
            *_differences(row),
            f"{row.speed.latency_ms:.2f}",
            f"{row.speed.images_per_s:,.0f}",
            f"{row.num_bytes:,}",
        )
    return table


def _differences(row: FormReport) -> tuple[str, str]:
    """Return the largest difference of a probability, and the pictures of another class."""
    parities = [parity for parity in (row.file, row.served) if parity is not None]
    if not parities:
        return "", ""
    largest = max(parity.largest_difference for parity in parities)
    num_different = max(parity.num_different for parity in parities)
    return f"{largest:.2g}", f"{num_different} of {parities[0].num_images}"


def _record(report: ExportReport) -> dict[str, Any]:
    rows = []
    for row in report.rows:
        path = None if row.path is None else str(row.path)
        rows.append({**asdict(replace(row, path=None)), "path": path, "problems": row.problems})
    return {
        "is_written": report.is_written,
        "is_served": report.is_served,
        "images": report.images,
        "model": report.card.name,
        "input": report.card.input_kind,
        "full_decoding": None if report.full_decoding is None else asdict(report.full_decoding),
        "forms": rows,
    }
