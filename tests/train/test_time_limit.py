"""A run that is too slow ends in its time, and can be resumed and repeated exactly."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from killing import Killed, until_killed

from reslearn.recipes import Recipe, RecipeError, load, recipe_hash
from reslearn.train import Machine, run, train_recipe
from reslearn.train.learning_rate import LearningRate
from reslearn.train.time_limit import TimeLimit

Small = Callable[..., Recipe]
Outcome = Callable[[Path], dict[str, Any]]
COSINE = ("schedule.kind=cosine", "schedule.duration=14 steps", "evaluation.recompute_images=0")


class _Clock:
    """Seconds that pass only when a test says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def steps_in_time(
    seconds_per_step: Callable[[int], float], *, num_steps: int, seconds: float
) -> Any:
    """Train without images. Return the number of steps, of moves of the end, and of seconds."""
    clock = _Clock()
    time_limit = TimeLimit(clock.now + seconds, clock=clock, closing_images=10)
    step, last_step, num_moves = 0, num_steps, 0
    while step < last_step:
        step += 1
        clock.now += seconds_per_step(step)
        if step < last_step and (moved := time_limit.moved_end(step, last_step, num_steps)):
            assert step < moved <= 3 * num_steps
            last_step, num_moves = moved, num_moves + 1
    return step, num_moves, clock.now - 1000


def test_a_run_in_time_is_left_alone() -> None:
    """The end moves if the run would be 2 % too long, or if 10 % more steps fit in."""

    def num_moves(seconds_per_step: float) -> int:
        return int(steps_in_time(lambda _: seconds_per_step, num_steps=900, seconds=100)[1])

    assert [num_moves(seconds) for seconds in (0.1, 0.104)] == [0, 0]
    assert num_moves(0.09) > 0 and num_moves(0.108) > 0


def test_a_machine_that_becomes_slower_ends_in_time_with_most_of_its_steps() -> None:
    steps, num_moves, seconds = steps_in_time(
        lambda step: 0.1 if step < 300 else 0.3, num_steps=900, seconds=100
    )
    closing_seconds = 10 * 0.35 * 0.3  # an evaluated image takes a third of a step
    assert seconds + closing_seconds <= 100
    assert seconds + closing_seconds > 85  # nearly all of the time was used
    assert 450 < steps < 520
    assert num_moves < 40


def test_the_end_moves_back_if_the_machine_becomes_faster_again() -> None:
    steps, _, seconds = steps_in_time(
        lambda step: 1.0 if step < 30 else 0.05, num_steps=900, seconds=100
    )
    assert steps > 900
    assert 85 < seconds < 100


def test_a_machine_that_was_measured_too_slow_uses_its_time_for_more_steps() -> None:
    steps, num_moves, seconds = steps_in_time(lambda _: 0.05, num_steps=900, seconds=100)
    assert 1700 < steps < 2000
    assert 85 < seconds < 100
    assert num_moves < 40


def test_a_plan_that_does_not_need_its_time_is_not_extended() -> None:
    """Above three times the plan, the time was left on purpose."""
    assert steps_in_time(lambda _: 0.029, num_steps=1000, seconds=100)[0] == 1000
    assert steps_in_time(lambda _: 0.032, num_steps=1000, seconds=100)[0] > 2700


def test_a_run_whose_time_is_over_trains_one_more_step() -> None:
    assert steps_in_time(lambda _: 60.0, num_steps=900, seconds=100)[0] == 3


def test_evaluations_count() -> None:
    clock = _Clock()
    time_limit = TimeLimit(clock.now + 100, clock=clock, closing_images=10)
    assert time_limit.moved_end(1, 90, 90) is None
    clock.now += 10
    assert time_limit.moved_end(11, 90, 90) is None  # 79 more seconds
    time_limit.evaluated(10, seconds=20)
    clock.now += 20
    seconds_left = 100 - 30 - 3 - 1.3 * 20  # writing, and the closing evaluation
    assert time_limit.moved_end(12, 90, 90) == 12 + int(0.95 * seconds_left / (10 / 11 + 20 / 11))


def test_a_moved_end_lets_the_rest_of_a_schedule_pass_faster_or_slower() -> None:
    rate = LearningRate(lambda step: 1 - step / 100, num_steps=100)
    rate.move_end(40, 70)
    rate.move_end(55, 60)
    factors = [rate.factor(step) for step in (0, 39, 40, 41, 55, 56, 60)]
    assert factors == pytest.approx([1, 0.61, 0.6, 0.58, 0.3, 0.24, 0])
    assert rate.last_step(100) == 60
    rate.move_end(59, 65)
    assert [rate.factor(step) for step in (59, 62, 65)] == pytest.approx([0.06, 0.03, 0])


def test_a_shortened_run_can_be_repeated_and_resumed(
    small: Small, outcome: Outcome, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class _Slow(TimeLimit):
        def moved_end(self, step: int, last_step: int, planned: int) -> int | None:
            return {4: 8, 7: 9}.get(step)

    monkeypatch.setattr(run, "TimeLimit", _Slow)
    recipe = small(*COSINE)
    result = train_recipe(recipe, tmp_path / "cut", Machine(threads=1), end_at=time.monotonic())
    assert (result["steps"], result["schedule_ends"]) == (9, [[4, 8], [7, 9]])
    expected = outcome(tmp_path / "cut")
    assert expected["lines"][-1]["step"] == 9

    repeated = small(*COSINE, "schedule.ends=[[4, 8], [7, 9]]")
    train_recipe(repeated, tmp_path / "repeated", Machine(threads=1))
    same = outcome(tmp_path / "repeated")
    assert {**same, "recipe": ""} == {**expected, "recipe": ""}

    monkeypatch.setattr(run, "train", until_killed(8))
    with pytest.raises(Killed):
        train_recipe(recipe, tmp_path / "killed", Machine(threads=1), end_at=time.monotonic())
    monkeypatch.undo()
    train_recipe(recipe, tmp_path / "killed", Machine(threads=1), resume=True)
    assert outcome(tmp_path / "killed") == expected


@pytest.mark.parametrize("ends", ["[[9, 4]]", "[[4, 9], [3, 8]]", "[[4, 9], [9, 12]]", "[[4]]"])
def test_impossible_ends_are_refused(ends: str) -> None:
    with pytest.raises(RecipeError, match=r"schedule\.ends"):
        load("digits", overrides=[f"schedule.ends={ends}"])


def test_moved_ends_belong_to_the_name_of_a_run_only_if_there_are_any(small: Small) -> None:
    without = small(*COSINE).to_dict()
    del without["schedule"]["ends"]
    assert recipe_hash(without) == recipe_hash(small(*COSINE).to_dict())
    assert recipe_hash(without) != recipe_hash(small(*COSINE, "schedule.ends=[[1, 2]]").to_dict())
