"""docs/inspect.md: its example runs, and its commands have the options that they use."""

import re
import shlex
from pathlib import Path

import pytest
from typer.main import get_command

from reslearn.cli import app

PAGE = (Path(__file__).parents[2] / "docs/inspect.md").read_text(encoding="utf-8")


def test_the_example_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    examples = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)
    assert len(examples) == 1
    exec(compile(examples[0], "inspect.md", "exec"), {})
    output = capsys.readouterr().out
    assert "error missing_class 1" in output
    assert "{'blue': 3, 'red': 3}" in output


def test_commands_and_their_options_exist() -> None:
    commands = re.findall(r"^\$ reslearn (.+)$", PAGE, flags=re.MULTILINE)
    assert len(commands) == 3
    for command in commands:
        name, *arguments = shlex.split(command)
        parameters = get_command(app).commands[name].params  # type: ignore[attr-defined]
        options = {option for parameter in parameters for option in parameter.opts}
        assert {argument for argument in arguments if argument.startswith("--")} <= options
