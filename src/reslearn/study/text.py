"""Numbers as text: the one form in which the project prints a value, its spread and its interval.

8.75 ± 0.31 % [8.40, 9.10]
+1.42 points [+1.10, +1.74] (98.33 %)
"""

import math

from reslearn.study.estimate import CONFIDENCE, Interval


def number_text(
    value: float | None,
    *,
    digits: int = 2,
    signed: bool = False,
    unit: str = "",
    deviation: float | None = None,
    interval: Interval | None = None,
    confidence: float = CONFIDENCE,
    no_interval: str = "",
) -> str:
    """Format a value with its standard deviation, unit and interval.

    Args:
        value: The number. For None and nan the result is "no value".
        digits: Number of decimals, the same for all numbers.
        signed: Whether positive numbers get a plus sign. Use it for differences.
        unit: Printed after the value and its deviation, separated by a space.
        deviation: Standard deviation, printed as "± 0.31".
        interval: Printed as "[8.40, 9.10]".
        confidence: Confidence of the interval. It is printed unless it is 95 %.
        no_interval: Replaces a missing interval, for example by "(one seed: no interval)".
    """
    if value is None or math.isnan(value):
        return "no value"
    spread = "" if deviation is None else f"± {deviation:.{digits}f}"
    ends = interval_text(interval, digits=digits, signed=signed, confidence=confidence)
    parts = (_decimal(value, digits, signed), spread, unit, ends or no_interval)
    return " ".join(part for part in parts if part)


def interval_text(
    interval: Interval | None,
    *,
    digits: int = 2,
    signed: bool = False,
    confidence: float = CONFIDENCE,
) -> str:
    """Format an interval as "[8.40, 9.10]", or as "" if it is None.

    The confidence follows, unless it is 95 %: "[8.40, 9.10] (98.33 %)".
    """
    if interval is None:
        return ""
    ends = f"[{_decimal(interval.low, digits, signed)}, {_decimal(interval.high, digits, signed)}]"
    if math.isclose(confidence, CONFIDENCE):
        return ends
    return f"{ends} ({100 * confidence:.4g} %)"


def count_text(n: int, num_diverged: int = 0, *, noun: str = "seed") -> str:
    """Format a number of values, and the number of diverged runs if any: "3 seeds, 1 diverged"."""
    count = f"{n} {noun}" if n == 1 else f"{n} {noun}s"
    return f"{count}, {num_diverged} diverged" if num_diverged else count


def _decimal(value: float, digits: int, signed: bool) -> str:
    return f"{value:+.{digits}f}" if signed else f"{value:.{digits}f}"
