"""The examples of docs/diagnose.md run unchanged, and its commands have the options they use."""

import re
import shlex
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import typer.main
from torch import nn

from reslearn import diagnose
from reslearn.cli import app
from reslearn.diagnose import diagnosis

TEXT = (Path(__file__).parents[2] / "docs" / "diagnose.md").read_text(encoding="utf-8")
SECTIONS = {
    section.partition("\n")[0]: section for section in re.split(r"^##+ ", TEXT, flags=re.MULTILINE)
}


def example(title: str) -> str:
    """Return the Python code of a section."""
    return "\n".join(
        re.findall(r"^```python\n(.*?)^```$", SECTIONS[title], re.DOTALL | re.MULTILINE)
    )


VERDICTS = {
    "A multilayer perceptron": "degradation",
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


def test_shortcuts_keep_every_parameter_under_its_name() -> None:
    variables = run("Add shortcuts without a diagnosis")
    net, operated = variables["net"], variables["operated"]
    assert len(operated.changed) == 2 and not operated.skipped
    assert list(operated.network.state_dict()) == list(net.state_dict())
    x = torch.randn(4, 1, 100)
    assert operated.network(x).shape == net(x).shape


def plain() -> nn.Module:
    layers: list[nn.Module] = []
    for _ in range(4):
        layers += [nn.Linear(6, 6), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(6, 3))


def test_a_function_is_repaired_from_python(
    tmp_path: Path, few_trials: Callable[..., None]
) -> None:
    few_trials(**SHORT)
    data = (torch.randn(60, 6), torch.arange(60) % 3)
    proof = run("The patch from Python")["repair"](plain, data, tmp_path)
    assert proof.before.steps == 16
    assert (tmp_path / "shortcuts.patch").exists() == proof.helps


def test_faults_are_listed_from_python() -> None:
    data = (torch.randn(60, 6), torch.arange(60) % 3)
    list_faults = run("Screening")["list_faults"]
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
