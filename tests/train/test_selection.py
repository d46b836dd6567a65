"""Early stop and the best validation epoch: their rules, and that kills do not change them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from killing import Killed, until_killed
from torch import nn

from reslearn.recipes import Recipe
from reslearn.runs import RunFolder
from reslearn.train import Machine, run, train_recipe
from reslearn.train.selection import Selection

Small = Callable[..., Recipe]
Outcome = Callable[[Path], dict[str, Any]]
SELECTING = (
    "schedule.duration=14 steps",
    "optimizer.lr=0.5",
    "data.validation_images=60",
    "evaluation.every=1 steps",
    "evaluation.recompute_images=0",
)


def test_the_first_of_equal_errors_is_the_best_and_patience_counts_the_others() -> None:
    selection, network = Selection(patience=2, keeps_weights=True), nn.Linear(1, 1)
    last_steps = []
    for step, error in enumerate((50, 40, 40, 30, 35, 30, 20), 1):
        nn.init.constant_(network.weight, error)
        selection.observe(network, error, step=step)
        last_steps.append(selection.last_step)
    assert last_steps == [None, None, None, None, None, 7, 7]
    assert (selection.best_step, selection.best_error_pct) == (7, 20)
    nn.init.constant_(network.weight, 99)
    selection.restore_best(network)
    assert network.weight.item() == 20


def test_the_best_network_is_saved_and_tested(
    small: Small, outcome: Outcome, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = small(*SELECTING, "evaluation.best=true", "evaluation.early_stop=3")
    result = train_recipe(recipe, tmp_path / "unbroken", Machine(threads=1))
    folder = RunFolder.open(tmp_path / "unbroken")
    errors = [line["top1_error_pct"] for line in folder.metrics("validation")]
    lowest = min(errors)
    assert result["validation_top1_error_pct"] == lowest
    assert result["best_step"] == 1 + errors.index(lowest)
    assert lowest < errors[-2], "this test needs a run whose last network is not its best"
    assert result["stopped_early"] is True
    assert result["steps"] == result["best_step"] + 4  # three worse ones and the closing step

    monkeypatch.setattr(run, "train", until_killed(result["best_step"] + 2))
    with pytest.raises(Killed):
        train_recipe(recipe, tmp_path / "killed", Machine(threads=1))
    monkeypatch.undo()
    train_recipe(recipe, tmp_path / "killed", Machine(threads=1), resume=True)
    assert outcome(tmp_path / "killed") == outcome(tmp_path / "unbroken")


def test_they_need_validation_images(small: Small, tmp_path: Path) -> None:
    for key in ("evaluation.best=true", "evaluation.early_stop=3"):
        with pytest.raises(ValueError, match=r"set data\.validation_images"):
            train_recipe(small(key), tmp_path / "run", Machine(threads=1))
    assert not (tmp_path / "run").exists()


def test_an_average_of_the_weights_is_what_is_kept() -> None:
    network = nn.BatchNorm1d(2)
    selection = Selection(keeps_weights=True)
    network.running_mean = torch.tensor([1.0, 2.0])
    selection.observe(network, 10, step=1)
    network.running_mean.add_(1)
    restored = Selection(keeps_weights=True)
    restored.load_state_dict(selection.state_dict())
    restored.restore_best(network)
    assert network.running_mean.tolist() == [1.0, 2.0]
