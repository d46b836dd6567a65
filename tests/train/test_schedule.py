"""Learning rates at the corners of each schedule, and what holds everywhere."""

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from reslearn.recipes import Length, Schedule
from reslearn.train.optimizer import build_learning_rate

totals = st.integers(1, 500)
rises = st.floats(0, 0.99)


def made(kind: str, total: int, **values: Any) -> Callable[[int], float]:
    schedule = TypeAdapter(Schedule).validate_python(
        {"kind": kind, "duration": f"{total} steps", **values}
    )

    def steps_of(length: Length) -> int:
        return length.steps(num_images=1000, batch_size=10)

    return build_learning_rate(schedule, steps_of).factor


def test_the_papers_steps() -> None:
    """Divided by 10 at 32k and 48k iterations (Sec. 4.2)."""
    rate = made("step", 64_000)
    assert [rate(step) for step in (0, 31_999, 32_000, 47_999, 48_000, 63_999)] == pytest.approx(
        [1, 1, 0.1, 0.1, 0.01, 0.01]
    )


def test_milestones_in_epochs() -> None:
    rate = made("step", 500, milestones=["2 epochs"], factor=0.5)
    assert [rate(step) for step in (199, 200)] == [1, 0.5]


@given(total=totals, step=st.integers(0, 499))
def test_constant(total: int, step: int) -> None:
    assert made("constant", total)(step) == 1


@given(total=totals, rise=rises, floor=st.floats(0, 1))
def test_triangular(total: int, rise: float, floor: float) -> None:
    rate = made("triangular", total, rise=rise, floor=floor)
    check_rise_and_fall([rate(step) for step in range(total + 1)], rise * total, end=floor)


@given(total=totals, rise=rises)
def test_cosine(total: int, rise: float) -> None:
    rate = made("cosine", total, rise=rise)
    check_rise_and_fall([rate(step) for step in range(total + 1)], rise * total, end=0.0)
    if rise == 0 and total % 2 == 0:
        assert rate(total // 2) == pytest.approx(0.5)


def check_rise_and_fall(rates: list[float], peak: float, *, end: float) -> None:
    assert all(0 < rate <= 1 for rate in rates[:-1])  # no step without effect
    assert rates[-1] == pytest.approx(end, abs=1e-9)  # where the next step would be
    assert rates[0] == pytest.approx(min(1.0, 1 / peak) if peak else 1.0)
    for step, (one, other) in enumerate(pairwise(rates)):
        if step + 1 < peak:
            assert other > one
        if step >= peak:
            assert other <= one
