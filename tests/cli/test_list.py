"""`reslearn list`: names as the rooms know them, first word of each line."""

import pytest
from typer.testing import CliRunner

from reslearn import data, models, recipes
from reslearn.cli import app


@pytest.mark.parametrize(
    ("kind", "names"),
    [("models", models.names()), ("recipes", recipes.names()), ("data", list(data.names()))],
)
def test_lists_every_name(kind: str, names: list[str]) -> None:
    shown = CliRunner().invoke(app, ["list", kind])
    assert shown.exit_code == 0
    assert [line.split()[0] for line in shown.output.splitlines()] == names


def test_pattern() -> None:
    shown = CliRunner().invoke(app, ["list", "models", "resnet1?"])
    assert shown.output.split() == ["resnet14", "resnet18"]
    assert CliRunner().invoke(app, ["list", "models", "nothing*"]).output == ""


def test_recipes_say_what_they_are_for() -> None:
    for line in CliRunner().invoke(app, ["list", "recipes"]).output.splitlines():
        assert len(line.split()) > 3
