"""Each rule of a three-way decision, just inside and just outside of each margin."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reslearn.study import Answer, Interval, equivalence_test, margin_test, withhold

TINY = 1e-9
numbers = st.floats(-100, 100)
intervals = st.tuples(numbers, numbers).map(lambda ends: Interval(*sorted(ends)))


@pytest.mark.parametrize(
    ("low", "high", "answer"),
    [
        (1 + TINY, 5, "yes"),
        (1, 5, "undecided"),
        (-5, 1 - TINY, "no"),
        (-5, 1, "undecided"),
        (1, 1, "undecided"),
    ],
)
def test_without_a_mean_the_interval_must_pass_the_margin(
    low: float, high: float, answer: Answer
) -> None:
    assert margin_test(Interval(low, high), 1) == answer


@pytest.mark.parametrize(
    ("low", "mean", "high", "answer"),
    [
        (TINY, 1 + TINY, 5, "yes"),
        (0, 1 + TINY, 5, "undecided"),  # the interval touches 0
        (TINY, 1, 5, "undecided"),  # the mean equals the margin
        (TINY, 0.5, 1 - TINY, "no"),  # a clear effect, but too small to count
        (TINY, 0.5, 1, "undecided"),
        (-5, -3, -1, "no"),
        (-5, 2, 9, "undecided"),
    ],
)
def test_with_a_mean_the_interval_must_pass_0_and_the_mean_the_margin(
    low: float, mean: float, high: float, answer: Answer
) -> None:
    assert margin_test(Interval(low, high), 1, mean=mean) == answer


@pytest.mark.parametrize(
    ("low", "high", "answer"),
    [
        (1 + TINY, 5, "yes"),
        (-5, -TINY, "no"),
        (-5, 0, "undecided"),
        (0.1, 0.9, "undecided"),
    ],
)
def test_yes_and_no_may_have_different_margins(low: float, high: float, answer: Answer) -> None:
    assert margin_test(Interval(low, high), 1, no_margin=0) == answer


def test_a_no_margin_above_the_margin_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^no_margin = 2 is above margin = 1: "):
        margin_test(Interval(0, 1), 1, no_margin=2)


@pytest.mark.parametrize(
    ("low", "high", "answer"),
    [
        (-1 + TINY, 1 - TINY, "yes"),
        (-1, 0, "undecided"),
        (0, 1, "undecided"),
        (1 + TINY, 5, "no"),
        (1, 5, "undecided"),
        (-5, -1 - TINY, "no"),
        (-5, -1, "undecided"),
        (-5, 5, "undecided"),
    ],
)
def test_equivalence_needs_the_interval_between_the_margins(
    low: float, high: float, answer: Answer
) -> None:
    assert equivalence_test(Interval(low, high), 1) == answer


def test_without_an_interval_nothing_is_decided() -> None:
    assert margin_test(None, 1) == "undecided"
    assert margin_test(None, 1, mean=5) == "undecided"
    assert equivalence_test(None, 1) == "undecided"


def test_a_mean_that_is_not_a_number_never_gives_a_yes() -> None:
    assert margin_test(Interval(1, 2), 0, mean=math.nan) == "undecided"


@pytest.mark.parametrize(
    ("answer", "rules_out_yes", "rules_out_no", "expected"),
    [
        ("yes", True, False, "undecided"),
        ("yes", False, True, "yes"),
        ("no", True, False, "no"),
        ("no", False, True, "undecided"),
        ("undecided", True, True, "undecided"),
        ("yes", False, False, "yes"),
        ("no", False, False, "no"),
    ],
)
def test_missing_runs_withhold_only_the_answer_that_they_rule_out(
    answer: Answer, rules_out_yes: bool, rules_out_no: bool, expected: Answer
) -> None:
    assert withhold(answer, rules_out_yes=rules_out_yes, rules_out_no=rules_out_no) == expected


@given(intervals, numbers)
def test_the_negative_effect_has_the_opposite_answer(interval: Interval, margin: float) -> None:
    opposite = {"yes": "no", "no": "yes", "undecided": "undecided"}
    mirrored = margin_test(interval.scaled_by(-1), -margin)
    assert mirrored == opposite[margin_test(interval, margin)]


def test_scaling_by_a_negative_factor_swaps_the_ends() -> None:
    assert Interval(-1, 3).scaled_by(2) == (-2, 6)
    assert Interval(-1, 3).scaled_by(-2) == (-6, 2)
