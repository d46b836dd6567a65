"""Steps to a threshold: runs that never arrive are censored, never dropped."""

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
def test_with_one_budget_for_all_the_restricted_mean_is_the_mean_of_what_was_spent(
    needed: list[int],
) -> None:
    budget = 100
    spent = [Steps(min(steps, budget), steps < budget) for steps in needed]
    assert restricted_mean(spent, budget) == pytest.approx(
        sum(run.steps for run in spent) / len(spent)
    )


def test_kaplan_meier_by_hand() -> None:
    # One of three leaves unseen at 5: the event at 10 then halves what is left of the curve (2/3 -> 1/3 would ignore it).
    assert restricted_mean([Steps(2, True), Steps(5, False), Steps(10, True)], 12) == pytest.approx(
        2 + 8 * 2 / 3
    )


def test_clear_separation_is_found_and_three_seeds_claim_no_more_than_they_can() -> None:
    fast = [Steps(100, True), Steps(110, True), Steps(120, True)]
    slow = [Steps(400, False), Steps(400, False), Steps(300, True)]
    found = compare_steps(fast, slow)
    assert found.difference < 0
    assert (found.num_reached_a, found.num_reached_b, found.n_a, found.n_b) == (3, 1, 3, 3)
    assert found.p is not None
    assert found.p < 0.05
    assert found.p_exact == pytest.approx(2 / 20)
    five = compare_steps([Steps(100 + i, True) for i in range(5)], [Steps(400, False)] * 5)
    assert five.p_exact == pytest.approx(2 / 252)


def test_censored_runs_are_not_missing() -> None:
    slow = [Steps(120, True), Steps(400, False), Steps(400, False)]
    fast = [Steps(110, True), Steps(115, True), Steps(130, True)]
    assert compare_steps(fast, slow).difference < compare_steps(fast, slow[:1]).difference


def test_nobody_arriving_is_no_test() -> None:
    found = compare_steps([Steps(100, False)] * 3, [Steps(100, False)] * 3)
    assert found.p is None
    assert found.p_exact is None
    assert found.difference == 0


@settings(max_examples=30)
@given(runs, runs)
def test_any_pair_of_groups_has_an_answer_that_swaps(a: list[Steps], b: list[Steps]) -> None:
    forth, back = compare_steps(a, b), compare_steps(b, a)
    assert forth.difference == pytest.approx(-back.difference)
    assert forth.p == (None if back.p is None else pytest.approx(back.p))
    if forth.p_exact is not None:
        assert 0 < forth.p_exact <= 1


@settings(max_examples=30)
@given(runs, runs)
def test_one_stratum_is_the_plain_log_rank_test(a: list[Steps], b: list[Steps]) -> None:
    def censored(group: list[Steps]) -> scipy.stats.CensoredData:
        split = [[run.steps for run in group if run.reached is which] for which in (True, False)]
        return scipy.stats.CensoredData(uncensored=split[0], right=split[1])

    if not any(run.reached for run in (*a, *b)):
        assert compare_steps(a, b).p is None
        return
    with np.errstate(invalid="ignore", divide="ignore"):
        known = float(scipy.stats.logrank(censored(a), censored(b)).pvalue)
    assert compare_steps(a, b).p == pytest.approx(known if math.isfinite(known) else 1.0, abs=1e-9)


def test_runs_are_compared_within_their_stratum() -> None:
    # Deep nets are slow and shallow ones fast in either group: pooled, that spread hides that a is always a little sooner.
    a = [Steps(base + i, True) for base in (100, 1000, 5000) for i in range(4)]
    b = [Steps(base + 10 + i, True) for base in (100, 1000, 5000) for i in range(4)]
    depths = [depth for depth in (8, 20, 56) for _ in range(4)]
    pooled, stratified = compare_steps(a, b).p, compare_steps(a, b, strata=(depths, depths)).p
    assert pooled is not None and stratified is not None
    assert stratified < 0.001 < 0.05 < pooled
    few = compare_steps(a[::2], b[::2], strata=(depths[::2], depths[::2]))
    assert few.p_exact == pytest.approx(2 / 6**3)


def test_misuse_is_one_line() -> None:
    with pytest.raises(ValueError, match=r"^no runs in group b"):
        compare_steps([Steps(1, True)], [])
    with pytest.raises(ValueError, match=r"^steps = nan in group a"):
        compare_steps([Steps(math.nan, True)], [Steps(1, True)])
