"""docs/paper-map.md names only what exists: functions can be imported, tests are there, commands are commands."""

import importlib
import re
from pathlib import Path

import pytest
from typer.core import TyperGroup
from typer.main import get_command

from reslearn.cli import app
from reslearn.cli.analyze import What

ROOT = Path(__file__).parents[2]
ROWS = [
    line.split("|")[1:-1]
    for line in (ROOT / "docs/paper-map.md").read_text(encoding="utf-8").splitlines()
    if line.startswith("| ")
]
FUNCTIONS = sorted(
    {name for row in ROWS[1:] for name in re.findall(r"`(reslearn(?:\.\w+)+)`", row[2])}
)
TESTS = sorted({name for row in ROWS[1:] for name in re.findall(r"`(tests/[\w/.]+)`", row[3])})
COMMANDS = sorted({name for row in ROWS[1:] for name in re.findall(r"`reslearn ([^`]+)`", row[4])})
RESULTS = sorted({name for row in ROWS[1:] for name in re.findall(r"`(results/[\w/-]+)`", row[5])})


def test_the_map_has_rows_and_each_is_whole() -> None:
    assert len(ROWS) > 10
    assert all(len(row) == 6 for row in ROWS)
    assert all(row[2].strip() for row in ROWS), "every row names a function, or says later"
    assert all(row[5].strip() for row in ROWS), "every row says what came of it"


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_function_of_the_map_can_be_imported(name: str) -> None:
    module, _, attribute = name.rpartition(".")
    assert hasattr(importlib.import_module(module), attribute)


@pytest.mark.parametrize("name", TESTS)
def test_a_test_of_the_map_exists(name: str) -> None:
    assert (ROOT / name).is_file()


@pytest.mark.parametrize("typed", COMMANDS)
def test_a_command_of_the_map_is_one(typed: str) -> None:
    """Down to the table or figure, and to what `analyze` looks at."""
    words = typed.split()
    command = get_command(app)
    while isinstance(command, TyperGroup) and words:
        word = words.pop(0)
        assert word in command.commands, typed
        command = command.commands[word]
    assert not isinstance(command, TyperGroup), f"{typed}: and then?"
    options = {option for parameter in command.params for option in parameter.opts}
    assert {word for word in words if word.startswith("--")} <= options
    assert not typed.startswith("analyze") or words[1] in {what.value for what in What}


@pytest.mark.parametrize("place", RESULTS)
def test_a_result_of_the_map_is_committed(place: str) -> None:
    assert any((ROOT / place).iterdir())
