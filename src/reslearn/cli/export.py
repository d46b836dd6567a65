"""`reslearn export`: a trained network, or anyone's file of weights, as the file of another project."""

from pathlib import Path
from typing import Annotated

import typer

EXAMPLES = (
    "reslearn export runs/pets --to torchvision --out resnet50.pth",
    "reslearn export resnet50-0676ba61.pth --to hf --out model.safetensors",
)


def export(
    source: Annotated[str, typer.Argument(help="A run folder, a bundle (model.safetensors), or any file that `reslearn inspect` knows.")],
    to: Annotated[str, typer.Option(help="The project whose names and layout to write; docs/weights.md lists them.")],
    out: Annotated[Path, typer.Option(help="The file to write; its suffix decides the container.")],
    force: Annotated[bool, typer.Option("--force", help="Write over a file that is there.")] = False,
) -> None:
    """Write the weights of a network as another project names and lays them out, so that it loads them strictly.

    Refused where that project has no such network, or would compute something else with the same weights.
    """
    from reslearn.interop import dialect_named, network_of, write_weights
    from reslearn.runs import RunFolder

    dialect = dialect_named(to)
    if out.exists() and not force:
        raise ValueError(f"{out} is there already: choose another --out, or --force")
    folder = Path(source)
    path: str | Path = RunFolder.open(folder).bundle_path if folder.is_dir() else source
    net = network_of(path)
    write_weights(net, out, dialect)
    typer.echo(f"{out}: {net.name} in the names of {dialect.name}, {len(net.state_dict())} tensors")
    for note in dialect.notes:
        typer.echo(note)
