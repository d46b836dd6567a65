"""Equivalence to a published number, Holm's correction and power agree with independent sources.

The sources are scipy, textbooks and simulations.
"""

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
    result = equivalence_to(values, 8.75, margin=margin)
    below = scipy.stats.ttest_1samp(values, 8.75 - margin, alternative="greater").pvalue
    above = scipy.stats.ttest_1samp(values, 8.75 + margin, alternative="less").pvalue
    assert result.p == pytest.approx(max(below, above), rel=1e-6, abs=1e-9)
    low, high = result.comparison.interval or (math.nan, math.nan)
    assert result.equivalent == (-margin < low and high < margin)


def test_one_run_cannot_show_equivalence() -> None:
    result = equivalence_to([8.75], 8.75, margin=0.5)
    assert not result.equivalent and result.p is None and result.comparison.difference == 0


def test_diverged_runs_are_left_out_of_an_equivalence_and_counted() -> None:
    result = equivalence_to([8.7, math.nan, 8.8], 8.75, margin=0.5)
    assert result.comparison.num_diverged == 1 and result.comparison.difference == pytest.approx(0)


def test_holm_on_a_textbook_example() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])


@settings(max_examples=60)
@given(p_values)
def test_holm_keeps_the_order_and_lies_between_p_and_bonferroni(values: list[float]) -> None:
    corrected = [p for p in holm(values) if p is not None]
    assert all(
        p <= c <= min(1, len(values) * p) + 1e-12 for p, c in zip(values, corrected, strict=True)
    )
    by_p = [c for _, c in sorted(zip(values, corrected, strict=True))]
    assert by_p == sorted(by_p)


def test_a_comparison_without_p_value_counts_in_the_correction() -> None:
    assert holm([0.02, None]) == [0.04, None]


@pytest.mark.parametrize("significance", [0.05, 0.05 / 12])
@pytest.mark.parametrize("paired", [True, False])
def test_power_is_the_share_of_simulated_studies_with_a_significant_difference(
    paired: bool, significance: float
) -> None:
    random, n, difference = np.random.default_rng(0), 5, 0.3
    a = random.normal(difference, 0.2, (4000, n))
    b = np.zeros_like(a) if paired else random.normal(0, 0.2, (4000, n))
    p = (
        scipy.stats.ttest_1samp(a, 0, axis=1).pvalue
        if paired
        else scipy.stats.ttest_ind(a, b, axis=1).pvalue
    )
    assert power_of(
        difference, 0.2, num_runs=n, paired=paired, significance=significance
    ) == pytest.approx(float((p < significance).mean()), abs=0.03)


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
def test_impossible_arguments_of_runs_needed_are_refused(
    difference: float, deviation: float, power: float
) -> None:
    with pytest.raises(ValueError, match="it must be"):
        runs_needed(difference, deviation, power=power)
