"""How sure may one be: p values where many comparisons are made, and how many seeds it takes to see a difference.

Both are asked before a study is believed: the first of its table, the second of its budget.
"""

import math
from collections.abc import Sequence


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """p values corrected for being many (Holm 1979): with all below 5 % called real, one false call has at most that chance.

    No assumption on how they depend on each other. None (untestable) stays None and still counts as one of the many.
    """
    for p in p_values:
        if p is not None and not 0 <= p <= 1:
            raise ValueError(f"p = {p}: 0 to 1 is allowed")
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
    """Seeds a side (pairs, if paired) to tell `difference` from 0 by the t test, two-sided, at `significance`, with this `power`.

    `standard_deviation` is that of one run, or of the differences of pairs. None where more than 10,000 would be needed.
    The standard deviation is taken as known; from few seeds it is a rough guess, and so is the answer.
    """
    if not (difference != 0 and math.isfinite(difference)):
        raise ValueError(f"difference = {difference}: a finite number other than 0 is needed")
    if not (standard_deviation >= 0 and math.isfinite(standard_deviation)):
        raise ValueError(
            f"standard_deviation = {standard_deviation}: a finite number from 0 is needed"
        )
    if not 0 < power < 1:
        raise ValueError(f"power = {power}: a number between 0 and 1 is needed, as 0.8")
    few, many = 2, 10_000
    if (
        power_of(
            difference, standard_deviation, num_runs=many, paired=paired, significance=significance
        )
        < power
    ):
        return None
    while few < many:  # the power rises with the number of runs
        middle = (few + many) // 2
        if (
            power_of(
                difference,
                standard_deviation,
                num_runs=middle,
                paired=paired,
                significance=significance,
            )
            < power
        ):
            few = middle + 1
        else:
            many = middle
    return few


def pairs_told(difference: float, standard_deviation: float, *, significance: float = 0.05) -> str:
    """`runs_needed` of pairs with a power of 80 %, as a reader says it: "8", or "over 10,000"."""
    return str(
        runs_needed(difference, standard_deviation, paired=True, significance=significance)
        or "over 10,000"
    )


def power_of(
    difference: float,
    standard_deviation: float,
    *,
    num_runs: int,
    paired: bool = False,
    significance: float = 0.05,
) -> float:
    """The chance to tell `difference` from 0 by the t test, two-sided, at `significance`, from `num_runs` seeds a side (pairs, if
    paired). Where several differences are judged at once, or more is asked than that, so is the significance or the chance another.
    """
    if not 0 < significance < 1:
        raise ValueError(
            f"significance = {significance}: a number between 0 and 1 is needed, as 0.05"
        )
    if num_runs < 2:
        raise ValueError(f"num_runs = {num_runs}: at least 2 are needed")
    if standard_deviation == 0:
        return 1.0
    from scipy.special import chdtr, nctdtr, stdtrit

    degrees, sides = (num_runs - 1, 1) if paired else (2 * num_runs - 2, 2)
    shift = abs(difference) / (standard_deviation * math.sqrt(sides / num_runs))
    critical = float(stdtrit(degrees, 1 - significance / 2))
    if (
        shift > 30
    ):  # the series behind the non-central t no longer converges; beside such a shift only the estimated spread varies
        return float(chdtr(degrees, degrees * (shift / critical) ** 2))
    wrong_sign = nctdtr(degrees, shift, -critical)
    if math.isnan(wrong_sign):
        wrong_sign = 0.0  # The series of scipy fails where this probability is below 1e-15.
    return float(1 - nctdtr(degrees, shift, critical) + wrong_sign)
