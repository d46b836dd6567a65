"""The commands of docs/weights.md are commands, and its dialects are there."""

import re
from pathlib import Path

from typer.main import get_command

from reslearn.cli import app
from reslearn.interop import dialects

PAGE = (Path(__file__).parents[2] / "docs/weights.md").read_text(encoding="utf-8")


def test_its_commands_exist_and_its_dialects_too() -> None:
    commands = re.findall(r"^    reslearn (\w+)", PAGE, flags=re.MULTILINE)
    assert commands and set(commands) <= set(get_command(app).commands)  # type: ignore[attr-defined]
    assert set(re.findall(r"--to (\S+)", PAGE)) <= set(dialects())
