"""Numbers over seeds: means with their intervals, comparisons, slopes, equivalence.

Every claim of the project rests on these few functions. All intervals are two-sided and, unless asked otherwise, of 95 %.

The rule for runs that diverged: a value that is not finite (nan, inf) is left out of means, differences and slopes, and counted
in `num_diverged`, which whoever prints a mean prints beside it. No number is put in its place: a diverged run has no error.

The t distribution comes from scipy.special, which loads in half the time of scipy.stats, and only when an interval is asked for.
"""

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

CONFIDENCE = 0.95


class Interval(NamedTuple):
    """A confidence interval, in the unit of the values."""

    low: float
    high: float

    def scaled_by(self, factor: float) -> "Interval":
        """Return the interval of the same quantity in another unit; a negative factor swaps ends."""
        ends = (self.low * factor, self.high * factor)
        return Interval(*ends) if factor >= 0 else Interval(*reversed(ends))


@dataclass(frozen=True, kw_only=True)
class Summary:
    """A few runs as one row. `mean` is nan where no value was finite; standard deviation and interval need two values."""

    mean: float
    standard_deviation: float | None
    interval_low: float | None
    interval_high: float | None
    n: int
    num_diverged: int = 0

    @property
    def interval(self) -> Interval | None:
        """Both ends together, None below two values."""
        return _interval_of(self.interval_low, self.interval_high)


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """`difference` is mean(a) - mean(b). Interval and p are None where a side has too few values; `n_a == n_b` pairs if paired."""

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
        """Both ends together, None where there is none."""
        return _interval_of(self.interval_low, self.interval_high)


@dataclass(frozen=True, kw_only=True)
class Equivalence:
    """Two one-sided tests at 5 %: `equivalent` where the 90 % interval lies inside (-margin, margin); p and interval None if untestable."""

    equivalent: bool
    p: float | None
    margin: float
    comparison: Comparison


@dataclass(frozen=True, kw_only=True)
class Slope:
    """Least-squares slopes of y over x: one a seed, and their summary, whose interval is over seeds."""

    per_seed: tuple[float, ...]
    summary: Summary


def summary(values: Sequence[float], *, confidence: float = CONFIDENCE) -> Summary:
    """Mean, standard deviation (n - 1), t interval and n. ValueError for no values at all; one value has no interval."""
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
    estimate = _estimate(finite)
    low, high = estimate.interval(confidence) or (None, None)
    return Summary(
        mean=estimate.value,
        standard_deviation=statistics.stdev(finite) if len(finite) > 1 else None,
        interval_low=low,
        interval_high=high,
        n=len(finite),
        num_diverged=num_diverged,
    )


def compare(
    a: Sequence[float], b: Sequence[float], paired: bool = False, *, confidence: float = CONFIDENCE
) -> Comparison:
    """mean(a) - mean(b) by Welch's t test, or by the paired t test where a[i] and b[i] share a seed.

    Of a pair with a diverged run both are left out. Where nothing varies the interval is a point, and p is its limit: 1 for no
    difference, else 0. ValueError for an empty side and for pairs of unequal number.
    """
    estimate, n_a, n_b, num_diverged = _difference(a, b, paired)
    low, high = estimate.interval(confidence) or (None, None)
    return Comparison(
        difference=estimate.value,
        interval_low=low,
        interval_high=high,
        p=estimate.p(),
        n_a=n_a,
        n_b=n_b,
        paired=paired,
        num_diverged=num_diverged,
    )


def equivalence(
    a: Sequence[float], b: Sequence[float], *, margin: float, paired: bool = False
) -> Equivalence:
    """Whether the means differ by less than `margin` (unit of the values), by two one-sided t tests at 5 % (Schuirmann 1987).

    A difference that is merely not significant shows nothing; this test asks for evidence that it is small.
    """
    estimate, _, _, _ = _difference(a, b, paired)
    return _equivalence(estimate, margin, compare(a, b, paired, confidence=0.90))


