"""Steps to a threshold: runs that never reach it are censored, never dropped."""

import math

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from reslearn.study import Steps, compare_steps, restricted_mean, steps_to_threshold

runs = st.lists(
    st.builds(Steps, st.integers(1, 100).map(float), st.booleans()), min_size=1, max_size=4
)


def test_the_first_record_at_or_below_the_threshold_counts() -> None:
    records = [{"step": 50, "loss": 2.0}, {"step": 100, "loss": 0.5}, {"step": 150, "loss": 0.7}]
    assert steps_to_threshold(records, threshold=0.5) == Steps(100, True)
    assert steps_to_threshold(records, threshold=0.1) == Steps(150, False)
    assert steps_to_threshold(
        [{"step": 50, "loss": math.nan}, {"step": 60}], threshold=9.0
    ) == Steps(60, False)
    with pytest.raises(ValueError, match=r"^no records"):
        steps_to_threshold([], threshold=1.0)


@given(st.lists(st.integers(1, 200), min_size=1, max_size=8))
def test_with_a_common_budget_the_restricted_mean_is_the_mean_of_spent_steps(
    needed: list[int],
) -> None:
    budget = 100
    spent = [Steps(min(steps, budget), steps < budget) for steps in needed]
    assert restricted_mean(spent, budget) == pytest.approx(
        sum(run.steps for run in spent) / len(spent)
    )


def test_kaplan_meier_by_hand() -> None:
    # One of three runs is censored at 5. The event at 10 then ends the curve, whose height is 2/3.
    assert restricted_mean([Steps(2, True), Steps(5, False), Steps(10, True)], 12) == pytest.approx(
        2 + 8 * 2 / 3
    )


def test_a_clear_separation_is_significant_but_the_exact_p_of_three_seeds_is_limited() -> None:
    fast = [Steps(100, True), Steps(110, True), Steps(120, True)]
    slow = [Steps(400, False), Steps(400, False), Steps(300, True)]
    comparison = compare_steps(fast, slow)
    assert comparison.difference < 0
    assert (comparison.num_reached_a, comparison.num_reached_b, comparison.n_a, comparison.n_b) == (
        3,
        1,
        3,
        3,
    )
    assert comparison.p is not None
    assert comparison.p < 0.05
    assert comparison.p_exact == pytest.approx(2 / 20)
    five = compare_steps([Steps(100 + i, True) for i in range(5)], [Steps(400, False)] * 5)
    assert five.p_exact == pytest.approx(2 / 252)


def test_censored_runs_are_not_missing() -> None:
    slow = [Steps(120, True), Steps(400, False), Steps(400, False)]
    fast = [Steps(110, True), Steps(115, True), Steps(130, True)]
    assert compare_steps(fast, slow).difference < compare_steps(fast, slow[:1]).difference


def test_without_arrivals_there_is_no_p_value() -> None:
    comparison = compare_steps([Steps(100, False)] * 3, [Steps(100, False)] * 3)
    assert comparison.p is None
    assert comparison.p_exact is None
    assert comparison.difference == 0


@settings(max_examples=30)
@given(runs, runs)
def test_swapping_the_groups_swaps_the_sign(a: list[Steps], b: list[Steps]) -> None:
    forward, backward = compare_steps(a, b), compare_steps(b, a)
    assert forward.difference == pytest.approx(-backward.difference)
    assert forward.p == (None if backward.p is None else pytest.approx(backward.p))
    if forward.p_exact is not None:
        assert 0 < forward.p_exact <= 1


@settings(max_examples=30)
@given(runs, runs)
def test_one_stratum_is_the_plain_log_rank_test(a: list[Steps], b: list[Steps]) -> None:
    def censored(group: list[Steps]) -> scipy.stats.CensoredData:
        arrived = [run.steps for run in group if run.reached]
        censored_at = [run.steps for run in group if not run.reached]
        return scipy.stats.CensoredData(uncensored=arrived, right=censored_at)

    if not any(run.reached for run in (*a, *b)):
        assert compare_steps(a, b).p is None
        return
    with np.errstate(invalid="ignore", divide="ignore"):
        expected = float(scipy.stats.logrank(censored(a), censored(b)).pvalue)
    assert compare_steps(a, b).p == pytest.approx(
        expected if math.isfinite(expected) else 1.0, abs=1e-9
    )


def test_runs_are_compared_within_their_stratum() -> None:
    # In both groups, deep networks are slow and shallow networks are fast. Without strata, this
    # spread hides that group a is always slightly faster.
    a = [Steps(base + i, True) for base in (100, 1000, 5000) for i in range(4)]
    b = [Steps(base + 10 + i, True) for base in (100, 1000, 5000) for i in range(4)]
    depths = [depth for depth in (8, 20, 56) for _ in range(4)]
    pooled, stratified = compare_steps(a, b).p, compare_steps(a, b, strata=(depths, depths)).p
    assert pooled is not None and stratified is not None
    assert stratified < 0.001 < 0.05 < pooled
    few = compare_steps(a[::2], b[::2], strata=(depths[::2], depths[::2]))
    assert few.p_exact == pytest.approx(2 / 6**3)


def test_errors_are_one_line() -> None:
    with pytest.raises(ValueError, match=r"^no runs in group b"):
        compare_steps([Steps(1, True)], [])
    with pytest.raises(ValueError, match=r"^steps = nan in group a"):
        compare_steps([Steps(math.nan, True)], [Steps(1, True)])
