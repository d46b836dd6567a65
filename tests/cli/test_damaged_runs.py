"""Commands refuse an edited run in one line with file, key and value, and exit with status 2."""

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from reslearn.cli import commands
from reslearn.runs import RunFolder
from reslearn.study import study_from
from reslearn.train import Machine, train_recipe

SWITCHES = (
    "schedule.kind=constant",
    "schedule.duration=4 steps",
    "data.train_images=40",
    "train.batch_size=10",
    "train.read_every_steps=1",
)
Edit = Callable[[Any], Any]


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Train a study of one run."""
    folder = tmp_path_factory.mktemp("study")
    (job,) = study_from(
        {"models": ["resnet8"], "recipe": "digits", "set": SWITCHES}, source="here"
    ).jobs(folder)
    train_recipe(job.recipe, job.folder, Machine(threads=1))
    return folder


def set_value(*path: str, value: Any) -> Edit:
    def edit(content: Any) -> Any:
        *tables, last = path
        inner = content
        for name in tables:
            inner = inner[name]
        inner[last] = value
        return content

    return edit


EDITS = {
    "model": ("recipe.json", set_value("model", value=3), "model = 3: a table of keys is needed"),
    "seed": ("recipe.json", set_value("seed", value="0"), 'seed = "0": a whole number is needed'),
    "list": ("environment.json", lambda content: [], "a JSON object is expected"),
    "precision": (
        "environment.json",
        set_value("numerics", "precision", value=16),
        "numerics.precision = 16: input should be 'fp32' or 'bf16'",
    ),
    "threads": (
        "environment.json",
        set_value("numerics", "threads", value="1"),
        'numerics.threads = "1": a whole number is needed',
    ),
    "text": (
        "result.json",
        set_value("test_top1_error_pct", value="8.4"),
        'test_top1_error_pct = "8.4": a number is needed',
    ),
    "steps": (
        "result.json",
        set_value("steps", value=4.5),
        "steps = 4.5: a whole number is needed",
    ),
    "line": ("metrics.jsonl", lambda content: [content], "line 1: a JSON object is expected"),
    "key": (
        "metrics.jsonl",
        lambda content: {"kind": "train"},
        "line 1: step is missing; epoch is missing",
    ),
}
REPORT, EVALUATE, ANALYZE, RESUME = (
    ("report",),
    ("evaluate",),
    ("analyze", "responses"),
    ("train", "--resume", "--out"),
)
READS = [
    *((REPORT, edit) for edit in EDITS),
    *((EVALUATE, edit) for edit in ("model", "list", "precision")),
    *((ANALYZE, edit) for edit in ("model", "list")),
    *((RESUME, edit) for edit in ("model", "seed", "text")),
]


@pytest.fixture
def run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str]]:
    def run_in_process(*arguments: str) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["reslearn", *arguments])
        # `main` sets this; set through monkeypatch, it is restored after the test.
        monkeypatch.setattr("warnings.showwarning", None)
        with pytest.raises(SystemExit) as caught:
            commands.main()
        return int(caught.value.code or 0), capsys.readouterr().err

    return run_in_process


def copy_edited(study: Path, copy: Path, name: str) -> Path:
    """Copy the study, edit its run, and return the folder of the run."""
    file, edit, _ = EDITS[name]
    shutil.copytree(study, copy)
    (path,) = copy.glob(f"*/{file}")
    first, *following = (
        path.read_text().splitlines() if file == "metrics.jsonl" else [path.read_text()]
    )
    path.write_text("\n".join([json.dumps(edit(json.loads(first))), *following]) + "\n")
    return path.parent


@pytest.mark.parametrize(
    ("command", "name"),
    READS,
    ids=lambda value: "-".join(value[:1]) if isinstance(value, tuple) else value,
)
def test_an_edited_run_is_one_line_and_status_2(
    study: Path,
    tmp_path: Path,
    run: Callable[..., tuple[int, str]],
    command: tuple[str, ...],
    name: str,
) -> None:
    folder = copy_edited(study, tmp_path / "copy", name)
    name_of_command, *options = command
    arguments = [*command, str(folder)]
    if name_of_command == "analyze":
        arguments = [name_of_command, str(folder), *options]
    status, errors = run(*arguments)
    file, _, message = EDITS[name]
    assert (status, errors.count("\n")) == (2, 1), errors
    assert errors.startswith(f"reslearn: {folder / file}")
    assert message in errors


@pytest.mark.parametrize("name", ["model", "list", "text", "line"])
def test_a_study_with_an_edited_run_is_one_line(
    study: Path, tmp_path: Path, run: Callable[..., tuple[int, str]], name: str
) -> None:
    folder = copy_edited(study, tmp_path / "copy", name)
    switches = [part for switch in SWITCHES for part in ("--set", switch)]
    status, errors = run(
        "study",
        "--models",
        "resnet8",
        "--seeds",
        "1",
        "--recipe",
        "digits",
        *switches,
        "--out",
        str(tmp_path / "copy"),
    )
    file, _, message = EDITS[name]
    assert (status, errors.count("\n")) == (2, 1), errors
    assert str(folder / file) in errors
    assert message in errors


def test_an_edited_line_is_refused_before_training_resumes(
    study: Path, tmp_path: Path, run: Callable[..., tuple[int, str]]
) -> None:
    folder = copy_edited(study, tmp_path / "copy", "key")
    (folder / "result.json").unlink()
    lines = folder / "metrics.jsonl"
    lines.write_text(lines.read_text() + " " * 1000 + "\n")
    status, errors = run("train", "--resume", "--out", str(folder))
    assert (status, errors.count("\n")) == (2, 1), errors
    assert "metrics.jsonl is shorter than at the last checkpoint, or was changed since" in errors
    assert not RunFolder(folder).is_complete
