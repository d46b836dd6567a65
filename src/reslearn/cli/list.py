"""`reslearn list`: what there is to train, to train it by and to train it on. The name is the first word of a line, for pipes."""

from enum import StrEnum
from fnmatch import fnmatchcase
from itertools import takewhile
from textwrap import shorten
from typing import Annotated

import typer

EXAMPLES = ("reslearn list models", "reslearn list models 'resnet*'", "reslearn list recipes")


class Kind(StrEnum):
    """What can be listed."""

    models = "models"
    recipes = "recipes"
    data = "data"


def list_names(
    kind: Annotated[Kind, typer.Argument(help="What to list.")],
    pattern: Annotated[str, typer.Argument(help="Only names that match this shell pattern.")] = "*",
) -> None:
    """List the models, recipes or data sets that go by a name.

    Besides those listed any plain or residual CIFAR net of 6n+2 layers can be named, any recipe file, and any folder of images.
    """
    described = {
        name: text for name, text in _described(kind).items() if fnmatchcase(name, pattern)
    }
    width = max(map(len, described), default=0)
    for name, text in described.items():
        typer.echo(f"{name:{width}}  {text}".rstrip())


def _described(kind: Kind) -> dict[str, str]:
    """Names, and a line about each where the name does not say it all."""
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
    """Of a recipe that ships the first line is the command; what follows in the opening comment says what it is for."""
    opening = takewhile(lambda line: line.startswith("#"), toml.splitlines()[1:])
    return shorten(
        " ".join(line.removeprefix("#") for line in opening), width=110, placeholder=" ..."
    )
