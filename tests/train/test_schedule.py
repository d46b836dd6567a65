"""Learning rates of each schedule, at its corners and in general."""

import math
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from reslearn.recipes import Length, Recipe, Schedule
from reslearn.train import Machine, train_recipe
from reslearn.train.learning_rate import LearningRate, build_learning_rate

Small = Callable[..., Recipe]

totals = st.integers(1, 500)
rises = st.floats(0, 0.99)


def factor_of(kind: str, total: int, **values: Any) -> Callable[[int], float]:
    return rate_of(kind, total, **values).factor


def rate_of(kind: str, total: int, **values: Any) -> LearningRate:
    schedule = TypeAdapter(Schedule).validate_python(
        {"kind": kind, "duration": f"{total} steps", **values}
    )

    def steps_of(length: Length) -> int:
        return length.steps(num_images=1000, batch_size=10)

    return build_learning_rate(schedule, steps_of)


def points_of(kind: str, total: int, **values: Any) -> tuple[list[int], list[float], list[float]]:
    """Return recorded steps, counted from 1, and their factors, and the factors of all steps."""
    rate = rate_of(kind, total, **values)
    factors = [rate.factor(step) for step in range(total)]
    recorded = {0: factors[0], total - 1: factors[-1]}  # the last step always has a reading
    for step in range(1, total):
        is_changed = factors[step] != factors[step - 1]
        if rate.is_recorded(step, is_changed=is_changed, every=math.ceil(total / 40)):
            recorded |= {step - 1: factors[step - 1], step: factors[step]}
    steps = sorted(recorded)
    return steps, [recorded[step] for step in steps], factors


@given(total=totals, rise=st.floats(0, 0.5), floor=st.floats(0, 1))
def test_lines_between_the_recorded_rates_are_the_schedule(
    total: int, rise: float, floor: float
) -> None:
    for kind, values in (
        ("cosine", {"rise": rise}),
        ("triangular", {"rise": rise, "floor": floor}),
    ):
        steps, recorded, factors = points_of(kind, total, **values)
        assert numpy.interp(range(total), steps, recorded) == pytest.approx(factors, abs=2e-3)
        assert len(steps) <= 2 * 80


def test_adjacent_milestones_are_both_recorded() -> None:
    milestones = ["10 steps", "11 steps", "300 steps"]
    steps, recorded, factors = points_of("step", 400, milestones=milestones)
    assert steps == [0, 9, 10, 11, 299, 300, 399]
    assert numpy.interp(range(400), steps, recorded) == pytest.approx(factors, abs=0)


def test_steps_of_the_paper() -> None:
    """Divided by 10 at 32k and 48k iterations (Sec. 4.2)."""
    rate = factor_of("step", 64_000)
    assert [rate(step) for step in (0, 31_999, 32_000, 47_999, 48_000, 63_999)] == pytest.approx(
        [1, 1, 0.1, 0.1, 0.01, 0.01]
    )


def test_milestones_in_epochs() -> None:
    rate = factor_of("step", 500, milestones=["2 epochs"], factor=0.5)
    assert [rate(step) for step in (199, 200)] == [1, 0.5]


def test_milestones_in_two_units_must_rise(small: Small, tmp_path: Path) -> None:
    recipe = small("schedule.kind=step", 'schedule.milestones=["9 steps", "1 epochs"]')
    message = (
        "milestones = 9 steps, 1 epochs: with 150 images in batches of 20 "
        "these are the steps 9, 8, but each milestone must be later"
    )
    with pytest.raises(ValueError, match=message):
        train_recipe(recipe, tmp_path / "run", Machine(threads=1))
    assert not (tmp_path / "run").exists()


def test_milestones_without_effect_are_reported(small: Small, tmp_path: Path) -> None:
    recipe = small("schedule.kind=step", 'schedule.milestones=["5 steps", "11 steps", "8 epochs"]')
    with pytest.warns(
        UserWarning,
        match="milestones: 11 steps, 8 epochs without effect, since training ends after 11 steps",
    ):
        train_recipe(recipe, tmp_path, Machine(threads=1))


@given(total=totals, step=st.integers(0, 499))
def test_constant(total: int, step: int) -> None:
    assert factor_of("constant", total)(step) == 1


@given(total=totals, rise=rises, floor=st.floats(0, 1))
def test_triangular(total: int, rise: float, floor: float) -> None:
    rate = factor_of("triangular", total, rise=rise, floor=floor)
    check_rise_and_fall([rate(step) for step in range(total + 1)], rise * total, end=floor)


@given(total=totals, rise=rises)
def test_cosine(total: int, rise: float) -> None:
    rate = factor_of("cosine", total, rise=rise)
    check_rise_and_fall([rate(step) for step in range(total + 1)], rise * total, end=0.0)
    if rise == 0 and total % 2 == 0:
        assert rate(total // 2) == pytest.approx(0.5)


def check_rise_and_fall(rates: list[float], peak: float, *, end: float) -> None:
    assert all(0 < rate <= 1 for rate in rates[:-1])  # every step has an effect
    assert rates[-1] == pytest.approx(end, abs=1e-9)  # where the next step would be
    assert rates[0] == pytest.approx(min(1.0, 1 / peak) if peak else 1.0)
    for step, (factor, next_factor) in enumerate(pairwise(rates)):
        if step + 1 < peak:
            assert next_factor > factor
        if step >= peak:
            assert next_factor <= factor
