"""`reslearn list`: names to train, to train by and to train on. Each line begins with a name."""

import re
from enum import StrEnum
from fnmatch import fnmatchcase
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from reslearn.cli.options import DataDirOption
from reslearn.terminal import print_lines

if TYPE_CHECKING:
    from reslearn.data import DataStatus

EXAMPLES = (
    "reslearn list models",
    "reslearn list models 'resnet*'",
    "reslearn list recipes",
    "reslearn list data",
    "reslearn list weights 'reslearn:*'",
)


class Kind(StrEnum):
    """What `reslearn list` can list."""

    models = "models"
    recipes = "recipes"
    data = "data"
    weights = "weights"


def list_names(
    kind: Annotated[Kind, typer.Argument(help="List models, recipes, data or weights.")],
    pattern: Annotated[str, typer.Argument(help="List names that match this shell pattern.")] = "*",
    data_dir: DataDirOption = None,
) -> None:
    """List the names of models, recipes, data sets or trained weights.

    For data sets, the list shows which are present, where, and how large they are.

    Other commands also accept plain and residual CIFAR networks of any 6n+2 layers, any recipe
    file, and any folder of images.
    """
    descriptions = {}
    for name, description in _described(kind, data_dir).items():
        if fnmatchcase(name, pattern):
            descriptions[name] = description
    width = max(map(len, descriptions), default=0)
    for name, description in descriptions.items():
        print_lines(f"{name:{width}}  {description}".rstrip())


def _described(kind: Kind, data_dir: Path | None) -> dict[str, str]:
    """Return the names and a description of each, empty if the name says everything."""
    match kind:
        case Kind.models:
            from reslearn import models

            return dict.fromkeys(models.names(), "")
        case Kind.recipes:
            from reslearn import recipes

            return {name: _purpose(recipes.text(name)) for name in recipes.names()}
        case Kind.data:
            from reslearn import data

            return {
                name: f"{description}; {_presence(data.status(name, data_dir=data_dir))}"
                for name, description in data.names().items()
            }
        case Kind.weights:
            return _weights()


def _weights() -> dict[str, str]:
    """Return the networks that come with the package, then the weights that can be downloaded."""
    from reslearn.interop.pretrained import published_weights
    from reslearn.interop.shipped import PREFIX, shipped_networks

    shipped = {PREFIX + name: network.description() for name, network in shipped_networks().items()}
    return {**shipped, **dict.fromkeys(published_weights(), "")}


def _presence(status: "DataStatus") -> str:
    from reslearn.cli.download import size_text

    location = f"{status.folder} ({size_text(status.num_bytes)})"
    match status.state:
        case "embedded":
            return "embedded"
        case "present":
            return f"in {location}"
        case "incomplete":
            return f"incomplete in {location}"
        case "packed":
            return f"packed in {location}"
        case _:
            size = size_text(status.num_bytes)
            return f"not present, {size} to download with: reslearn download {status.name}"


def _purpose(toml: str) -> str:
    """Return how the opening comment of a recipe begins, after its command line.

    It ends before the first colon or before the second sentence.
    """
    opening = takewhile(lambda line: line.startswith("#"), toml.splitlines()[1:])
    text = " ".join(" ".join(line.removeprefix("#") for line in opening).split())
    return re.split(r": |\. (?=[A-Z])", text)[0].rstrip(".")
