"""docs/weights.md: its examples run, and its commands, options and dialects exist."""

import pickle
import re
import shlex
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.main import get_command

from reslearn import data, models
from reslearn.cli import app
from reslearn.interop import WeightsError, dialect_named, dialects
from reslearn.interop.write import foreign_state_dict

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


def write_cifar(folder: Path) -> None:
    """Write three images per file, with the mean and deviation of CIFAR-10, and noise otherwise."""
    folder.mkdir(parents=True)
    draw = np.random.default_rng(0)
    values = np.array([[188, 62], [185, 61], [181, 47]], dtype=np.uint8)
    channels = np.repeat(values, 512, axis=1)
    for name in (*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"):
        planes = np.stack([draw.permuted(channels, axis=1).reshape(-1) for _ in range(3)])
        content = {b"data": planes, b"labels": [0, 1, 2]}
        (folder / name).write_bytes(pickle.dumps(content, protocol=2))
    names = {b"label_names": [f"kind{label}".encode() for label in range(10)]}
    (folder / "batches.meta").write_bytes(pickle.dumps(names, protocol=2))


def write_stranger(path: str, num_classes: int) -> None:
    """Write a small network of option A under the names of another project."""
    net = models.build("resnet8", num_classes=num_classes, zero_pad="split")
    torch.save(foreign_state_dict(net, dialect_named("cifar-linear")), path)


def choices_in(text: str) -> list[str]:
    """Return the choices of a table in order, without numbers and without the mark of the best."""
    labels = re.findall(r"^ +[\d.]+ +[\d,]+  (--.+?)(?:, taken)?$", text, re.MULTILINE)
    return [re.sub(r"[\d.,]*\d", "N", label) for label in labels]


def test_the_way_from_a_file_to_an_error_rate(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    make_pictures: Callable[..., Path],
    reslearn: Callable[..., tuple[int, str, str]],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RESLEARN_DATA", str(tmp_path / "data"))
    write_cifar(tmp_path / "data" / "cifar-10-batches-py")
    make_pictures(tmp_path / "photos", classes=("a", "b"), train=2, test=1)
    write_stranger("resnet20.pth", 10)
    write_stranger("net.pth", 2)
    section = PAGE.partition("## From a stranger's file")[2].partition("\n## ")[0]
    first, second, _ = re.findall(r"^    reslearn (.+)$", section, flags=re.MULTILINE)
    status, output, errors = reslearn(*shlex.split(first), "--no-views")
    assert (status, errors) == (0, "")
    assert len(choices_in(section)) == 13
    assert choices_in(output) == choices_in(section)
    first_line = output.partition("\n")[0]
    assert first_line in section.splitlines()
    status, output, errors = reslearn(*shlex.split(second), "--no-views")
    assert (status, errors) == (0, "")
    assert output.startswith("net.pth leaves open: model.subsample\n")


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