def _equivalence(estimate: "_Estimate", margin: float, comparison: Comparison) -> Equivalence:
    if not (margin > 0 and math.isfinite(margin)):
        raise ValueError(f"margin = {margin}: a finite number above 0 is needed")
    below, above = estimate.p_greater(-margin), estimate.p_less(margin)
    p = None if below is None or above is None else max(below, above)
    return Equivalence(
        equivalent=p is not None and p < 0.05,
        p=p,
        margin=margin,
        comparison=comparison,
    )


class Spread(NamedTuple):
    """What is known of the runs behind a published mean: their standard deviation and number."""

    standard_deviation: float
    n: int


def compare_to(
    values: Sequence[float],
    target: float,
    *,
    spread: Spread | None = None,
    confidence: float = CONFIDENCE,
) -> Comparison:
    """mean(values) minus a published number: taken as exact where it is of one run, whose noise nobody knows; by Welch's t test where it
    is the mean of several (`spread`)."""
    estimate, n, num_diverged = _difference_to(values, target, spread)
    low, high = estimate.interval(confidence) or (None, None)
    return Comparison(
        difference=estimate.value,
        interval_low=low,
        interval_high=high,
        p=estimate.p(),
        n_a=n,
        n_b=1 if spread is None else spread.n,
        paired=False,
        num_diverged=num_diverged,
    )


def equivalence_to(
    values: Sequence[float], target: float, *, margin: float, spread: Spread | None = None
) -> Equivalence:
    """Whether a mean lies less than `margin` from a published number (`compare_to`), by two one-sided t tests at 5 %.

    Where that is of one run, the margin has to allow for its noise.
    """
    estimate, _, _ = _difference_to(values, target, spread)
    return _equivalence(
        estimate, margin, compare_to(values, target, spread=spread, confidence=0.90)
    )


def slope(
    x: Sequence[float], y: Sequence[Sequence[float]], *, confidence: float = CONFIDENCE
) -> Slope:
    """Slope of y over x: `y` holds one curve a seed, each as long as `x` (depths, say).

    The seed is the unit that is drawn at random, so the interval is the t interval of the slopes of single seeds: it stays right
    where the true curve is no line. A seed with a diverged run has no slope and counts as diverged.
    """
    if len(set(x)) < 2 or not all(math.isfinite(value) for value in x):
        raise ValueError(f"x = {list(x)}: a slope needs at least two different finite values")
    for curve in y:
        if len(curve) != len(x):
            raise ValueError(
                f"a curve of {len(curve)} values for {len(x)} values of x: as many are needed"
            )
    center = statistics.mean(x)
    spread = math.fsum((value - center) ** 2 for value in x)
    slopes = tuple(
        math.fsum((value - center) * height for value, height in zip(x, curve, strict=True))
        / spread
        if all(math.isfinite(height) for height in curve)
        else math.nan
        for curve in y
    )
    return Slope(per_seed=slopes, summary=summary(slopes, confidence=confidence))


