"""Corrected p values of several comparisons, and the number of seeds that a difference needs."""

from __future__ import annotations

import math
from collections.abc import Sequence


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Correct p values for multiple comparisons (Holm 1979).

    If all corrected values below 5 % count as real, the chance of one or more false calls is at
    most 5 %. The comparisons may depend on each other.

    Args:
        p_values: None for a comparison without a p value. It stays None, and still counts as a
            comparison.
    """
    for p in p_values:
        if p is not None and not 0 <= p <= 1:
            raise ValueError(f"p = {p}: it must be between 0 and 1")
    order = sorted((p, index) for index, p in enumerate(p_values) if p is not None)
    corrected: list[float | None] = [None] * len(p_values)
    highest = 0.0
    for rank, (p, index) in enumerate(order):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p))
        corrected[index] = highest
    return corrected


def runs_needed(
    difference: float,
    standard_deviation: float,
    *,
    power: float = 0.8,
    paired: bool = False,
    significance: float = 0.05,
) -> int | None:
    """Return the number of seeds per side that a two-sided t test needs to detect `difference`.

    Args:
        difference: True difference of the means, not 0.
        standard_deviation: Of a single run, or of the differences of pairs. It counts as exact. An
            estimate from few seeds makes the result a rough guess.
        power: Chance to detect the difference, between 0 and 1.
        paired: Whether runs are compared in pairs. The result then counts pairs.
        significance: Significance level of the test.

    Returns:
        The smallest sufficient number, or None above 10,000.
    """
    if not (difference != 0 and math.isfinite(difference)):
        raise ValueError(f"difference = {difference}: it must be finite and not 0")
    if not (standard_deviation >= 0 and math.isfinite(standard_deviation)):
        raise ValueError(
            f"standard_deviation = {standard_deviation}: it must be finite and at least 0"
        )
    if not 0 < power < 1:
        raise ValueError(f"power = {power}: it must be between 0 and 1, for example 0.8")

    def is_enough(num_runs: int) -> bool:
        reached = power_of(
            difference,
            standard_deviation,
            num_runs=num_runs,
            paired=paired,
            significance=significance,
        )
        return reached >= power

    low, high = 2, 10_000
    if not is_enough(high):
        return None
    while low < high:  # bisection: the power increases with the number of runs
        middle = (low + high) // 2
        if is_enough(middle):
            high = middle
        else:
            low = middle + 1
    return low


def needed_pairs_text(
    difference: float, standard_deviation: float, *, significance: float = 0.05
) -> str:
    """Format `runs_needed` for pairs and a power of 80 % as text: "8", or "over 10,000"."""
    pairs = runs_needed(difference, standard_deviation, paired=True, significance=significance)
    return str(pairs or "over 10,000")


def power_of(
    difference: float,
    standard_deviation: float,
    *,
    num_runs: int,
    paired: bool = False,
    significance: float = 0.05,
) -> float:
    """Return the power of a two-sided t test: its chance to detect `difference`.

    Args:
        difference: True difference of the means.
        standard_deviation: Of a single run, or of the differences of pairs.
        num_runs: Number of seeds per side, or of pairs; at least 2.
        paired: Whether runs are compared in pairs.
        significance: Significance level of the test. For several simultaneous tests, pass the
            corrected level.
    """
    if not 0 < significance < 1:
        raise ValueError(
            f"significance = {significance}: it must be between 0 and 1, for example 0.05"
        )
    if num_runs < 2:
        raise ValueError(f"num_runs = {num_runs}: it must be at least 2")
    if standard_deviation == 0:
        return 1.0
    from scipy.special import chdtr, nctdtr, stdtrit

    degrees, sides = (num_runs - 1, 1) if paired else (2 * num_runs - 2, 2)
    shift = abs(difference) / (standard_deviation * math.sqrt(sides / num_runs))
    critical = float(stdtrit(degrees, 1 - significance / 2))
    if shift > 30:
        # The series behind the non-central t no longer converges. Against such a shift, only the
        # estimated spread still varies.
        return float(chdtr(degrees, degrees * (shift / critical) ** 2))
    wrong_sign = nctdtr(degrees, shift, -critical)
    if math.isnan(wrong_sign):
        wrong_sign = 0.0  # The series of scipy fails where this probability is below 1e-15.
    return float(1 - nctdtr(degrees, shift, critical) + wrong_sign)
