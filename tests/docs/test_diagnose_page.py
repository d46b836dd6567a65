"""The examples of docs/diagnose.md are run as they stand; its commands have the options that they use."""

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
from reslearn.diagnose import experiment

TEXT = (Path(__file__).parents[2] / "docs" / "diagnose.md").read_text(encoding="utf-8")
EXAMPLES = dict(
    re.findall(
        r"^## ([^\n]+)\n(?:(?!^## ).)*?^```python\n(.*?)^```$", TEXT, re.DOTALL | re.MULTILINE
    )
)
VERDICTS = {
    "A multilayer perceptron": "degradation",
    "A network for signals": "healthy",
    "A transformer without shortcuts": "degradation",
}


SHORT = {"MAX_SEEDS": {1: 1, 4: 1}, "MIN_STEPS": 4, "MAX_STEPS": 4}


def run(title: str) -> dict[str, Any]:
    values: dict[str, Any] = {}
    exec(compile(EXAMPLES[title], title, "exec"), values)
    return values


@pytest.mark.parametrize("title", VERDICTS)
def test_a_worked_diagnosis_runs(
    title: str, few_trials: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    few_trials(**SHORT)
    monkeypatch.setattr(diagnose, "diagnose", partial(experiment.diagnose, minutes=5, steps=4))
    monkeypatch.setitem(EXAMPLES, title, re.sub(r", minutes=\d+, steps=\d+", "", EXAMPLES[title]))
    found = run(title)["found"]
    assert (
        set(found.evidence.train) >= {"deep", "shallow", "shortcuts"} and not found.conditions.notes
    )


@pytest.mark.slow
@pytest.mark.parametrize("title", VERDICTS)
def test_a_worked_diagnosis_says_what_the_page_says(title: str) -> None:
    assert run(title)["found"].verdict.name == VERDICTS[title]
    assert re.search(rf"^\"{VERDICTS[title]}: ", TEXT.split(f"## {title}\n")[1], re.MULTILINE)


def test_shortcuts_keep_every_parameter_under_its_name() -> None:
    values = run("From Python, without a diagnosis")
    net, operated = values["net"], values["operated"]
    assert len(operated.done) == 2 and not operated.not_done
    assert list(operated.network.state_dict()) == list(net.state_dict())
    x = torch.randn(4, 1, 100)
    assert operated.network(x).shape == net(x).shape


def plain() -> nn.Module:
    layers = [part for _ in range(4) for part in (nn.Linear(6, 6), nn.ReLU())]
    return nn.Sequential(*layers, nn.Linear(6, 3))


def test_a_function_is_repaired_from_python(
    tmp_path: Path, few_trials: Callable[..., None]
) -> None:
    few_trials(**SHORT)
    proof = run("The patch")["repair"](plain, (torch.randn(60, 6), torch.arange(60) % 3), tmp_path)
    assert proof.before.steps == 16
    assert (tmp_path / "shortcuts.patch").exists() == proof.helps


@pytest.mark.parametrize("command", re.findall(r"^\$ reslearn (.+)$", TEXT, flags=re.MULTILINE))
def test_a_command_has_the_options_it_uses(command: str) -> None:
    name, *arguments = shlex.split(command)
    assert typer.main.get_command(app).commands[name].make_context(name, arguments).params  # type: ignore[attr-defined]
