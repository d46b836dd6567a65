"""Means and differences of means with their standard error, by the t distribution."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import NamedTuple

CONFIDENCE = 0.95


class Interval(NamedTuple):
    """A confidence interval, in the unit of the values."""

    low: float
    high: float

    def scaled_by(self, factor: float) -> Interval:
        """Multiply both ends by `factor`; a negative factor swaps them."""
        ends = (self.low * factor, self.high * factor)
        return Interval(*ends) if factor >= 0 else Interval(*reversed(ends))


class Estimate(NamedTuple):
    """A mean or a difference of means. Standard error and degrees are None below two values."""

    value: float
    standard_error: float | None
    degrees: float | None

    def interval(self, confidence: float) -> Interval | None:
        """Return the t interval, or None without a standard error."""
        if not 0 < confidence < 1:
            raise ValueError(
                f"confidence = {confidence}: it must be between 0 and 1, for example 0.95"
            )
        if self.standard_error is None:
            return None
        if self.standard_error == 0:
            return Interval(self.value, self.value)
        from scipy.special import stdtrit

        half = float(stdtrit(self.degrees, 0.5 + confidence / 2)) * self.standard_error
        return Interval(self.value - half, self.value + half)

    def p(self) -> float | None:
        """Return the two-sided p value of no difference."""
        if self.standard_error == 0:
            return 1.0 if self.value == 0 else 0.0
        less, greater = self.p_less(0), self.p_greater(0)
        return None if less is None or greater is None else min(1.0, 2 * min(less, greater))

    def p_less(self, bound: float) -> float | None:
        """Return the one-sided p value of value >= bound: small if the value is clearly below."""
        if self.standard_error is None:
            return None
        if self.standard_error == 0:
            return 0.0 if self.value < bound else 1.0
        from scipy.special import stdtr

        return float(stdtr(self.degrees, (self.value - bound) / self.standard_error))

    def p_greater(self, bound: float) -> float | None:
        """Return the one-sided p value of value <= bound: small if the value is clearly above."""
        return self._replace(value=-self.value).p_less(-bound)


def estimate(finite: Sequence[float]) -> Estimate:
    """Estimate the mean of at least one finite value."""
    # The standard library sums exactly. Equal values give their own value as the mean, and a
    # deviation of exactly 0.
    value = float(statistics.mean(finite))
    if len(finite) < 2:
        return Estimate(value, None, None)
    return Estimate(value, statistics.stdev(finite) / math.sqrt(len(finite)), len(finite) - 1)


def welch(a: Estimate, b: Estimate) -> Estimate:
    """Estimate the difference a - b, without the assumption of equal variances (Welch 1947)."""
    value = a.value - b.value
    if a.standard_error is None or b.standard_error is None:
        return Estimate(value, None, None)
    if a.degrees is None or b.degrees is None:
        return Estimate(value, None, None)
    standard_error = math.hypot(a.standard_error, b.standard_error)
    if standard_error == 0:
        return Estimate(value, 0.0, a.degrees + b.degrees)
    # Welch-Satterthwaite, written so that tiny variances do not underflow.
    share = (a.standard_error / standard_error) ** 2
    degrees = 1 / (share**2 / a.degrees + (1 - share) ** 2 / b.degrees)
    return Estimate(value, standard_error, degrees)
