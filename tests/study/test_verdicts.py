"""The degradation rule: its three answers, multiplicity and diverged runs."""

import math
import random
from statistics import stdev

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reslearn.study import compare, degradation_verdict, runs_needed


def rows(errors: dict[int, list[float]]) -> list[tuple[int, int, float]]:
    return [
        (depth, seed, error)
        for depth, by_seed in errors.items()
        for seed, error in enumerate(by_seed)
    ]


def test_a_series_that_degrades_is_yes() -> None:
    verdict = degradation_verdict(
        rows({56: [80.0, 79.0, 82.0], 20: [9.0, 9.5, 8.6], 8: [15.0, 16.0, 15.5]}), margin_pct=1
    )
    assert (verdict.answer, verdict.deepest, verdict.reference_depth) == ("yes", 56, 20)
    assert verdict.difference_pct == pytest.approx(71.3, abs=0.01)
    assert [depth for depth, _ in verdict.depths] == [8, 20, 56]
    assert len(verdict.rows) == 9
    assert "56 against 20" in verdict.reason


def test_a_series_that_improves_is_no() -> None:
    verdict = degradation_verdict(rows({56: [0.1, 0.12, 0.09], 20: [1.3, 1.2, 1.4]}), margin_pct=1)
    assert verdict.answer == "no"
    assert verdict.highest_pct is not None
    assert verdict.highest_pct < 1


def test_a_clear_increase_below_the_margin_is_no() -> None:
    assert (
        degradation_verdict(rows({56: [1.5, 1.6, 1.7], 20: [1.3, 1.4, 1.5]}), margin_pct=1).answer
        == "no"
    )


def test_noise_is_undecided() -> None:
    verdict = degradation_verdict(rows({56: [5.0, 30.0, 8.0], 20: [9.0, 9.5, 8.6]}), margin_pct=1)
    needed = runs_needed(1, stdev([-4.0, 20.5, -0.6]), paired=True)
    assert verdict.answer == "undecided"
    assert f"to distinguish 1 point from 0 takes {needed} seeds per depth" in verdict.reason


@pytest.mark.parametrize(
    "errors",
    [{20: [1.0, 2.0]}, {20: [1.0], 56: [50.0]}, {20: [math.nan, 1.0], 56: [50.0, math.nan]}],
)
def test_too_few_runs_are_undecided(errors: dict[int, list[float]]) -> None:
    verdict = degradation_verdict(rows(errors), margin_pct=1)
    assert verdict.answer == "undecided"
    assert verdict.reason.startswith(("only depth", "fewer than two seeds"))


def test_seeds_that_are_not_shared_do_not_count() -> None:
    verdict = degradation_verdict(
        [(20, 0, 1.0), (20, 1, 1.0), (56, 2, 50.0), (56, 3, 51.0)], margin_pct=1
    )
    assert verdict.answer == "undecided"
    assert verdict.reference_depth is None


def test_more_depths_make_the_interval_wider() -> None:
    deep, shallow = [14.0, 12.0, 13.5], [10.0, 10.0, 10.0]
    single = degradation_verdict(rows({56: deep, 20: shallow}), margin_pct=0.5)
    plain = compare(deep, shallow, paired=True)
    assert single.answer == "yes"
    assert single.interval_low_pct == plain.interval_low
    many = degradation_verdict(
        rows({56: deep, 20: shallow} | {depth: [11.0, 11.0, 11.0] for depth in (8, 14, 26, 32)}),
        margin_pct=0.5,
    )
    assert many.reference_depth == 20
    assert many.interval_low_pct is not None
    assert single.interval_low_pct is not None
    assert many.interval_low_pct < single.interval_low_pct
    assert many.answer == "undecided"


def test_no_needs_every_shallower_depth() -> None:
    fine = {56: [2.0, 2.1, 2.2], 20: [2.0, 2.2, 2.1]}
    assert degradation_verdict(rows(fine), margin_pct=1).answer == "no"
    assert (
        degradation_verdict(rows(fine | {32: [3.0, 9.0, 1.0]}), margin_pct=1).answer == "undecided"
    )


def test_a_diverged_run_never_helps_the_answer_that_its_absence_favors() -> None:
    degrades = {56: [50.0, 51.0, 52.0, 53.0], 20: [9.0, 9.1, 9.2, 9.3]}
    assert (
        degradation_verdict(
            rows(degrades | {56: [50.0, 51.0, 52.0, math.nan]}), margin_pct=1
        ).answer
        == "yes"
    )
    assert (
        degradation_verdict(rows(degrades | {20: [9.0, 9.1, 9.2, math.inf]}), margin_pct=1).answer
        == "undecided"
    )
    flat = {56: [9.0, 9.1, 9.2, 9.3], 20: [9.1, 9.0, 9.3, 9.2]}
    assert degradation_verdict(rows(flat), margin_pct=1).answer == "no"
    assert (
        degradation_verdict(rows(flat | {20: [9.1, 9.0, 9.3, math.nan]}), margin_pct=1).answer
        == "no"
    )
    verdict = degradation_verdict(rows(flat | {56: [9.0, 9.1, 9.2, math.nan]}), margin_pct=1)
    assert (verdict.answer, verdict.num_diverged) == ("undecided", 1)
    assert "diverged" in verdict.reason


def test_false_alarms_stay_below_five_in_a_hundred() -> None:
    draw = random.Random(0)
    alarms = 0
    for _ in range(300):
        same = {depth: [draw.gauss(30, 3) for _ in range(4)] for depth in (8, 14, 20, 32, 56)}
        alarms += degradation_verdict(rows(same), margin_pct=0).answer == "yes"
    assert alarms <= 300 * 0.05


@given(
    st.dictionaries(
        st.integers(1, 5),
        st.lists(st.one_of(st.floats(0, 100), st.just(math.nan)), min_size=1, max_size=4),
        min_size=1,
    )
)
def test_any_rows_get_one_of_three_answers_and_a_reason(errors: dict[int, list[float]]) -> None:
    verdict = degradation_verdict(rows(errors), margin_pct=1)
    assert verdict.answer in ("yes", "no", "undecided")
    assert verdict.reason
    assert "\n" not in verdict.reason
    if verdict.answer == "yes":
        assert verdict.difference_pct is not None
        assert verdict.difference_pct > 1
    if verdict.answer == "no":
        assert verdict.highest_pct is not None
        assert verdict.highest_pct < 1


def test_errors_are_one_line() -> None:
    with pytest.raises(ValueError, match=r"^no rows"):
        degradation_verdict([], margin_pct=1)
    with pytest.raises(ValueError, match=r"is given twice"):
        degradation_verdict([(20, 0, 1.0), (20, 0, 2.0)], margin_pct=1)
    with pytest.raises(ValueError, match=r"^error 101.0 at depth 20, seed 0: 0 to 100"):
        degradation_verdict([(20, 0, 101.0)], margin_pct=1)
    with pytest.raises(ValueError, match=r"^margin_pct = -1"):
        degradation_verdict([(20, 0, 1.0)], margin_pct=-1)
