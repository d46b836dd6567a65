"""Axes of a figure: range, ticks and tick labels, shared by the inline SVG and the PNG file.

Iterations are labeled as in the paper (10k, 20k), and depths are labeled by themselves (20, 32).
A fraction is a position on an axis: 0 at the low end, 1 at the high end.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable
from dataclasses import dataclass

from reslearn.report.content import Figure

NUM_TICKS = 6
NUM_MARKED_POINTS = 24
"""Series up to this length have a marker at every point; longer series have only a few markers."""

MAX_LABEL_CHARACTERS = 5
"""Points with longer labels, such as 2947.22, get ticks at round numbers instead."""


@dataclass(frozen=True, slots=True)
class Axis:
    """One axis with its ticks: their values and their labels."""

    low: float
    high: float
    ticks: tuple[float, ...]
    labels: tuple[str, ...]
    log: bool = False

    def fraction(self, value: float) -> float:
        """Return the position of `value`, which is between 0 and 1 within the axis.

        The result is NaN for a value that is not finite or has no logarithm on a log axis.
        """
        if not math.isfinite(value) or (self.log and value <= 0):
            return math.nan
        if self.log:
            return math.log(value / self.low) / math.log(self.high / self.low)
        return (value - self.low) / (self.high - self.low)


def x_axis(figure: Figure) -> Axis:
    """Return the horizontal axis, from the first to the last x.

    The axis of a long series starts at 0 if the first x is near 0. The axis of a short series has
    a small margin on both sides, and ticks at the points if there is room for their labels.
    """
    all_x = itertools.chain.from_iterable(series.x for series in figure.series)
    values = sorted({x for x in all_x if math.isfinite(x)})
    low, high = _span(values)
    if all(len(series.x) <= NUM_MARKED_POINTS for series in figure.series):
        margin = 0.04 * (high - low)
        low, high = low - margin, high + margin
        min_gap = 0.07 * (high - low)
        has_room = all(high - low >= min_gap for low, high in itertools.pairwise(values))
        labels = _labels(values)
        is_short = all(len(label) <= MAX_LABEL_CHARACTERS for label in labels)
        if 0 < len(values) <= 10 and has_room and is_short:
            return Axis(low, high, tuple(values), labels)
    elif 0 < low <= 0.1 * high:
        low = 0.0
    # Integer values are layers or steps, so a tick at 2.5 would have no meaning.
    integers_only = all(value == round(value) for value in values)
    ticks = _ticks_within(low, high, integers_only=integers_only)
    return Axis(low, high, tuple(ticks), _labels(ticks))


def y_axis(figure: Figure) -> Axis:
    """Return the vertical axis: `y_limits` if given, else all values and most of the bands."""
    values: list[float] = []
    bounds: list[float] = []
    for series in figure.series:
        for _, y, low, high in series.points():
            values.append(y)
            bounds += [low, high]
    values = [value for value in values if math.isfinite(value)]
    bounds = [bound for bound in bounds if math.isfinite(bound)]
    if figure.y_log:
        positive_values = [value for value in values if value > 0]
        positive_bounds = [bound for bound in bounds if bound > 0]
        return _log_axis(figure, positive_values, positive_bounds)
    return linear_axis(values, bounds, figure.y_limits)


def linear_axis(
    values: list[float], bounds: list[float], limits: tuple[float, float] | None = None
) -> Axis:
    """Return a linear axis that contains all values and most of their bounds.

    Args:
        values: Finite values.
        bounds: Finite ends of intervals. The interval of two seeds can be wider than the whole
            figure, so bounds extend the range of the values by at most half on each side.
        limits: Replace the computed range.
    """
    if limits is not None:
        low, high = limits
    else:
        low, high = _span(values)
        reach = 0.5 * (high - low)
        low, high = max(min([low, *bounds]), low - reach), min(max([high, *bounds]), high + reach)
        low = max(low, 0.0) if min(values, default=0.0) >= 0 else low
        from_zero = 0 <= low <= 0.45 * high
        margin = 0.04 * (high - low)
        low, high = 0.0 if from_zero else low - margin, high + margin
    ticks = _ticks_within(low, high)
    return Axis(low, high, tuple(ticks), _labels(ticks))


def _log_axis(figure: Figure, values: list[float], bounds: list[float]) -> Axis:
    low, high = figure.y_limits or (min(values, default=1.0), max(values, default=10.0))
    if figure.y_limits is None:
        reach = math.sqrt(high / low)
        lowest = max(min([low, *bounds]), low / reach)
        highest = min(max([high, *bounds]), high * reach)
        low, high = lowest / 1.15, highest * 1.15
    num_decades = math.log10(high / low)
    every = max(1, math.ceil(num_decades / NUM_TICKS))
    first, last = math.floor(math.log10(low) / every) * every, math.ceil(math.log10(high))
    factors = (1, 2, 5) if num_decades < 3 else (1,)
    powers = range(first, last + 1, every)
    ticks = [factor * 10.0**power for power, factor in itertools.product(powers, factors)]
    ticks = [tick for tick in ticks if low <= tick <= high] or [low, high]
    return Axis(low, high, tuple(ticks), _log_labels(ticks), log=True)


def _span(values: Iterable[float]) -> tuple[float, float]:
    """Return the range of the values, widened if it is empty or a single value."""
    finite = list(values)
    low, high = min(finite, default=0.0), max(finite, default=1.0)
    if high - low <= 1e-12 * max(abs(low), abs(high), 1e-300):
        margin = abs(low) / 2 or 0.5
        return low - margin, high + margin
    return low, high


def _ticks_within(low: float, high: float, *, integers_only: bool = False) -> list[float]:
    """Return about NUM_TICKS multiples of 1, 2, 2.5 or 5 times a power of ten in [low, high]."""
    min_step = (high - low) / (NUM_TICKS - 1)
    power = 10.0 ** math.floor(math.log10(min_step))
    factors = (1, 2, 5, 10) if integers_only and power <= 1 else (1, 2, 2.5, 5, 10)
    step = next(factor * power for factor in factors if factor * power >= min_step * 0.999)
    start, stop = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    ticks = [index * step for index in range(start, stop + 1)]
    return [tick for tick in ticks if low <= tick <= high]


def _labels(ticks: Iterable[float]) -> tuple[str, ...]:
    """Return texts with as many decimals as needed; thousands are k, millions are M."""
    values = list(ticks)
    largest = max((abs(value) for value in values), default=0.0)
    if largest and (largest < 1e-4 or largest >= 1e10):
        return tuple(_with_minus_sign(f"{value:.3g}") for value in values)
    unit, suffix = 1.0, ""
    if largest >= 2e6:
        unit, suffix = 1e6, "M"
    elif largest >= 1e4:
        unit, suffix = 1e3, "k"
    scaled = [value / unit for value in values]
    decimals = _needed_decimals(scaled, tolerance=1e-6 * largest / unit)
    labels = []
    for value in scaled:
        digits = f"{value:.{decimals}f}"
        labels.append("0" if float(digits) == 0 else _with_minus_sign(digits + suffix))
    return tuple(labels)


def _needed_decimals(values: list[float], tolerance: float) -> int:
    for decimals in range(9):
        if all(abs(round(value, decimals) - value) <= tolerance for value in values):
            return decimals
    return 9


def _with_minus_sign(text: str) -> str:
    return text.replace("-", "\N{MINUS SIGN}")


def _log_labels(ticks: list[float]) -> tuple[str, ...]:
    if min(ticks) >= 1e-3 and max(ticks) < 1e5:
        return tuple(f"{value:.4g}" for value in ticks)
    return tuple(_power_of_ten(value) for value in ticks)


def _power_of_ten(value: float) -> str:
    if value == 1:
        return "1"
    superscripts = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
    exponent = math.floor(math.log10(value) + 1e-9)
    factor = round(value / 10.0**exponent)
    return ("" if factor == 1 else f"{factor}·") + "10" + str(exponent).translate(superscripts)
