"""Statistics over seeds: means with intervals, comparisons, slopes, equivalence tests.

All intervals are two-sided, with a confidence of 95 % unless another one is requested.

Diverged runs have no error. A value that is not finite (nan, inf) is therefore left out of means,
differences and slopes, and counted in `num_diverged`. Print that count beside every mean.

The t distribution comes from scipy.special, which loads in half the time of scipy.stats. It is
imported only when an interval or a p value is computed.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from reslearn.study.estimate import CONFIDENCE, Estimate, Interval, estimate, welch


@dataclass(frozen=True, kw_only=True)
class Summary:
    """Mean of a few runs with its spread and interval.

    Attributes:
        mean: nan if no value was finite.
        standard_deviation: Over runs, with n - 1. None below two finite values.
        interval_low: Lower end of the interval of the mean. None below two finite values.
        interval_high: Upper end of the interval of the mean.
        n: Number of finite values.
        num_diverged: Number of values that were not finite.
    """

    mean: float
    standard_deviation: float | None
    interval_low: float | None
    interval_high: float | None
    n: int
    num_diverged: int = 0

    @property
    def interval(self) -> Interval | None:
        """Both ends of the interval, or None below two finite values."""
        return _interval_of(self.interval_low, self.interval_high)


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Difference of two means, mean(a) - mean(b).

    Attributes:
        difference: nan if one side has no finite value.
        interval_low: Lower end of the interval. None if a side has too few values.
        interval_high: Upper end of the interval.
        p: Two-sided p value of no difference. None if a side has too few values.
        n_a: Number of finite values of a, or of finite pairs.
        n_b: Number of finite values of b, or of finite pairs.
        paired: Whether a[i] and b[i] were compared pair by pair.
        num_diverged: Number of values, or pairs, that were not finite.
    """

    difference: float
    interval_low: float | None
    interval_high: float | None
    p: float | None
    n_a: int
    n_b: int
    paired: bool
    num_diverged: int = 0

    @property
    def interval(self) -> Interval | None:
        """Both ends of the interval, or None if a side has too few values."""
        return _interval_of(self.interval_low, self.interval_high)


@dataclass(frozen=True, kw_only=True)
class Equivalence:
    """Result of two one-sided tests at 5 %.

    Attributes:
        equivalent: Whether the 90 % interval lies inside (-margin, margin).
        p: The larger p value of the two tests. None if a side has too few values.
        margin: In the unit of the values.
        comparison: The difference with its 90 % interval.
    """

    equivalent: bool
    p: float | None
    margin: float
    comparison: Comparison


@dataclass(frozen=True, kw_only=True)
class Slope:
    """Least-squares slopes of y over x, one per seed, and their summary over seeds."""

    per_seed: tuple[float, ...]
    summary: Summary


class Spread(NamedTuple):
    """Standard deviation and number of the runs behind a published mean."""

    standard_deviation: float
    n: int


def summary(values: Sequence[float], *, confidence: float = CONFIDENCE) -> Summary:
    """Return the mean of `values` with standard deviation and t interval.

    Raises:
        ValueError: If `values` is empty.
    """
    finite, num_diverged = _finite(values, "values")
    if not finite:
        return Summary(
            mean=math.nan,
            standard_deviation=None,
            interval_low=None,
            interval_high=None,
            n=0,
            num_diverged=num_diverged,
        )
    mean = estimate(finite)
    low, high = mean.interval(confidence) or (None, None)
    return Summary(
        mean=mean.value,
        standard_deviation=statistics.stdev(finite) if len(finite) > 1 else None,
        interval_low=low,
        interval_high=high,
        n=len(finite),
        num_diverged=num_diverged,
    )


def compare(
    a: Sequence[float], b: Sequence[float], paired: bool = False, *, confidence: float = CONFIDENCE
) -> Comparison:
    """Compare two means by Welch's t test, or by the paired t test.

    A pair with a diverged run is left out as a whole. If no value varies, the interval is a point
    and p is 1 for equal means and 0 for different means.

    Args:
        a: Values of the first side.
        b: Values of the second side.
        paired: Whether a[i] and b[i] share a seed.
        confidence: Confidence of the interval, between 0 and 1.

    Raises:
        ValueError: If a side is empty, or the sides of a paired comparison differ in length.
    """
    difference, n_a, n_b, num_diverged = _difference(a, b, paired)
    low, high = difference.interval(confidence) or (None, None)
    return Comparison(
        difference=difference.value,
        interval_low=low,
        interval_high=high,
        p=difference.p(),
        n_a=n_a,
        n_b=n_b,
        paired=paired,
        num_diverged=num_diverged,
    )


