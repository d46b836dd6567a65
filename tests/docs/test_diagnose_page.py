"""The examples of docs/diagnose.md are run as they stand; its commands have the options that they use."""

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import torch
import typer.main
from torch import nn

from reslearn.cli import app
from reslearn.diagnose import experiment

TEXT = (Path(__file__).parents[2] / "docs" / "diagnose.md").read_text(encoding="utf-8")
EXAMPLES = dict(re.findall(r"^## ([^\n]+)\n(?:(?!^## ).)*?^```python\n(.*?)^```$", TEXT, re.DOTALL | re.MULTILINE))
INPUTS = {"A multilayer perceptron": (4, 64), "A network for signals": (4, 1, 100), "A transformer without shortcuts": (4, 12, 8)}
BLOCKS = {"A multilayer perceptron": 10, "A network for signals": 2, "A transformer without shortcuts": 4}


@pytest.mark.parametrize("title", INPUTS)
def test_an_example_puts_shortcuts_into_its_network(title: str) -> None:
    values: dict[str, Any] = {}
    torch.manual_seed(0)
    exec(compile(EXAMPLES[title], str(title), "exec"), values)
    net, operated = values["net"], values["operated"]
    assert len(operated.done) == BLOCKS[title] and not operated.not_done
    assert list(operated.network.state_dict()) == list(net.state_dict())
    x = torch.randn(INPUTS[title])
    assert operated.network(x).shape == net(x).shape


def plain() -> nn.Module:
    layers = [part for _ in range(4) for part in (nn.Linear(6, 6), nn.ReLU())]
    return nn.Sequential(*layers, nn.Linear(6, 3))


def test_a_function_is_repaired_from_python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"LR_FACTORS": (1.0,), "FEWEST_SEEDS": 1, "MAX_SEEDS": {1: 1, 4: 1}, "MIN_STEPS": 4, "MAX_STEPS": 4}.items():
        monkeypatch.setattr(experiment, name, value)
    values: dict[str, Any] = {}
    exec(compile(EXAMPLES["The patch"], "The patch", "exec"), values)
    proof = values["repair"](plain, (torch.randn(60, 6), torch.arange(60) % 3), tmp_path)
    assert proof.before.steps == 16
    assert (tmp_path / "shortcuts.patch").exists() == proof.helps


@pytest.mark.parametrize("command", re.findall(r"^\$ reslearn (.+)$", TEXT, flags=re.MULTILINE))
def test_a_command_has_the_options_it_uses(command: str) -> None:
    name, *arguments = shlex.split(command)
    assert typer.main.get_command(app).commands[name].make_context(name, arguments).params  # type: ignore[attr-defined]
