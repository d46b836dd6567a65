"""Statistics agree with scipy, and handle one value, no variance and diverged runs."""

import math
import statistics

import pytest
import scipy.stats
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from reslearn.study import bootstrap, compare, equivalence, proportion, slope, summary

# Multiples of 0.01 %, as errors are. Two values never differ by rounding alone.
errors_pct = st.integers(0, 10_000).map(lambda hundredths: hundredths / 100)
samples = st.lists(errors_pct, min_size=2, max_size=8).filter(lambda values: len(set(values)) > 1)


@settings(max_examples=40)
@given(samples)
def test_summary_equals_the_t_interval_of_scipy(values: list[float]) -> None:
    result = summary(values)
    expected = scipy.stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert result.n == len(values)
    assert result.mean == pytest.approx(statistics.fmean(values))
    assert result.standard_deviation == pytest.approx(statistics.stdev(values))
    assert result.interval == pytest.approx((expected.low, expected.high), rel=1e-8, abs=1e-8)


@settings(max_examples=40)
@given(samples, samples)
def test_compare_equals_the_welch_test_of_scipy(a: list[float], b: list[float]) -> None:
    result = compare(a, b)
    expected = scipy.stats.ttest_ind(a, b, equal_var=False)
    assert result.difference == pytest.approx(statistics.fmean(a) - statistics.fmean(b), abs=1e-9)
    assert result.p == pytest.approx(expected.pvalue, rel=1e-7, abs=1e-12)
    assert result.interval == pytest.approx(
        tuple(expected.confidence_interval(0.95)), rel=1e-7, abs=1e-7
    )


@settings(max_examples=40)
@given(st.lists(st.tuples(errors_pct, errors_pct), min_size=2, max_size=8))
def test_paired_compare_equals_the_paired_t_test_of_scipy(pairs: list[tuple[float, float]]) -> None:
    a, b = [left for left, _ in pairs], [right for _, right in pairs]
    assume(len({round(left - right, 6) for left, right in pairs}) > 1)
    result = compare(a, b, paired=True)
    expected = scipy.stats.ttest_rel(a, b)
    assert result.p == pytest.approx(expected.pvalue, rel=1e-6, abs=1e-9)
    assert result.interval == pytest.approx(
        tuple(expected.confidence_interval(0.95)), rel=1e-6, abs=1e-7
    )


@settings(max_examples=40)
@given(samples, samples)
def test_the_sides_of_a_comparison_can_be_swapped(a: list[float], b: list[float]) -> None:
    forward, backward = compare(a, b), compare(b, a)
    assert forward.difference == -backward.difference
    assert forward.p == pytest.approx(backward.p)


def test_p_and_interval_agree_on_what_is_significant() -> None:
    near, far = compare([1, 2, 3], [2, 3, 4]), compare([1, 2, 3], [8, 9, 10])
    assert near.p is not None
    assert near.p > 0.05
    assert near.interval is not None
    assert near.interval.low < 0 < near.interval.high
    assert far.p is not None
    assert far.p < 0.05
    assert far.interval is not None
    assert far.interval.high < 0


def test_one_value_has_a_mean_and_no_interval() -> None:
    single = summary([8.75])
    assert (single.mean, single.n) == (8.75, 1)
    assert single.standard_deviation is None
    assert single.interval is None
    comparison = compare([8.75], [9.0])
    assert comparison.difference == -0.25
    assert comparison.interval is None
    assert comparison.p is None


@pytest.mark.parametrize("paired", [False, True])
def test_without_variance_the_interval_is_a_point(paired: bool) -> None:
    assert summary([0.1] * 3).interval == (0.1, 0.1)
    same, apart = compare([0.1] * 3, [0.1] * 3, paired), compare([90.0] * 3, [10.0] * 3, paired)
    assert (same.interval, same.p) == ((0.0, 0.0), 1.0)
    assert (apart.interval, apart.p) == ((80.0, 80.0), 0.0)


def test_without_variance_on_one_side_welch_applies() -> None:
    result = compare([90.0, 90.0, 90.0], [10.0, 11.0, 12.0])
    expected = scipy.stats.ttest_1samp([10.0, 11.0, 12.0], 90.0)
    assert result.p == pytest.approx(expected.pvalue)


@pytest.mark.parametrize("diverged", [math.nan, math.inf, -math.inf])
def test_a_diverged_run_is_left_out_and_counted(diverged: float) -> None:
    row = summary([8.0, diverged, 9.0])
    assert (row.mean, row.n, row.num_diverged) == (8.5, 2, 1)
    assert compare([1.0, diverged, 3.0], [1.0, 2.0, 3.0]).n_a == 2
    pairs = compare([1.0, diverged, 3.0], [1.0, 50.0, 5.0], paired=True)
    assert (pairs.difference, pairs.n_a, pairs.n_b, pairs.num_diverged) == (-1.0, 2, 2, 1)


