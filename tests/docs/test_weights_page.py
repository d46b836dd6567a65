"""docs/weights.md: its examples run, and its commands, options and dialects exist."""

import re
import shlex
from pathlib import Path

import pytest
from typer.main import get_command

from reslearn import data
from reslearn.cli import app
from reslearn.interop import WeightsError, dialects

PAGE = (Path(__file__).parents[2] / "docs/weights.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)
COMMANDS = re.findall(r"^    reslearn (.+)$", PAGE, flags=re.MULTILINE)


def test_the_first_examples_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, object] = {}
    for example in EXAMPLES[:2]:
        exec(compile(example, "weights.md", "exec"), namespace)
    # Each comment beside a `print` is the beginning of what it prints.
    expected = re.findall(r"print\(.*\)  # (.*?)(?: \.\.\.)?$", "".join(EXAMPLES[:2]), re.MULTILINE)
    assert len(expected) == 2
    output = capsys.readouterr().out
    for text in expected:
        assert text.rstrip(";") in output


def test_the_example_with_photos_needs_only_photos_and_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its names exist; it stops where the user's files would be read."""
    assert len(EXAMPLES) == 3
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(data, "load", lambda name, size_px: None)
    with pytest.raises(WeightsError, match=r"resnet50\.pth: No such file"):
        exec(compile(EXAMPLES[2], "weights.md", "exec"), {})


def test_commands_and_their_options_exist() -> None:
    names = {command.split()[0] for command in COMMANDS}
    assert names == {"inspect", "train", "export", "evaluate"}
    for command in COMMANDS:
        name, *arguments = shlex.split(command)
        parameters = get_command(app).commands[name].params  # type: ignore[attr-defined]
        options = {option for parameter in parameters for option in parameter.opts}
        used = {argument for argument in arguments if argument.startswith("--")}
        assert used <= options, command


def test_dialects_of_commands_and_examples_exist() -> None:
    names = re.findall(r"--to (\S+)", PAGE) + re.findall(r'dialect_named\("(\S+)"\)', PAGE)
    assert len(names) >= 2
    assert set(names) <= set(dialects())


def test_the_number_of_other_dialects_is_right() -> None:
    (number,) = re.findall(r"weights of (\d+) other projects and layouts", PAGE)
    assert int(number) == len(set(dialects()) - {"reslearn"})
