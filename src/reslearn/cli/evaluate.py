"""`reslearn evaluate`: trained networks measured again, one or an ensemble, by the paper's protocols (Sec. 4.1, Tables 3 to 5)."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

EXAMPLES = (
    "reslearn evaluate runs/digits",
    "reslearn evaluate runs/digits/model.safetensors digits --images train --json",
    "reslearn evaluate runs/one runs/two photos --protocol ten-crop",
)


class Views(StrEnum):
    """The views of an image whose scores are averaged."""

    single = "single"
    ten_crop = "ten-crop"
    multi_scale = "multi-scale"


def evaluate(
    sources: Annotated[
        list[str],
        typer.Argument(help="Run folders or bundles, then the data; default: the data of the run."),
    ],
    images: Annotated[str, typer.Option(help="train, validation or test.")] = "test",
    protocol: Annotated[
        Views, typer.Option(help="Views of each image: one, ten crops, or whole at five scales.")
    ] = Views.single,
    precision: Annotated[
        str | None, typer.Option(help="fp32 or bf16; default: the run's, fp32 for a bundle.")
    ] = None,
    device: Annotated[
        str | None, typer.Option(help="cpu, cuda or cuda:N; default: CUDA where there is one.")
    ] = None,
    data_dir: Annotated[
        Path | None,
        typer.Option(help="Where data sets lie; default: RESLEARN_DATA, then the cache."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for programs.")] = False,
) -> None:
    """Measure loss and error of a trained network on clean images.

    Of several networks, and of several views, the softmax scores are averaged. Lengths are the paper's for crops of 224 pixels and in
    proportion for others: ten-crop takes four corners and the center at a shorter side of 256, and their mirror images; multi-scale
    shows whole pictures and their mirror images at shorter sides of 224, 256, 384, 480 and 640. Both need a folder of images. Intervals
    in brackets hold 95 % and are over images: what another sample of as many would give, not what another seed of training would.
    """
    import json
    from dataclasses import asdict

    from reslearn.train import Machine, evaluate_bundle, is_source

    members, data = [Path(sources[0])], None
    for place, text in enumerate(sources[1:], 1):
        if is_source(text):
            members.append(Path(text))
        elif place == len(sources) - 1:
            data = text
        else:
            raise ValueError(
                f"{text} is no run folder or bundle; the data (one name or folder) come last"
            )
    metrics = evaluate_bundle(
        members,
        data,
        Machine(device=device, data_dir=data_dir),
        images=images,
        protocol=protocol.value,
        precision=precision,
    )
    if as_json:
        errors = {"top1": metrics.top1_error_pct, "top5": metrics.top5_error_pct}
        intervals = {
            f"{k}_error_interval_pct": None if e is None else _interval_pct(e, metrics.num_images)
            for k, e in errors.items()
        }
        told = {
            **asdict(metrics),
            **intervals,
            "protocol": protocol.value,
            "networks": len(members),
        }
        typer.echo(json.dumps(told))
        return
    top5 = (
        ""
        if metrics.top5_error_pct is None
        else f", top-5 {_with_interval(metrics.top5_error_pct, metrics.num_images)}"
    )
    by = (
        ""
        if protocol == Views.single and len(members) == 1
        else f" ({protocol.value}, {len(members)} network{'s'[: len(members) > 1]})"
    )
    top1 = _with_interval(metrics.top1_error_pct, metrics.num_images)
    typer.echo(
        f"{images} error {top1}{top5}, loss {metrics.loss:.4f} on {metrics.num_images} images{by}"
    )


def _interval_pct(error_pct: float, num_images: int) -> tuple[float, float]:
    from reslearn.study import proportion

    interval = proportion(round(error_pct * num_images / 100), num_images)
    return 100 * interval.low, 100 * interval.high


def _with_interval(error_pct: float, num_images: int) -> str:
    low, high = _interval_pct(error_pct, num_images)
    return f"{error_pct:.2f} % [{low:.2f}, {high:.2f}]"