def test_only_diverged_runs_give_no_number() -> None:
    row = summary([math.nan, math.nan])
    assert math.isnan(row.mean)
    assert row.interval is None
    assert row.num_diverged == 2
    for paired in (False, True):
        comparison = compare([math.nan, math.nan], [1.0, 2.0], paired)
        assert math.isnan(comparison.difference)
        assert comparison.p is None
        assert comparison.interval is None
        assert not equivalence([math.nan, math.nan], [1.0, 2.0], margin=1, paired=paired).equivalent


def test_errors_are_one_line() -> None:
    with pytest.raises(ValueError, match=r"^no values: at least one is needed$"):
        summary([])
    with pytest.raises(ValueError, match=r"^no b: "):
        compare([1.0], [])
    with pytest.raises(ValueError, match=r"^2 values against 1: "):
        compare([1.0, 2.0], [1.0], paired=True)
    with pytest.raises(ValueError, match=r"^confidence = 95: "):
        summary([1.0, 2.0], confidence=95)
    with pytest.raises(ValueError, match=r"^margin = 0: "):
        equivalence([1.0, 2.0], [1.0, 2.0], margin=0)
    with pytest.raises(ValueError, match=r"two different finite values"):
        slope([20, 20], [[1.0, 2.0]])
    with pytest.raises(ValueError, match=r"^a curve of 1 values for 2"):
        slope([20, 56], [[1.0]])


@settings(max_examples=40)
@given(samples, samples, st.sampled_from([0.5, 5.0, 50.0]))
def test_equivalence_is_two_one_sided_tests(a: list[float], b: list[float], margin: float) -> None:
    result = equivalence(a, b, margin=margin)
    above = scipy.stats.ttest_ind(
        [value + margin for value in a], b, equal_var=False, alternative="greater"
    ).pvalue
    below = scipy.stats.ttest_ind(
        [value - margin for value in a], b, equal_var=False, alternative="less"
    ).pvalue
    assert result.p == pytest.approx(max(above, below), rel=1e-6, abs=1e-9)
    interval = result.comparison.interval
    assert interval is not None
    assert result.equivalent == (-margin < interval.low and interval.high < margin)


def test_equivalence_needs_evidence_of_a_small_difference() -> None:
    assert equivalence([8.0, 8.1, 8.2], [8.05, 8.1, 8.15], margin=1).equivalent
    assert not equivalence([2.0, 20.0], [3.0, 18.0], margin=1).equivalent
    assert equivalence([8.0, 8.0], [8.0, 8.0], margin=0.1).equivalent
    assert not equivalence([8.0, 8.0], [9.0, 9.0], margin=1.0).equivalent


@settings(max_examples=40)
@given(samples.filter(lambda values: len(values) > 2), st.floats(-5, 5))
def test_slopes_are_least_squares_and_the_interval_is_over_seeds(
    heights: list[float], tilt: float
) -> None:
    x = [float(depth) for depth in range(8, 8 + len(heights))]
    curves = [heights, [height + tilt * depth for depth, height in zip(x, heights, strict=True)]]
    result = slope(x, curves)
    for slope_of_seed, curve in zip(result.per_seed, curves, strict=True):
        assert slope_of_seed == pytest.approx(
            scipy.stats.linregress(x, curve).slope, rel=1e-6, abs=1e-6
        )
    assert result.per_seed[1] - result.per_seed[0] == pytest.approx(tilt, abs=1e-6)
    assert result.summary == summary(result.per_seed)


def test_a_seed_with_a_diverged_run_has_no_slope() -> None:
    result = slope([20, 56], [[1.0, 37.0], [1.0, math.nan], [2.0, 2.0]])
    assert result.per_seed[0] == 1.0
    assert math.isnan(result.per_seed[1])
    assert (result.summary.mean, result.summary.n, result.summary.num_diverged) == (0.5, 2, 1)


def test_bootstrap_of_many_values_is_near_the_t_interval_and_repeats() -> None:
    values = [float(number * 37 % 101) for number in range(100)]
    t = summary(values).interval
    percentile = bootstrap(values)
    assert t is not None
    assert percentile is not None
    assert percentile == pytest.approx(t, abs=1.5)
    assert bootstrap(values) == percentile != bootstrap(values, seed=1)
    median = bootstrap(values, statistics.median)
    assert median is not None
    assert median.low <= statistics.median(values) <= median.high
    assert bootstrap([1.0]) is None
    assert bootstrap([2.0, 2.0, 2.0]) == (2.0, 2.0)


@settings(max_examples=40)
@given(st.integers(1, 10_000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_the_interval_of_a_proportion_is_the_exact_one_of_scipy(trials: tuple[int, int]) -> None:
    expected = scipy.stats.binomtest(*trials).proportion_ci(0.95, method="exact")
    assert proportion(*trials) == pytest.approx((expected.low, expected.high), rel=1e-6, abs=1e-9)


@pytest.mark.parametrize(("hits", "n"), [(1, 0), (-1, 3), (4, 3)])
def test_impossible_proportions_are_refused(hits: int, n: int) -> None:
    with pytest.raises(ValueError, match=f"{hits} of {n}"):
        proportion(hits, n)
