"""The plateau schedule (Sec. 3.4): its rule, and that its decisions survive a killed run."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from killing import Killed, until_killed
from pydantic import TypeAdapter

from reslearn import recipes
from reslearn.recipes import Plateau, Recipe
from reslearn.runs import RunFolder
from reslearn.train import Machine, run, train_recipe
from reslearn.train.learning_rate import LearningRate

Small = Callable[..., Recipe]
Outcome = Callable[[Path], dict[str, Any]]

# The error is evaluated after every second step and rarely falls by 30 %, so the rate drops twice.
PLATEAU = (
    "schedule.kind=plateau",
    "schedule.duration=13 steps",
    "schedule.patience=1",
    "schedule.improvement_pct=30",
    "schedule.max_drops=2",
    "schedule.factor=0.5",
    "data.validation_images=60",
    "evaluation.every=2 steps",
    "train.batch_size=8",
    "evaluation.recompute_images=0",
)


def plateau(**values: Any) -> Plateau:
    schedule = TypeAdapter(recipes.Schedule).validate_python(
        {"kind": "plateau", "duration": "9 steps", **values}
    )
    assert isinstance(schedule, Plateau)
    return schedule


def test_drops_of_a_sequence_of_errors() -> None:
    rate, drops = LearningRate(plateau=plateau(patience=2, improvement_pct=1, max_drops=2)), []
    for error in (60, 50, 49.5, 49.1, 48, 47.5, 47.1, 46, 47, 47, 47, 47, 47):
        rate.observe_validation(error)
        drops.append(rate.num_drops)
    #       better     two worse    better  two worse    better  no third drop
    assert drops == [0, 0, 0, 1, 1, 1, 2, 2, 2, 2, 2, 2, 2]
    assert rate.best_error_pct == 46


def test_factor_of_two_drops() -> None:
    rate = LearningRate(plateau=plateau())
    assert rate.factor(0) == rate.factor(8) == 1
    rate.num_drops = 2
    assert rate.factor(3) == pytest.approx(0.01)


def test_drops_follow_validation_errors_and_survive_kills(
    small: Small, outcome: Outcome, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = small(*PLATEAU, "evaluation.test_curve=true")
    train_recipe(recipe, tmp_path / "unbroken", Machine(threads=1))
    expected = outcome(tmp_path / "unbroken")

    folder = RunFolder.open(tmp_path / "unbroken")
    assert isinstance(recipe.schedule, Plateau)
    rate = LearningRate(plateau=recipe.schedule)
    errors = {line["step"]: line["top1_error_pct"] for line in folder.metrics("validation")}
    rates = {line["step"]: line["lr"] for line in folder.metrics("train")}
    for step in range(1, 14):  # the rate of each step follows from earlier validation errors
        if step in rates:  # every third step
            assert rates[step] == pytest.approx(0.05 * 0.5**rate.num_drops)
        if step in errors and step < 13:
            rate.observe_validation(errors[step])
    assert len(rates) == 4
    assert rate.num_drops == 2
    last = torch.load(folder.checkpoints()[-1], weights_only=True)
    assert last["waiting"] == {
        "best_error_pct": rate.best_error_pct,
        "num_waited": rate.num_waited,
        "num_drops": 2,
    }

    out = tmp_path / "killed"
    for num_steps in (5, 4):
        monkeypatch.setattr(run, "train", until_killed(num_steps))
        with pytest.raises(Killed):
            train_recipe(recipe, out, Machine(threads=1), resume=True)
    monkeypatch.undo()
    train_recipe(recipe, out, Machine(threads=1), resume=True)
    assert outcome(out) == expected
    assert len(RunFolder.open(out).result["resumed_at"]) == 2


def test_test_set_does_not_change_the_rate(small: Small, outcome: Outcome, tmp_path: Path) -> None:
    with_curve, without = (
        small(*PLATEAU, "schedule.duration=11 steps", f"evaluation.test_curve={curve}")
        for curve in ("true", "false")
    )
    train_recipe(with_curve, tmp_path / "with", Machine(threads=1))
    train_recipe(without, tmp_path / "without", Machine(threads=1))
    assert outcome(tmp_path / "with")["last"] == outcome(tmp_path / "without")["last"]


def test_warm_up_ignores_validation_errors(small: Small, tmp_path: Path) -> None:
    recipe = small(
        *PLATEAU,
        "schedule.warm_up_lr=0.001",
        "schedule.warm_up_error_pct=0.1",
        "schedule.duration=9 steps",
    )
    train_recipe(recipe, tmp_path / "run", Machine(threads=1))
    last = torch.load(RunFolder.open(tmp_path / "run").checkpoints()[-1], weights_only=True)
    assert last["waiting"] == {"best_error_pct": float("inf"), "num_waited": 0, "num_drops": 0}


def test_plateau_without_validation_images_is_refused(small: Small, tmp_path: Path) -> None:
    recipe = small(*PLATEAU, "data.validation_images=0")
    message = r"needs validation images, and digits has none: set data\.validation_images"
    with pytest.raises(ValueError, match=message):
        train_recipe(recipe, tmp_path / "run", Machine(threads=1))
    assert not (tmp_path / "run").exists()
