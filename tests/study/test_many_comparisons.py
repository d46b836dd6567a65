"""Equivalence to a published number, correction for many comparisons, power: against scipy, textbooks and simulation."""

import math

import numpy as np
import pytest
import scipy.stats
from hypothesis import example, given, settings
from hypothesis import strategies as st

from reslearn.study import equivalence_to, holm, power_of, runs_needed

p_values = st.lists(st.floats(0, 1), min_size=1, max_size=8)


@settings(max_examples=40)
@given(
    st.lists(st.integers(0, 2000).map(lambda n: n / 100), min_size=2, max_size=6).filter(
        lambda v: len(set(v)) > 1
    ),
    st.floats(0.1, 3),
)
def test_equivalence_to_a_number_is_two_one_sided_t_tests(
    values: list[float], margin: float
) -> None:
    found = equivalence_to(values, 8.75, margin=margin)
    below = scipy.stats.ttest_1samp(values, 8.75 - margin, alternative="greater").pvalue
    above = scipy.stats.ttest_1samp(values, 8.75 + margin, alternative="less").pvalue
    assert found.p == pytest.approx(max(below, above), rel=1e-6, abs=1e-9)
    low, high = found.comparison.interval or (math.nan, math.nan)
    assert found.equivalent == (-margin < low and high < margin)


def test_one_run_is_equivalent_to_nothing() -> None:
    found = equivalence_to([8.75], 8.75, margin=0.5)
    assert not found.equivalent and found.p is None and found.comparison.difference == 0


def test_diverged_runs_are_left_out_of_an_equivalence_and_counted() -> None:
    found = equivalence_to([8.7, math.nan, 8.8], 8.75, margin=0.5)
    assert found.comparison.num_diverged == 1 and found.comparison.difference == pytest.approx(0)


def test_holm_on_a_textbook_example() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])


@settings(max_examples=60)
@given(p_values)
def test_holm_keeps_the_order_and_lies_between_p_and_bonferroni(given_: list[float]) -> None:
    corrected = [p for p in holm(given_) if p is not None]
    assert all(
        p <= c <= min(1, len(given_) * p) + 1e-12 for p, c in zip(given_, corrected, strict=True)
    )
    by_p = [c for _, c in sorted(zip(given_, corrected, strict=True))]
    assert by_p == sorted(by_p)


def test_an_untestable_comparison_still_counts_as_one_of_the_many() -> None:
    assert holm([0.02, None]) == [0.04, None]


@pytest.mark.parametrize("significance", [0.05, 0.05 / 12])
@pytest.mark.parametrize("paired", [True, False])
def test_power_is_the_share_of_simulated_studies_that_see_the_difference(
    paired: bool, significance: float
) -> None:
    random, n, difference = np.random.default_rng(0), 5, 0.3
    a = random.normal(difference, 0.2, (4000, n))
    b = np.zeros_like(a) if paired else random.normal(0, 0.2, (4000, n))
    seen = (
        scipy.stats.ttest_1samp(a, 0, axis=1).pvalue
        if paired
        else scipy.stats.ttest_ind(a, b, axis=1).pvalue
    )
    assert power_of(
        difference, 0.2, num_runs=n, paired=paired, significance=significance
    ) == pytest.approx(float((seen < significance).mean()), abs=0.03)


@settings(max_examples=40)
@given(st.floats(0.05, 3), st.floats(0.01, 3), st.booleans())
@example(2.9375, 0.3125, False)  # scipy's nctdtr gives nan for the other tail
def test_the_runs_needed_are_the_fewest_with_that_power(
    difference: float, deviation: float, paired: bool
) -> None:
    needed = runs_needed(difference, deviation, paired=paired)
    if needed is None:
        assert power_of(difference, deviation, num_runs=10_000, paired=paired) < 0.8
        return
    assert power_of(difference, deviation, num_runs=needed, paired=paired) >= 0.8
    assert needed == 2 or power_of(difference, deviation, num_runs=needed - 1, paired=paired) < 0.8


def test_the_textbook_number_of_runs_for_an_effect_of_one_standard_deviation() -> None:
    assert runs_needed(1.0, 1.0) == 17  # Cohen 1988, table 2.4.1


@pytest.mark.parametrize(
    ("difference", "deviation", "power"),
    [(0, 1, 0.8), (1, -1, 0.8), (1, 1, 1.0), (math.nan, 1, 0.8)],
)
def test_what_has_no_answer_is_refused(difference: float, deviation: float, power: float) -> None:
    with pytest.raises(ValueError, match="is needed"):
        runs_needed(difference, deviation, power=power)
