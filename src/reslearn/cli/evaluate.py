"""`reslearn evaluate`: measure networks by the paper's protocols (Sec. 4.1, Tables 3 to 5)."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from reslearn.cli.options import MACHINE, DataDirOption, DeviceOption, JsonOption
from reslearn.cli.output import print_json
from reslearn.terminal import print_lines

if TYPE_CHECKING:
    from reslearn.evaluate import Metrics
    from reslearn.study import Interval

EXAMPLES = (
    "reslearn evaluate runs/digits",
    "reslearn evaluate runs/digits/model.safetensors digits --images train --json",
    "reslearn evaluate runs/one runs/two photos --protocol ten-crop",
)

_PROTOCOL = "Protocol"


class EvaluationProtocol(StrEnum):
    """The views of an image whose scores are averaged."""

    single = "single"
    ten_crop = "ten-crop"
    multi_scale = "multi-scale"


Sources = Annotated[
    list[str],
    typer.Argument(
        help="Run folders, bundles or names such as reslearn:resnet20, then the data. "
        "Default: the run's data."
    ),
]


def evaluate(
    sources: Sources,
    images: Annotated[
        str,
        typer.Option(rich_help_panel=_PROTOCOL, help="Use train, validation or test images."),
    ] = "test",
    protocol: Annotated[
        EvaluationProtocol,
        typer.Option(
            rich_help_panel=_PROTOCOL,
            help="Average one view of each image, ten crops, or the whole image at five scales.",
        ),
    ] = EvaluationProtocol.single,
    precision: Annotated[
        str | None,
        typer.Option(
            rich_help_panel=MACHINE,
            help="Compute in fp32 or bf16. Default: as in the run, fp32 for a bundle.",
        ),
    ] = None,
    device: DeviceOption = None,
    data_dir: DataDirOption = None,
    as_json: JsonOption = False,
) -> None:
    """Measure loss and error of trained networks on clean images.

    With several networks or views, their softmax scores are averaged.

    Lengths are the paper's for crops of 224 pixels and scale in proportion. Ten-crop cuts the four
    corners and the center at a shorter side of 256, and mirrors them. Multi-scale shows whole
    images and their mirror images at shorter sides of 224, 256, 384, 480 and 640. Both need a
    folder of images.

    The 95 % intervals are over images: they describe other samples of images, not other seeds.
    """
    from reslearn.train import Machine, evaluate_bundle

    networks, data = _split_sources(sources)
    metrics = evaluate_bundle(
        networks,
        data,
        Machine(device=device, data_dir=data_dir),
        images=images,
        protocol=protocol.value,
        precision=precision,
    )
    if as_json:
        _print_json(metrics, protocol, len(networks))
        return
    errors = f"{images} error {_with_interval(metrics.top1_error_pct, metrics.num_images)}"
    if metrics.top5_error_pct is not None:
        errors += f", top-5 {_with_interval(metrics.top5_error_pct, metrics.num_images)}"
    line = f"{errors}, loss {metrics.loss:.4f} on {metrics.num_images} images"
    if protocol != EvaluationProtocol.single or len(networks) > 1:
        plural = "s" if len(networks) > 1 else ""
        line += f" ({protocol.value}, {len(networks)} network{plural})"
    print_lines(line)


def _split_sources(sources: list[str]) -> tuple[list[Path], str | None]:
    """Separate run folders and bundles from the data, which may follow them."""
    from reslearn.train import is_source

    first, *following = sources
    networks = [Path(first)]
    for number, text in enumerate(following, 1):
        if is_source(text):
            networks.append(Path(text))
        elif number == len(following):
            return networks, text
        else:
            raise ValueError(
                f"{text} is not a run folder or bundle; the data (one name or folder) come last"
            )
    return networks, None


def _print_json(metrics: Metrics, protocol: EvaluationProtocol, num_networks: int) -> None:
    from dataclasses import asdict

    record = asdict(metrics)
    for name, error_pct in (("top1", metrics.top1_error_pct), ("top5", metrics.top5_error_pct)):
        interval = None if error_pct is None else _interval_pct(error_pct, metrics.num_images)
        record[f"{name}_error_interval_pct"] = interval
    print_json({**record, "protocol": protocol.value, "networks": num_networks})


def _interval_pct(error_pct: float, num_images: int) -> Interval:
    from reslearn.study import proportion

    return proportion(round(error_pct * num_images / 100), num_images).scaled_by(100)


def _with_interval(error_pct: float, num_images: int) -> str:
    from reslearn.study import number_text

    return number_text(error_pct, unit="%", interval=_interval_pct(error_pct, num_images))
