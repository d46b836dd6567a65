"""Hostile names x real commands: no character that a terminal obeys in any output.

A name may hold escape sequences, marks that reverse text, and bytes that are no UTF-8.
"""

import json
import os
import pty
import select
import struct
import unicodedata
from collections.abc import Callable
from pathlib import Path

import pytest

from forked_command import start_command

Run = Callable[..., tuple[int, str, str]]
# Each begins a line of its own kind: colors, a title, a link, carriage return, backspace, a new
# line, one-byte controls, reversed text, isolates, DEL, other line ends, and markup of rich.
CONTROLS = (
    "\x1b[31mred\x1b[2J\x1b]0;title\x07\x1b]8;;x:y\x1b\\link\rCR\bBS\nLF\x9b35m\x85\x0b"
    "\u202eRLO\u2066iso\u2069\x7f\u2028\u200f[bold]x[red"
)
NAMES = {"controls": CONTROLS, "no UTF-8": os.fsdecode(b"caf\xe9\xff"), "letters": "é漢字 naïve"}


def unsafe(text: str) -> list[str]:
    """Return the characters that a terminal may obey, by the categories of Unicode."""
    return [
        letter
        for letter in text
        if unicodedata.category(letter) in {"Cc", "Cs", "Cf", "Zl", "Zp"} and letter not in "\n\t"
    ]


def write_safetensors(path: Path, name: str) -> Path:
    header = {
        "__metadata__": {"format": name, "reslearn.model": json.dumps({"name": name})},
        f"layer.{name}": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]},
    }
    text = json.dumps(header, ensure_ascii=False).encode(errors="replace")
    path.write_bytes(struct.pack("<Q", len(text)) + text + bytes(4))
    return path


def write_files(folder: Path, name: str) -> tuple[Path, ...]:
    """Write a recipe, a JSON file, a file in the way, weights, a folder of pictures, and a run."""
    toml = folder / f"{name}.toml"
    toml.write_text(f"{json.dumps(name)} = {json.dumps(name)}\n", errors="replace")
    broken = folder / f"{name}.json"
    broken.write_text("[")
    blocked = folder / name
    blocked.write_text("a file")
    weights = write_safetensors(folder / f"{name}.safetensors", name)
    pictures = folder / f"pictures {name}"
    (pictures / "train" / name).mkdir(parents=True)
    (pictures / "train" / name / f"{name}.png").write_bytes(b"no picture")
    run = folder / f"run {name}"
    run.mkdir()
    (run / "recipe.json").write_text(json.dumps({name: name}))
    return toml, broken, blocked, weights, pictures, run


def bad_input(folder: Path, name: str) -> dict[str, list[object]]:
    """Return command lines that are refused, and make the files that they name."""
    toml, broken, blocked, weights, pictures, run = write_files(folder, name)
    out = ["--out", folder / "out"]
    return {
        "unknown command": [name],
        "unknown option": ["train", f"--{name}"],
        "value of an option": ["train", "digits", "--epochs", name],
        "choice": ["list", name],
        "data": ["train", name, *out],
        "data folder": ["train", pictures, *out],
        "pictures": ["train", pictures, "--dry-run", "--model", "resnet8"],
        "model": ["train", "digits", "--model", name, *out],
        "recipe": ["train", "digits", "--recipe", name, *out],
        "recipe file": ["train", "digits", "--recipe", toml, *out],
        "key": ["train", "digits", "--set", f"{name}=1", *out],
        "value": ["train", "digits", "--set", f"optimizer.lr={name}", *out],
        "no equals sign": ["train", "digits", "--set", name, *out],
        "init": ["train", "digits", "--init", name, *out],
        "init file": ["train", "digits", "--init", weights, *out],
        "device": ["train", "digits", "--device", name, *out],
        "data dir": ["train", "cifar10", "--data-dir", folder / name, *out],
        "out": ["train", "digits", "--out", blocked / "run"],
        "resume": ["train", "--resume", "--out", folder / f"none {name}"],
        "resume run": ["train", "--resume", "--out", run],
        "download": ["download", name],
        "download to": ["download", "cifar10", "--data-dir", blocked / "data"],
        "inspect": ["inspect", name],
        "inspect file": ["inspect", weights],
        "inspect other file": ["inspect", broken],
        "inspect override": ["inspect", "resnet20", "--set", f"model.{name}={name}"],
        "evaluate": ["evaluate", folder / f"none {name}"],
        "evaluate file": ["evaluate", weights, name],
        "evaluate images": ["evaluate", run, "--images", name],
        "study file": ["study", toml],
        "no study file": ["study", folder / f"none {name}.toml"],
        "study models": ["study", "--models", name, "--data", "digits", *out],
        "study data": ["study", "--models", "resnet8", "--data", name, *out],
        "engine": ["study", "--models", "resnet8", "--data", "digits", "--engine", name, *out],
        "report": ["report", folder / f"none {name}"],
        "report run": ["report", run],
        "analyze": ["analyze", run, "responses"],
        "analysis": ["analyze", run, name],
        "export": ["export", weights, "--to", "torchvision", "--out", folder / "w.pth"],
        "dialect": ["export", weights, "--to", name, "--out", folder / "w.pth"],
        "existing": ["export", weights, "--to", "torchvision", "--out", weights],
        "diagnose": ["diagnose", name, "digits"],
        "diagnose file": ["diagnose", folder / f"{name}.py:build", name],
        "exhibit": ["paper", name],
        "paper results": ["paper", "list", "--results", folder / f"none {name}"],
        "claims": ["paper", "claims", "--data", name, *out],
        "bench": ["bench", "diagnose", "--only", name],
    }


