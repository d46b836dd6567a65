"""The examples of docs/diagnose.md run unchanged, and its commands have the options they use."""

import re
import shlex
import subprocess
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import typer.main
from torch import nn
from typer.testing import CliRunner

from reslearn import diagnose
from reslearn.cli import app
from reslearn.diagnose import (
    diagnosis,
    load_data,
    load_function,
    make_patch,
    make_problem,
    screen,
)

DOCS = Path(__file__).parents[2] / "docs"
TEXT = (DOCS / "diagnose.md").read_text(encoding="utf-8")
SECTIONS = {
    section.partition("\n")[0]: section for section in re.split(r"^##+ ", TEXT, flags=re.MULTILINE)
}


def example(title: str) -> str:
    """Return the Python code of a section."""
    return "\n".join(
        re.findall(r"^```python\n(.*?)^```$", SECTIONS[title], re.DOTALL | re.MULTILINE)
    )


VERDICTS = {
    "Example: a network that is too deep": "degradation",
    "A network for signals": "healthy",
    "A transformer without shortcuts": "degradation",
}
SHORT = {"MAX_SEEDS": {1: 1, 4: 1}, "MIN_STEPS": 4, "MAX_STEPS": 4}


def run(title: str, code: str | None = None) -> dict[str, Any]:
    """Run the code of a section and return its variables."""
    variables: dict[str, Any] = {}
    exec(compile(code or example(title), title, "exec"), variables)
    return variables


@pytest.mark.parametrize("title", VERDICTS)
def test_an_example_runs(
    title: str, few_trials: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    few_trials(**SHORT | {"MAX_SEEDS": {1: 1}})
    monkeypatch.setattr(diagnose, "diagnose", partial(diagnosis.diagnose, minutes=5, steps=4))
    result = run(title, re.sub(r", minutes=\d+, steps=\d+", "", example(title)))["diagnosis"]
    assert set(result.scores.train) >= {"deep", "shallow", "shortcuts"}
    assert not result.variants.notes


@pytest.mark.slow
@pytest.mark.parametrize("title", VERDICTS)
def test_an_example_gives_the_verdict_that_the_page_shows(title: str) -> None:
    assert run(title)["diagnosis"].verdict.name == VERDICTS[title]


@pytest.mark.parametrize("title", VERDICTS)
def test_the_page_shows_a_verdict_below_its_example(title: str) -> None:
    assert re.search(rf"^> {VERDICTS[title]}: ", SECTIONS[title], re.MULTILINE)


QUESTION = "Example: a network with two faults"


def quotations(title: str) -> list[str]:
    """Return the lines of output that a section quotes."""
    parts = re.findall(r"(?:^> .*\n)+", SECTIONS[title], flags=re.MULTILINE)
    return [" ".join(re.sub(r"^> ", "", part, flags=re.MULTILINE).split()) for part in parts]


def test_the_patch_of_the_question_is_the_one_that_the_page_shows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "question.py").write_text(example(QUESTION))
    problem = make_problem(load_function("question.py:build")[0], load_data("digits"), lr=0.005)
    patch = make_patch("question.py:build", problem, repair=("registered", "initialized"))
    (shown,) = re.findall(r"^```diff\n(.*?)^```$", SECTIONS[QUESTION], re.DOTALL | re.MULTILINE)
    # An editor may strip the space of a blank line of context.
    lines = [line.rstrip() for line in patch.text.splitlines()[2:]]
    assert lines == [line.rstrip() for line in shown.splitlines()]
    screening = screen(problem)
    assert screening.findings[0].message == quotations(QUESTION)[0]


@pytest.mark.slow
def test_the_question_gets_the_answer_that_the_page_shows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "question.py").write_text(example(QUESTION))
    (command,) = re.findall(r"^\$ reslearn (.+)$", SECTIONS[QUESTION], flags=re.MULTILINE)
    words = [*shlex.split(command), "--jobs", "1"]
    before = CliRunner().invoke(app, words)
    apply = "git apply diagnosis/question-build/repairs.patch"
    subprocess.run(apply.split(), cwd=tmp_path, check=True)
    (tmp_path / "question.py").rename(tmp_path / "mended.py")  # Python caches the old module
    words[words.index("question.py:build")] = "mended.py:build"
    after = CliRunner().invoke(app, [word for word in words if word != "--patch"])
    *answers, last = quotations(QUESTION)
    for quotation in answers:
        assert quotation in " ".join(before.output.split())
    assert last in after.output


def plain() -> nn.Module:
    layers: list[nn.Module] = []
    for _ in range(4):
        layers += [nn.Linear(6, 6), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(6, 3))


def test_a_function_is_repaired_from_python(
    tmp_path: Path, few_trials: Callable[..., None]
) -> None:
    few_trials(**SHORT)
    inputs = torch.randn(60, 6)
    proof = run("Use from Python")["repair"](plain, (inputs, (inputs[:, 0] > 0).long()), tmp_path)
    assert proof.before.steps == 16 and proof.repairs == ("shortcuts",)
    assert (tmp_path / "shortcuts.patch").exists() == proof.helps


def test_faults_are_listed_from_python() -> None:
    data = (torch.randn(60, 6), torch.arange(60) % 3)
    list_faults = run("Use from Python")["list_faults"]
    ((level, message, _),) = list_faults(
        lambda: nn.Sequential(nn.Linear(6, 3), nn.Softmax(1)), data
    )
    assert level == "proof" and "Remove the softmax" in message
    assert not list_faults(lambda: nn.Linear(6, 3), data)


@pytest.mark.parametrize("command", re.findall(r"^\$ reslearn (.+)$", TEXT, flags=re.MULTILINE))
def test_a_command_has_the_options_it_uses(command: str) -> None:
    name, *arguments = shlex.split(command)
    group = typer.main.get_command(app)
    assert group.commands[name].make_context(name, arguments).params  # type: ignore[attr-defined]
