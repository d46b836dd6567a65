"""`reslearn export`: write a trained network, or any weight file, as a file of another project."""

from pathlib import Path
from typing import Annotated

import typer

from reslearn.cli.options import OUTPUT
from reslearn.terminal import print_lines

EXAMPLES = (
    "reslearn export runs/pets --to torchvision --out resnet50.pth",
    "reslearn export resnet50-0676ba61.pth --to hf --out model.safetensors",
    "reslearn export detector.pth --partial --stride-in 1x1 --to caffe --out backbone.caffemodel",
)
_SOURCE = "Source"
_NUM_LISTED = 6


Source = Annotated[
    str,
    typer.Argument(
        help="A run folder, a bundle (model.safetensors), or any file that `reslearn inspect` "
        "identifies."
    ),
]
To = Annotated[
    str,
    typer.Option(
        help="The dialect to write: names and layout of a project. docs/weights.md lists them.",
        rich_help_panel=OUTPUT,
    ),
]
Out = Annotated[
    Path,
    typer.Option(help="The file to write. Its suffix selects the format.", rich_help_panel=OUTPUT),
]
StrideIn = Annotated[
    str | None,
    typer.Option(
        help="Which convolution of a bottleneck strides, if the file does not show it: 1x1 or 3x3.",
        rich_help_panel=_SOURCE,
    ),
]
Partial = Annotated[
    bool,
    typer.Option(
        "--partial",
        help="Leave out tensors that are no part of the network, such as a detector's heads.",
        rich_help_panel=_SOURCE,
    ),
]
Force = Annotated[
    bool, typer.Option("--force", help="Replace an existing file.", rich_help_panel=OUTPUT)
]


def export(
    source: Source,
    to: To,
    out: Out,
    stride_in: StrideIn = None,
    partial: Partial = False,
    force: Force = False,
) -> None:
    """Write the weights of a network for another project.

    The project loads the file with its own strict loader. A backbone is written without a head.

    The command refuses to write a network that the project does not have, or with which the project
    would compute another function.
    """
    from reslearn.interop import dialect_named, identify, load_weights, write_weights
    from reslearn.interop.stored import abbreviate
    from reslearn.models import build
    from reslearn.runs import RunFolder, check_weights

    dialect = dialect_named(to)
    if out.exists() and not force:
        raise ValueError(f"{out} already exists: choose another --out, or pass --force")
    folder = Path(source)
    path: str | Path = source
    if folder.is_dir():
        run = RunFolder.open(folder)
        run.check_complete()
        path = run.bundle_path
        if path.is_file():
            check_weights(run, path)
    identity = identify(path)
    if stride_in is not None:
        identity = identity.with_switches(stride_in=stride_in)
    net = build(**identity.spec, num_classes=identity.num_classes or 1)
    report = load_weights(net, identity, partial=partial)
    missing = [name for name in report.left_initialized if not name.startswith("head.fc.")]
    if missing:
        raise ValueError(
            f"{path} does not hold {missing[0]}, so random numbers would be written for it"
        )
    with_head = identity.num_classes is not None and dialect.has_head
    write_weights(net, out, dialect, with_head=with_head)
    head = "with its head" if with_head else "without a head"
    print_lines(f"{out}: {net.name} in dialect {dialect.name}, {head}")
    if report.unused:
        print_lines(f"left out: {abbreviate(report.unused, _NUM_LISTED)}")
    for note in dialect.notes:
        print_lines(note)