@pytest.mark.parametrize("kind", ["controls", "no UTF-8"])
def test_messages_about_hostile_names_are_one_safe_line(
    kind: str, tmp_path: Path, reslearn: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    wrong = {}
    for what, arguments in bad_input(tmp_path, NAMES[kind]).items():
        status, output, errors = reslearn(*arguments)
        is_line = errors.startswith("reslearn: ") and errors.count("\n") == 1
        if (status, output) != (2, "") or not is_line or unsafe(errors):
            wrong[what] = (status, output, errors)
    assert not wrong, "\n".join(f"{what}: {result}" for what, result in wrong.items())


def test_results_of_a_run_with_a_hostile_name_are_safe(tmp_path: Path, reslearn: Run) -> None:
    # Names that are no UTF-8 are missing: the safetensors library opens no file of such a name.
    study = tmp_path / CONTROLS
    run = study / f"run {CONTROLS}"
    start = ["train", "digits", "--model", "resnet8", "--epochs", "0.8"]
    commands: list[list[object]] = [
        [*start, "--set", "data.train_images=300", "--out", run],
        ["evaluate", run],
        ["evaluate", run, "--json"],
        ["report", run],
        ["report", study],
        ["analyze", run, "responses"],
        ["analyze", run, "gradients", "--json"],
        ["train", "--resume", "--out", run],
        ["train", "--resume", "--out", run, "--json"],
        ["inspect", run / "model.safetensors"],
        ["inspect", run / "model.safetensors", "--json"],
        ["export", run, "--to", "reslearn", "--out", study / "w.safetensors"],
        [*start, "--dry-run", "--out", study / "new"],
        ["list", "data", "--data-dir", study],
    ]
    for arguments in commands:
        status, output, errors = reslearn(*arguments)
        assert status == 0, (arguments[0], errors)
        assert output
        assert unsafe(output + errors) == [], arguments[0]
        if "--json" in arguments:
            json.loads(output)
            assert output.isascii()


def test_ordinary_letters_stay(tmp_path: Path, reslearn: Run) -> None:
    _, _, errors = reslearn("report", tmp_path / NAMES["letters"])
    assert NAMES["letters"] in errors
    _, _, errors = reslearn("report", tmp_path / "a\x1b[31m\u202e")
    assert r"a\x1b[31m\u202e" in errors


def test_bars_in_a_terminal_show_hostile_names(
    tmp_path: Path, make_pictures: Callable[..., Path]
) -> None:
    """Train on a folder whose name sets the title of the window, in a real terminal."""
    title = "\x1b]0;stolen\x07"
    pictures = make_pictures(tmp_path / f"photos{title}", train=9, test=3)
    output = in_terminal(
        *("train", pictures, "--recipe", "digits", "--model", "resnet8", "--epochs", "2"),
        *("--set", "data.size_px=16", "-b", "9", "--out", tmp_path / f"run{title}"),
    )
    assert "━" in output, output  # a bar was drawn
    assert title not in output and "\x1b]0;" not in output
    assert r"photos\x1b]0;stolen\x07" in output
    assert r"run\x1b]0;stolen\x07" in output


def in_terminal(*arguments: object) -> str:
    """Run the command line in a pseudo-terminal, and return what it wrote there."""
    main_end, terminal = pty.openpty()
    environment = {**os.environ, "COLUMNS": "200", "TERM": "xterm"}
    environment.pop("RESLEARN_PROGRESS", None)
    streams = dict.fromkeys((0, 1, 2), os.ttyname(terminal))
    process = start_command(*arguments, streams=streams, environment=environment)
    parts = []
    while (is_readable := select.select([main_end], [], [], 0.1)[0]) or process.is_alive():
        if is_readable:
            parts.append(os.read(main_end, 65_536))
    os.close(main_end)
    os.close(terminal)
    output = b"".join(parts).decode()
    process.join()
    assert process.exitcode == 0, output
    return output
