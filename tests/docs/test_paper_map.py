"""docs/paper-map.md names only functions, tests, commands and results that exist."""

import importlib
import re
from pathlib import Path

import pytest
from typer.core import TyperGroup
from typer.main import get_command

from reslearn.cli import app
from reslearn.cli.analyze import What

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs/paper-map.md").read_text(encoding="utf-8")
TABLE = [line.split("|")[1:-1] for line in TEXT.splitlines() if line.startswith("| ")]
ROWS = [row for row in TABLE if row[0].strip() != "part of the paper"]
PAPER, STATEMENT, FUNCTION, TEST, COMMAND, RESULT = range(6)


def names(column: int, pattern: str) -> list[str]:
    """Return what `pattern` matches in one column of all rows, sorted and without duplicates."""
    return sorted(set(re.findall(pattern, "\n".join(row[column] for row in ROWS))))


FUNCTIONS = names(FUNCTION, r"`(reslearn(?:\.\w+)+)`")
TESTS = names(TEST, r"`(tests/[\w/.]+)`")
COMMANDS = names(COMMAND, r"`reslearn ([^`]+)`")
RESULTS = names(RESULT, r"`(results/[\w/-]+)`")


def test_every_row_of_the_map_is_complete() -> None:
    assert len(ROWS) > 10
    assert all(len(row) == 6 for row in ROWS)
    assert all(row[FUNCTION].strip() for row in ROWS), "a row without a function says later"
    assert all(row[RESULT].strip() for row in ROWS), "every row has a result"


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_function_of_the_map_can_be_imported(name: str) -> None:
    module, _, attribute = name.rpartition(".")
    assert hasattr(importlib.import_module(module), attribute)


@pytest.mark.parametrize("path", TESTS)
def test_a_test_of_the_map_exists(path: str) -> None:
    assert (ROOT / path).is_file()


@pytest.mark.parametrize("text", COMMANDS)
def test_a_command_of_the_map_exists(text: str) -> None:
    """Check the command, its options, and the table, figure or analysis that it names."""
    words = text.split()
    command = get_command(app)
    while isinstance(command, TyperGroup) and words:
        word = words.pop(0)
        assert word in command.commands, text
        command = command.commands[word]
    assert not isinstance(command, TyperGroup), f"{text}: a subcommand is missing"
    options = {option for parameter in command.params for option in parameter.opts}
    assert {word for word in words if word.startswith("--")} <= options
    assert not text.startswith("analyze") or words[1] in {analysis.value for analysis in What}


@pytest.mark.parametrize("path", RESULTS)
def test_a_result_of_the_map_is_committed(path: str) -> None:
    assert any((ROOT / path).iterdir())