def proportion(hits: int, n: int, *, confidence: float = CONFIDENCE) -> Interval:
    """Exact interval of a share, from 0 to 1, of which `hits` of `n` were seen (Clopper and Pearson 1934).

    ValueError for no n, and for hits below 0 or above n.
    """
    if not 0 <= hits <= n or n == 0:
        raise ValueError(f"{hits} of {n}: from none to all of at least one are needed")
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
    """Percentile bootstrap interval of any statistic (a median, a ratio) of finite values; None below two.

    It is too narrow for the three to five seeds of most studies: for means take `summary`. Its use is many values: images, or networks.
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


class _Estimate(NamedTuple):
    """A mean or a difference of means, its standard error and degrees of freedom (None below two values)."""

    value: float
    standard_error: float | None
    degrees: float | None

    def interval(self, confidence: float) -> Interval | None:
        if not 0 < confidence < 1:
            raise ValueError(
                f"confidence = {confidence}: a number between 0 and 1 is needed, as 0.95"
            )
        if self.standard_error is None:
            return None
        if self.standard_error == 0:
            return Interval(self.value, self.value)
        from scipy.special import stdtrit

        half = float(stdtrit(self.degrees, 0.5 + confidence / 2)) * self.standard_error
        return Interval(self.value - half, self.value + half)

    def p(self) -> float | None:
        """Two-sided p of no difference."""
        if self.standard_error == 0:
            return 1.0 if self.value == 0 else 0.0
        less, greater = self.p_less(0), self.p_greater(0)
        return None if less is None or greater is None else min(1.0, 2 * min(less, greater))

    def p_less(self, bound: float) -> float | None:
        """One-sided p of value >= bound: small where the value is clearly below."""
        if self.standard_error is None:
            return None
        if self.standard_error == 0:
            return 0.0 if self.value < bound else 1.0
        from scipy.special import stdtr

        return float(stdtr(self.degrees, (self.value - bound) / self.standard_error))

    def p_greater(self, bound: float) -> float | None:
        """One-sided p of value <= bound: small where the value is clearly above."""
        return self._replace(value=-self.value).p_less(-bound)


def _estimate(finite: Sequence[float]) -> _Estimate:
    # The standard library sums exactly: equal values give their own value as mean and a deviation of exactly 0.
    value = float(statistics.mean(finite))
    if len(finite) < 2:
        return _Estimate(value, None, None)
    return _Estimate(value, statistics.stdev(finite) / math.sqrt(len(finite)), len(finite) - 1)


def _difference(
    a: Sequence[float], b: Sequence[float], paired: bool
) -> tuple[_Estimate, int, int, int]:
    """The estimate of mean(a) - mean(b), n on either side, and the number of runs (of pairs, if paired) left out as diverged."""
    if paired:
        if len(a) != len(b):
            raise ValueError(
                f"{len(a)} values against {len(b)}: a paired comparison needs one of each for every seed"
            )
        differences, num_diverged = _finite(
            [left - right for left, right in zip(a, b, strict=True)], "pairs"
        )
        estimate = _estimate(differences) if differences else _Estimate(math.nan, None, None)
        return estimate, len(differences), len(differences), num_diverged
    (left, diverged_a), (right, diverged_b) = _finite(a, "a"), _finite(b, "b")
    num_diverged = diverged_a + diverged_b
    if not left or not right:
        return _Estimate(math.nan, None, None), len(left), len(right), num_diverged
    return _welch(_estimate(left), _estimate(right)), len(left), len(right), num_diverged


def _difference_to(
    values: Sequence[float], target: float, spread: Spread | None
) -> tuple[_Estimate, int, int]:
    """The estimate of mean(values) - target, the number of finite values, and of those that are not."""
    finite, num_diverged = _finite(values, "values")
    ours = _estimate(finite) if finite else _Estimate(math.nan, None, None)
    if spread is None:
        return ours._replace(value=ours.value - target), len(finite), num_diverged
    theirs = _Estimate(target, spread.standard_deviation / math.sqrt(spread.n), spread.n - 1)
    return _welch(ours, theirs), len(finite), num_diverged


def _welch(a: _Estimate, b: _Estimate) -> _Estimate:
    value = a.value - b.value
    if (
        a.standard_error is None
        or b.standard_error is None
        or a.degrees is None
        or b.degrees is None
    ):
        return _Estimate(value, None, None)
    standard_error = math.hypot(a.standard_error, b.standard_error)
    if standard_error == 0:
        return _Estimate(value, 0.0, a.degrees + b.degrees)
    share = (
        a.standard_error / standard_error
    ) ** 2  # Welch-Satterthwaite, written so that tiny variances do not underflow
    return _Estimate(
        value, standard_error, 1 / (share**2 / a.degrees + (1 - share) ** 2 / b.degrees)
    )


def _finite(values: Sequence[float], name: str) -> tuple[list[float], int]:
    """The finite ones as floats, and how many were not."""
    if not len(values):
        raise ValueError(f"no {name}: at least one is needed")
    floats = [float(value) for value in values]
    finite = [value for value in floats if math.isfinite(value)]
    return finite, len(floats) - len(finite)


def _interval_of(low: float | None, high: float | None) -> Interval | None:
    return None if low is None or high is None else Interval(low, high)