def equivalence(
    a: Sequence[float], b: Sequence[float], *, margin: float, paired: bool = False
) -> Equivalence:
    """Test whether two means differ by less than `margin`, by two one-sided t tests at 5 %.

    A difference that is not significant is no evidence for equality. This test requires evidence
    that the difference is small (Schuirmann 1987).

    Args:
        a: Values of the first side.
        b: Values of the second side.
        margin: Smallest difference that matters, above 0, in the unit of the values.
        paired: Whether a[i] and b[i] share a seed.
    """
    difference, _, _, _ = _difference(a, b, paired)
    return _equivalence(difference, margin, compare(a, b, paired, confidence=0.90))


def compare_to(
    values: Sequence[float],
    target: float,
    *,
    spread: Spread | None = None,
    confidence: float = CONFIDENCE,
) -> Comparison:
    """Compare the mean of `values` with a published number.

    Args:
        values: Results of our runs.
        target: The published number.
        spread: Spread of the runs behind the published number, for Welch's t test. Without it the
            number counts as exact: the noise of a single published run is unknown.
        confidence: Confidence of the interval, between 0 and 1.
    """
    difference, n, num_diverged = _difference_to(values, target, spread)
    low, high = difference.interval(confidence) or (None, None)
    return Comparison(
        difference=difference.value,
        interval_low=low,
        interval_high=high,
        p=difference.p(),
        n_a=n,
        n_b=1 if spread is None else spread.n,
        paired=False,
        num_diverged=num_diverged,
    )


def equivalence_to(
    values: Sequence[float], target: float, *, margin: float, spread: Spread | None = None
) -> Equivalence:
    """Test whether a mean lies less than `margin` from a published number.

    The test consists of two one-sided t tests at 5 %, see `compare_to`. Without `spread` the margin
    must allow for the noise of the single published run.
    """
    difference, _, _ = _difference_to(values, target, spread)
    return _equivalence(
        difference, margin, compare_to(values, target, spread=spread, confidence=0.90)
    )


def slope(
    x: Sequence[float], y: Sequence[Sequence[float]], *, confidence: float = CONFIDENCE
) -> Slope:
    """Return the least-squares slope of y over x for each seed.

    Seeds are the random unit, so the interval is the t interval of the slopes of single seeds. It
    remains valid if the true curve is not a line. A seed with a diverged run has no slope, and
    counts as diverged.

    Args:
        x: At least two different finite values, for example depths.
        y: One curve per seed, each as long as `x`.
        confidence: Confidence of the interval, between 0 and 1.
    """
    if len(set(x)) < 2 or not all(math.isfinite(value) for value in x):
        raise ValueError(f"x = {list(x)}: a slope needs at least two different finite values")
    for curve in y:
        if len(curve) != len(x):
            raise ValueError(
                f"a curve of {len(curve)} values for {len(x)} values of x: "
                "each curve needs one value for each x"
            )
    center = statistics.mean(x)
    spread = math.fsum((value - center) ** 2 for value in x)
    slopes: list[float] = []
    for curve in y:
        if all(math.isfinite(height) for height in curve):
            products = [(value - center) * height for value, height in zip(x, curve, strict=True)]
            slopes.append(math.fsum(products) / spread)
        else:
            slopes.append(math.nan)
    return Slope(per_seed=tuple(slopes), summary=summary(slopes, confidence=confidence))


def proportion(hits: int, n: int, *, confidence: float = CONFIDENCE) -> Interval:
    """Return the exact interval of a proportion, from `hits` in `n` trials (Clopper, Pearson 1934).

    Raises:
        ValueError: If `n` is 0, or `hits` is not between 0 and `n`.
    """
    if not 0 <= hits <= n or n == 0:
        raise ValueError(f"{hits} of {n}: hits must be 0 to n, and n at least 1")
    from scipy.special import betaincinv

    tail = (1 - confidence) / 2
    low = betaincinv(hits, n - hits + 1, tail) if hits else 0.0
    high = betaincinv(hits + 1, n - hits, 1 - tail) if hits < n else 1.0
    return Interval(float(low), float(high))


