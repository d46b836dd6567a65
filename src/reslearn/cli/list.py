"""`reslearn list`: names to train, to train by and to train on. Each line begins with a name."""

import re
from enum import StrEnum
from fnmatch import fnmatchcase
from itertools import takewhile
from typing import Annotated

import typer

EXAMPLES = ("reslearn list models", "reslearn list models 'resnet*'", "reslearn list recipes")


class Kind(StrEnum):
    """What `reslearn list` can list."""

    models = "models"
    recipes = "recipes"
    data = "data"


def list_names(
    kind: Annotated[Kind, typer.Argument(help="List models, recipes or data.")],
    pattern: Annotated[str, typer.Argument(help="List names that match this shell pattern.")] = "*",
) -> None:
    """List the names of models, recipes or data sets.

    Other commands also accept plain and residual CIFAR networks of any 6n+2 layers, any recipe
    file, and any folder of images.
    """
    descriptions = {}
    for name, description in _described(kind).items():
        if fnmatchcase(name, pattern):
            descriptions[name] = description
    width = max(map(len, descriptions), default=0)
    for name, description in descriptions.items():
        typer.echo(f"{name:{width}}  {description}".rstrip())


def _described(kind: Kind) -> dict[str, str]:
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

            return data.names()


def _purpose(toml: str) -> str:
    """Return how the opening comment of a recipe begins, after its command line.

    It ends before the first colon or before the second sentence.
    """
    opening = takewhile(lambda line: line.startswith("#"), toml.splitlines()[1:])
    text = " ".join(" ".join(line.removeprefix("#") for line in opening).split())
    return re.split(r": |\. (?=[A-Z])", text)[0].rstrip(".")
