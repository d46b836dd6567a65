"""The learning-rate figure shows the rate of every step, however few readings there are."""

from collections.abc import Callable
from pathlib import Path

import numpy
import pytest
from killing import Killed, until_killed

from reslearn.recipes import Recipe
from reslearn.report import Figure, run_page
from reslearn.runs import RunFolder
from reslearn.train import Machine, loop, run, train_recipe
from reslearn.train.learning_rate import LearningRate

Small = Callable[..., Recipe]

SCHEDULES = {
    "step": (
        "schedule.kind=step",
        'schedule.milestones=["4 steps", "5 steps", "10 steps"]',
        "schedule.factor=0.1",
    ),
    "warm-up by error": ("schedule.warm_up_lr=0.01", "schedule.warm_up_error_pct=89"),
    "warm-up by length, then cosine": (
        "schedule.kind=cosine",
        "schedule.rise=0.3",
        "schedule.warm_up_lr=0.004",
        "schedule.warm_up_duration=2 steps",
    ),
    "triangular": ("schedule.kind=triangular", "schedule.rise=0.3"),
    "plateau": (
        "schedule.kind=plateau",
        "schedule.patience=1",
        "schedule.improvement_pct=90",
        "data.validation_images=60",
    ),
}


@pytest.fixture
def used_rates(monkeypatch: pytest.MonkeyPatch) -> dict[int, float]:
    """Return the learning rates of the runs of a test by their steps, from 1."""
    rates: dict[int, float] = {}
    apply = LearningRate.apply

    def spy(self: LearningRate, optimizer, step: int) -> None:  # type: ignore[no-untyped-def]
        apply(self, optimizer, step)
        rates[step + 1] = optimizer.param_groups[0]["lr"]

    monkeypatch.setattr(LearningRate, "apply", spy)
    return rates


def drawn(folder: Path) -> tuple[list[float], list[float]]:
    """Return steps and rates of the figure in the report."""
    (section,) = [part for part in run_page(folder).sections if part.title == "Learning rate"]
    (figure,) = section.items
    assert isinstance(figure, Figure)
    (series,) = figure.series
    return list(series.x), [rate for rate in series.y if rate is not None]


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_figure_shows_the_rate_of_every_step(
    schedule: str, small: Small, tmp_path: Path, used_rates: dict[int, float]
) -> None:
    recipe = small(*SCHEDULES[schedule], "train.read_every_steps=4")
    train_recipe(recipe, tmp_path, Machine(threads=1))
    steps, rates = drawn(tmp_path)
    assert len(used_rates) == 11
    assert len(set(used_rates.values())) > 1
    assert numpy.interp([*used_rates], steps, rates) == pytest.approx([*used_rates.values()])


def test_a_change_before_the_only_reading(small: Small, tmp_path: Path) -> None:
    recipe = small(
        "schedule.kind=step",
        'schedule.milestones=["48 steps"]',
        "schedule.duration=50 steps",
        "optimizer.lr=0.1",
        "data.train_images=20",
        "train.batch_size=4",
        "train.read_every_steps=50",
        "model.name=plain8",
        "evaluation.recompute_images=0",
    )
    train_recipe(recipe, tmp_path, Machine(threads=1))
    assert [line["step"] for line in RunFolder(tmp_path).metrics("train")] == [50]
    lines = [
        (line["step"], line["lr"], line.get("previous_lr"))
        for line in RunFolder(tmp_path).metrics("lr")
    ]
    assert lines == [(1, 0.1, None), (49, pytest.approx(0.01), 0.1)]
    assert drawn(tmp_path) == ([1, 48, 49, 50], pytest.approx([0.1, 0.1, 0.01, 0.01]))


def test_a_run_that_an_earlier_version_began(
    small: Small, tmp_path: Path, used_rates: dict[int, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such a run has no lines of kind "lr" before the checkpoint."""
    recipe = small(*SCHEDULES["step"])
    with monkeypatch.context() as earlier:
        earlier.setattr("reslearn.train.logging.RunLog.step", lambda *_, **__: None)
        earlier.setattr(run, "train", until_killed(7))
        with pytest.raises(Killed):
            train_recipe(recipe, tmp_path, Machine(threads=1))
    assert run.train is loop.train
    train_recipe(recipe, tmp_path, Machine(threads=1), resume=True)
    steps, rates = drawn(tmp_path)
    # Readings after steps 3, 6, 9 and 11; the changes at steps 5 and 6 are known only roughly.
    assert steps == [3, 6, 10, 11]
    assert rates == [used_rates[step] for step in steps]
