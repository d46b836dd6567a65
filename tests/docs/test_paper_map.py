"""docs/paper-map.md names only what exists: functions can be imported, tests are there, commands are commands."""

import importlib
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ROWS = [line.split("|")[1:-1] for line in (ROOT / "docs/paper-map.md").read_text(encoding="utf-8").splitlines() if line.startswith("| ")]
FUNCTIONS = sorted({name for row in ROWS[1:] for name in re.findall(r"`(reslearn(?:\.\w+)+)`", row[2])})
TESTS = sorted({name for row in ROWS[1:] for name in re.findall(r"`(tests/[\w/.]+)`", row[3])})
COMMANDS = sorted({name for row in ROWS[1:] for name in re.findall(r"`reslearn (\w+)", row[4])})


def test_the_map_has_rows_and_each_is_whole() -> None:
    assert len(ROWS) > 10
    assert all(len(row) == 5 for row in ROWS)
    assert all(row[2].strip() for row in ROWS), "every row names a function, or says later"


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_function_of_the_map_can_be_imported(name: str) -> None:
    module, _, attribute = name.rpartition(".")
    assert hasattr(importlib.import_module(module), attribute)


@pytest.mark.parametrize("name", TESTS)
def test_a_test_of_the_map_exists(name: str) -> None:
    assert (ROOT / name).is_file()


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_of_the_map_is_one(name: str) -> None:
    from typer.main import get_command

    from reslearn.cli import app

    assert name in get_command(app).commands  # type: ignore[attr-defined]
