"""`reslearn export`: a trained network, or anyone's file of weights, as the file of another project."""

from pathlib import Path
from typing import Annotated

import typer

EXAMPLES = (
    "reslearn export runs/pets --to torchvision --out resnet50.pth",
    "reslearn export resnet50-0676ba61.pth --to hf --out model.safetensors",
    "reslearn export detector.pth --partial --stride-in 1x1 --to caffe --out backbone.caffemodel",
)


def export(
    source: Annotated[
        str,
        typer.Argument(
            help="A run folder, a bundle (model.safetensors), or any file that `reslearn inspect` knows."
        ),
    ],
    to: Annotated[
        str,
        typer.Option(
            help="The project whose names and layout to write; docs/weights.md lists them."
        ),
    ],
    out: Annotated[Path, typer.Option(help="The file to write; its suffix decides the container.")],
    stride_in: Annotated[
        str | None,
        typer.Option(help="Where bottlenecks stride, if the file cannot tell: 1x1 or 3x3."),
    ] = None,
    partial: Annotated[
        bool,
        typer.Option(
            "--partial", help="Leave out what is no part of the network, as a detector's heads."
        ),
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Write over a file that is there.")
    ] = False,
) -> None:
    """Write the weights of a network as another project names and lays them out, so that it loads them strictly.

    Refused where that project has no such network, or would compute something else with the same weights. A backbone is written
    without a head.
    """
    from reslearn.interop import dialect_named, identify, load_weights, write_weights
    from reslearn.models import build
    from reslearn.runs import RunFolder

    dialect = dialect_named(to)
    if out.exists() and not force:
        raise ValueError(f"{out} is there already: choose another --out, or --force")
    folder = Path(source)
    path: str | Path = RunFolder.open(folder).bundle_path if folder.is_dir() else source
    identity = identify(path)
    identity = identity.with_switches(stride_in=stride_in) if stride_in is not None else identity
    net = build(**identity.spec, num_classes=identity.num_classes or 1)
    loaded = load_weights(net, identity, partial=partial)
    if fresh := [name for name in loaded.fresh if not name.startswith("head.fc.")]:
        raise ValueError(
            f"{path}: {fresh[0]} would be written with numbers of chance: the file has none for it"
        )
    with_head = identity.num_classes is not None and dialect.has_head
    write_weights(net, out, dialect, with_head=with_head)
    typer.echo(
        f"{out}: {net.name} in the names of {dialect.name}, {'with its head' if with_head else 'without a head'}"
    )
    if loaded.unused:
        typer.echo(
            f"left out: {', '.join(loaded.unused[:6])}{', ...' if len(loaded.unused) > 6 else ''}"
        )
    for note in dialect.notes:
        typer.echo(note)