def bootstrap(
    values: Sequence[float],
    statistic: Callable[[Sequence[float]], float] = statistics.mean,
    *,
    confidence: float = CONFIDENCE,
    num_resamples: int = 2000,
    seed: int = 0,
) -> Interval | None:
    """Return the percentile bootstrap interval of any statistic, for example a median or a ratio.

    The interval is too narrow for the three to five seeds of most studies: use `summary` for means
    of seeds. Use the bootstrap for many values, such as images or networks.

    Args:
        values: Values that are not finite are left out.
        statistic: Function of a sample. Default: the mean.
        confidence: Confidence of the interval, between 0 and 1.
        num_resamples: Number of samples drawn with replacement.
        seed: Seed of the draws.

    Returns:
        The interval, or None below two finite values.
    """
    finite, _ = _finite(values, "values")
    if len(finite) < 2:
        return None
    import scipy.stats

    result = scipy.stats.bootstrap(
        (finite,),
        lambda sample: statistic(sample.tolist()),
        vectorized=False,
        n_resamples=num_resamples,
        confidence_level=confidence,
        method="percentile",
        rng=seed,
    )
    return Interval(float(result.confidence_interval.low), float(result.confidence_interval.high))


def _difference(
    a: Sequence[float], b: Sequence[float], paired: bool
) -> tuple[Estimate, int, int, int]:
    """Return the estimate of mean(a) - mean(b), n of a, n of b, and the number of diverged runs.

    For a paired comparison, pairs are counted instead of runs.
    """
    if paired:
        if len(a) != len(b):
            raise ValueError(
                f"{len(a)} values against {len(b)}: a paired comparison needs one value of each "
                "side for every seed"
            )
        pairs = [value_a - value_b for value_a, value_b in zip(a, b, strict=True)]
        finite, num_diverged = _finite(pairs, "pairs")
        difference = estimate(finite) if finite else Estimate(math.nan, None, None)
        return difference, len(finite), len(finite), num_diverged
    finite_a, diverged_a = _finite(a, "a")
    finite_b, diverged_b = _finite(b, "b")
    difference = Estimate(math.nan, None, None)
    if finite_a and finite_b:
        difference = welch(estimate(finite_a), estimate(finite_b))
    return difference, len(finite_a), len(finite_b), diverged_a + diverged_b


def _difference_to(
    values: Sequence[float], target: float, spread: Spread | None
) -> tuple[Estimate, int, int]:
    """Return the estimate of mean(values) - target, n, and the number of diverged runs."""
    finite, num_diverged = _finite(values, "values")
    mean = estimate(finite) if finite else Estimate(math.nan, None, None)
    if spread is None:
        return mean._replace(value=mean.value - target), len(finite), num_diverged
    standard_error = spread.standard_deviation / math.sqrt(spread.n)
    published = Estimate(target, standard_error, spread.n - 1)
    return welch(mean, published), len(finite), num_diverged


def _equivalence(difference: Estimate, margin: float, comparison: Comparison) -> Equivalence:
    if not (margin > 0 and math.isfinite(margin)):
        raise ValueError(f"margin = {margin}: it must be finite and above 0")
    below, above = difference.p_greater(-margin), difference.p_less(margin)
    p = None if below is None or above is None else max(below, above)
    return Equivalence(
        equivalent=p is not None and p < 0.05,
        p=p,
        margin=margin,
        comparison=comparison,
    )


def _finite(values: Sequence[float], name: str) -> tuple[list[float], int]:
    """Return the finite values as floats, and the number of other values."""
    if not len(values):
        raise ValueError(f"no {name}: at least one is needed")
    floats = [float(value) for value in values]
    finite = [value for value in floats if math.isfinite(value)]
    return finite, len(floats) - len(finite)


def _interval_of(low: float | None, high: float | None) -> Interval | None:
    return None if low is None or high is None else Interval(low, high)
