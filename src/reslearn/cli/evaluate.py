"""`reslearn evaluate`: a trained network measured again."""

from pathlib import Path
from typing import Annotated

import typer

EXAMPLES = ("reslearn evaluate runs/digits", "reslearn evaluate runs/digits/model.safetensors digits --images train --json")


def evaluate(
    source: Annotated[Path, typer.Argument(help="A run folder, or a bundle (model.safetensors).")],
    data: Annotated[str | None, typer.Argument(help="digits, cifar10, cifar100 or a folder; default: the run's.")] = None,
    images: Annotated[str, typer.Option(help="train or test.")] = "test",
    precision: Annotated[str | None, typer.Option(help="fp32 or bf16; default: the run's, fp32 for a bundle.")] = None,
    device: Annotated[str | None, typer.Option(help="cpu, cuda or cuda:N; default: CUDA where there is one.")] = None,
    data_dir: Annotated[Path | None, typer.Option(help="Where data sets lie; default: RESLEARN_DATA, then the cache.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for programs.")] = False,
) -> None:
    """Measure loss and error of a trained network on clean images, one view each."""
    import json
    from dataclasses import asdict

    from reslearn.train import evaluate_bundle

    metrics = evaluate_bundle(source, data, images=images, precision=precision, device=device, data_dir=data_dir)
    if as_json:
        typer.echo(json.dumps(asdict(metrics)))
        return
    top5 = "" if metrics.top5_error_pct is None else f", top-5 {metrics.top5_error_pct:.2f} %"
    typer.echo(f"{images} error {metrics.top1_error_pct:.2f} %{top5}, loss {metrics.loss:.4f} on {metrics.num_images} images")
