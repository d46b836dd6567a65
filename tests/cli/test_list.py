"""`reslearn list`: the names that other commands accept, as the first word of each line."""

import pytest
from typer.testing import CliRunner, Result

from reslearn import data, models, recipes
from reslearn.cli import app


def list_names(*arguments: str) -> Result:
    result = CliRunner().invoke(app, ["list", *arguments])
    assert result.exit_code == 0, result.output
    return result


@pytest.mark.parametrize(
    ("kind", "names"),
    [("models", models.names()), ("recipes", recipes.names()), ("data", list(data.names()))],
)
def test_every_name_is_listed(kind: str, names: list[str]) -> None:
    lines = list_names(kind).output.splitlines()
    assert [line.split()[0] for line in lines] == names


def test_a_pattern_selects_names() -> None:
    assert list_names("models", "resnet1?").output.split() == ["resnet14", "resnet18"]
    assert list_names("models", "nothing*").output == ""


def test_recipes_and_data_are_described_and_never_cut() -> None:
    for kind, names in (("recipes", recipes.names()), ("data", list(data.names()))):
        lines = list_names(kind).output.splitlines()
        assert len(lines) == len(names) > 0
        for line in lines:
            assert len(line.split()) > 3, line
            assert not line.endswith(("...", ":", ".")), line
    digits = list_names("recipes", "digits").output
    assert digits.startswith("digits  Real scans of handwritten digits, 8 x 8 pixels")
