"""Export a network in one or several forms, through the parity gate.

The files are written into a temporary folder beside their target, opened again, compared with the
network in PyTorch, and timed. Only if all of them agree are they renamed to their target.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from reslearn.deploy.engines import InputArray, Probabilities, open_exported, torch_engine
from reslearn.deploy.form_speed import FormSpeed, measure_speeds
from reslearn.deploy.forms import ExportForm, FormWriter
from reslearn.deploy.model_card import ModelCard
from reslearn.deploy.model_input import ModelInput, Picture
from reslearn.deploy.open_model import OpenedModel, card_of_bundle
from reslearn.deploy.parity import INT8_ACCURACY_POINTS, Parity, compare
from reslearn.deploy.parity_images import ParityImages
from reslearn.deploy.predictor import Predictor
from reslearn.deploy.preprocess_graph import InputKind, PixelsToProbabilities
from reslearn.deploy.served_answers import is_served, predicted_answers, served_answers
from reslearn.interop import Bundle
from reslearn.progress import progress_bar

EAGER = "torch"
"""The name of the row of the network in PyTorch."""
# Float arithmetic in another order changes a probability by 1e-6 or so. The resize in the file
# rounds some pixels to the other gray level, which changes a probability by up to 0.01 or so.
_TOLERANCE: dict[InputKind, float] = {"image": 0.05, "crop": 0.001, "tensor": 0.001}
_INT8_TOLERANCE = 0.25
_CALIBRATION_BATCH = 16
NUM_CALIBRATION_IMAGES = 256


@dataclass(frozen=True, kw_only=True)
class FormReport:
    """One row of the table: a form of the network.

    Attributes:
        form: "torch" for the network in PyTorch, or the exported form.
        runtime: The library that computes.
        path: The file; None for the network in PyTorch.
        num_bytes: Size of the file, with the .bin file of OpenVINO.
        tolerance: Allowed difference of a probability; None for the network in PyTorch.
        file: Parity of the file fed by hand, one picture at a time.
        served: Parity of the answers over HTTP; see `served_answers`.
        accuracy_pct: Accuracy on the images; None without labels.
        speed: Latency and throughput.
    """

    form: str
    runtime: str
    path: Path | None
    num_bytes: int
    tolerance: float | None
    file: Parity | None
    served: Parity | None
    accuracy_pct: float | None
    speed: FormSpeed

    @property
    def problems(self) -> tuple[str, ...]:
        """Why the form does not agree with the network; empty if it does."""
        problems = []
        for name, parity in (("the file", self.file), ("the served answer", self.served)):
            if parity is not None:
                problems += [f"{name}: {problem}" for problem in parity.problems]
        return tuple(problems)


@dataclass(frozen=True, kw_only=True)
class ExportReport:
    """The result of an export: one row for the network in PyTorch and one for each form.

    Attributes:
        card: The card that the files hold.
        images: Which images were compared.
        full_decoding: Parity of a file of input "image" whose pictures are decoded at full size, as
            by programs without reslearn. It is no condition: the difference lies in the decoder.
            None for other inputs, and for images that are no files.
        is_served: Whether the served answers came over HTTP, and not from `Predictor`.
        is_written: Whether all forms agree, so that the files were written.
    """

    card: ModelCard
    images: str
    full_decoding: Parity | None
    rows: tuple[FormReport, ...]
    is_served: bool
    is_written: bool


def export_forms(
    bundle: Bundle,
    targets: dict[ExportForm, Path],
    images: ParityImages,
    *,
    input_kind: InputKind = "image",
    license: str = "",
    tolerance: float | None = None,
    threads: int | None = None,
) -> ExportReport:
    """Write a network in several forms, if all of them give its answers.

    Args:
        bundle: The network, on the CPU.
        targets: The path of each form. Existing files are replaced.
        images: Real images for the gate.
        input_kind: What the files take; see `PixelsToProbabilities`.
        license: License of the weights, for the card.
        tolerance: Allowed difference of a probability. None: 0.05 for input "image", 0.25 for int8,
            else 0.001.
        threads: Threads of the runtimes. None: all cores.

    Raises:
        ValueError: If a library is not installed, or int8 has no training images.
    """
    card = replace(card_of_bundle(bundle, license), input_kind=input_kind)
    module = PixelsToProbabilities(
        bundle.network, bundle.preprocess, temperature=bundle.temperature, input_kind=input_kind
    )
    folder = next(iter(targets.values())).absolute().parent
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".export-", suffix=".part", dir=folder) as temporary:
        opened: dict[ExportForm, tuple[Path, OpenedModel]] = {}
        writer = FormWriter(module, card, Path(temporary))
        with progress_bar("exporting", len(targets), after_seconds=2.0) as advance:
            for form, target in targets.items():
                path = Path(temporary) / target.name
                calibration = _calibration(card, images) if form is ExportForm.INT8 else None
                writer.write(form, path, calibration=calibration)
                form_card, engine = open_exported(path, threads=threads)
                model = OpenedModel(source=str(target), card=form_card, engine=engine)
                opened[form] = (path, model)
                advance(1)
        eager = Predictor(_eager_model(bundle))
        reference = predicted_answers(eager, images.pictures, "the network in PyTorch")
        rows = _compare_forms(bundle, opened, targets, images, reference, tolerance)
        full_decoding = _full_decoding(next(iter(opened.items())), images, reference, tolerance)
        is_written = not any(row.problems for row in rows)
        if is_written:
            for form, target in targets.items():
                _move(opened[form][0], target)
    return ExportReport(
        card=card,
        images=images.description,
        full_decoding=full_decoding,
        rows=tuple(rows),
        is_served=is_served(card),
        is_written=is_written,
    )


def _compare_forms(
    bundle: Bundle,
    opened: Mapping[ExportForm, tuple[Path, OpenedModel]],
    targets: Mapping[ExportForm, Path],
    images: ParityImages,
    reference: Probabilities,
    tolerance: float | None,
) -> list[FormReport]:
    """Return the rows of the table. The first one is the network in PyTorch."""
    eager = _eager_model(bundle)
    itself = compare(reference, reference, tolerance=0.0, labels=images.labels)
    models = {EAGER: eager} | {form.value: model for form, (_, model) in opened.items()}
    speeds = measure_speeds(models)
    weights = bundle.network.state_dict().values()
    rows = [
        FormReport(
            form=EAGER,
            runtime=eager.engine.runtime,
            path=None,
            num_bytes=sum(tensor.numel() * tensor.element_size() for tensor in weights),
            tolerance=None,
            file=None,
            served=None,
            accuracy_pct=itself.accuracy_pct,
            speed=speeds[EAGER],
        )
    ]
    for form, (path, model) in opened.items():
        largest = _tolerance(form, model.card.input_kind, tolerance)
        file, served = _parities(form, model, images, reference, largest)
        rows.append(
            FormReport(
                form=form.value,
                runtime=model.engine.runtime,
                path=targets[form],
                num_bytes=sum(file.stat().st_size for file in _files(path)),
                tolerance=largest,
                file=file,
                served=served,
                accuracy_pct=served.accuracy_pct,
                speed=speeds[form.value],
            )
        )
    return rows


def _parities(
    form: ExportForm,
    model: OpenedModel,
    images: ParityImages,
    reference: Probabilities,
    tolerance: float,
) -> tuple[Parity, Parity]:
    """Compare the file that is fed by hand, and the served answers, with the reference."""
    answers = (
        _by_hand(model, images.pictures, f"{form.value}, the file"),
        served_answers(model, images.pictures, f"{form.value}, served"),
    )
    points = INT8_ACCURACY_POINTS if form is ExportForm.INT8 else 0.0
    file, served = (
        compare(
            reference,
            probabilities,
            tolerance=tolerance,
            labels=images.labels,
            accuracy_points=points,
        )
        for probabilities in answers
    )
    return file, served


def _eager_model(bundle: Bundle) -> OpenedModel:
    """Return the network in PyTorch, as `predict` uses it."""
    module = PixelsToProbabilities(
        bundle.network, bundle.preprocess, temperature=bundle.temperature, input_kind="crop"
    )
    return OpenedModel(source=EAGER, card=card_of_bundle(bundle), engine=torch_engine(module))


def _tolerance(form: ExportForm, input_kind: InputKind, tolerance: float | None) -> float:
    if tolerance is not None:
        return tolerance
    return _INT8_TOLERANCE if form is ExportForm.INT8 else _TOLERANCE[input_kind]


def _full_decoding(
    form_and_model: tuple[ExportForm, tuple[Path, OpenedModel]],
    images: ParityImages,
    reference: Probabilities,
    tolerance: float | None,
) -> Parity | None:
    """Compare the first file, fed with pictures that are decoded at full size."""
    form, (_, model) = form_and_model
    has_files = all(isinstance(picture, Path) for picture in images.pictures)
    if model.card.input_kind != "image" or not has_files:
        return None
    answers = _by_hand(model, images.pictures, "full decoding", decodes_fully=True)
    allowance = _tolerance(form, "image", tolerance)
    return compare(reference, answers, tolerance=allowance, labels=images.labels)


def _by_hand(
    model: OpenedModel,
    pictures: Sequence[Picture],
    description: str,
    *,
    decodes_fully: bool = False,
) -> Probabilities:
    """Return the answers of the file for one picture at a time."""
    model_input = ModelInput(model.card, decodes_fully=decodes_fully)
    rows = []
    with progress_bar(description, len(pictures), after_seconds=2.0) as advance:
        for picture in pictures:
            rows.append(model.engine(model_input.batch([model_input.pixels(picture)]))[0])
            advance(1)
    return np.stack(rows)


def _calibration(card: ModelCard, images: ParityImages) -> list[InputArray]:
    """Return batches of training images in the form that the model takes.

    Images of any size are resized to the shorter side and cut to a square, so that they fill
    batches. The resize of the model then leaves them as they are.
    """
    if not images.calibration:
        raise ValueError("int8 needs training images to calibrate on")
    preprocess, input_card = card.preprocess, card
    if card.input_kind == "image":
        side = preprocess.shorter_px or preprocess.size_px
        square = replace(preprocess, size_px=side, mean=preprocess.scale * 0, shorter_px=None)
        input_card = replace(card, preprocess=square, input_kind="crop")
    model_input = ModelInput(input_card)
    batches = []
    for start in range(0, len(images.calibration), _CALIBRATION_BATCH):
        chunk = images.calibration[start : start + _CALIBRATION_BATCH]
        batches.append(model_input.batch([model_input.pixels(picture) for picture in chunk]))
    return batches


def _files(path: Path) -> list[Path]:
    """Return the files of a form, the one that is opened last."""
    weights = path.with_suffix(".bin")
    return [weights, path] if path.suffix == ".xml" else [path]


def _move(path: Path, target: Path) -> None:
    """Replace the target. The weights of OpenVINO come before the file that refers to them."""
    for file, destination in zip(_files(path), _files(target), strict=True):
        with file.open("rb") as content:
            os.fsync(content.fileno())
        shutil.move(file, destination)
