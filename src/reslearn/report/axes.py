"""Axes of a figure: range, ticks and their labels, shared by the inline SVG and the PNG so that both show the same picture.

Place in the paper: iterations are labeled as there (10k, 20k), depths by the depths themselves (20, 32, 44, 56).
A fraction is a place on an axis: 0 at its low end, 1 at its high end.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable
from dataclasses import dataclass

from reslearn.report.content import Figure

NUM_TICKS = 6
NUM_MARKED_POINTS = 24
"""Series up to this long have a marker at every point; longer ones at a few, so that a curve stays a curve."""


@dataclass(frozen=True, slots=True)
class Axis:
    """One axis. `ticks` are values, `labels` their texts."""

    low: float
    high: float
    ticks: tuple[float, ...]
    labels: tuple[str, ...]
    log: bool = False

    def fraction(self, value: float) -> float:
        """Where `value` lies, 0..1 within the axis; NaN for what cannot be drawn (not finite, or no logarithm)."""
        if not math.isfinite(value) or (self.log and value <= 0):
            return math.nan
        if self.log:
            return math.log(value / self.low) / math.log(self.high / self.low)
        return (value - self.low) / (self.high - self.low)


def x_axis(figure: Figure) -> Axis:
    """From the first to the last x (from 0 where that is near); short series get a little room and, where they fit, ticks at the points."""
    values = sorted({x for series in figure.series for x in series.x if math.isfinite(x)})
    low, high = _span(values)
    marked = all(len(series.x) <= NUM_MARKED_POINTS for series in figure.series)
    if marked:
        room = 0.04 * (high - low)
        low, high = low - room, high + room
        gaps = [b - a for a, b in itertools.pairwise(values)]
        if 0 < len(values) <= 10 and all(gap >= 0.07 * (high - low) for gap in gaps):
            return Axis(low, high, tuple(values), _labels(values))
    elif 0 < low <= 0.1 * high:
        low = 0.0
    whole = all(value == round(value) for value in values)  # there is no layer 2.5
    ticks = [tick for tick in _nice_ticks(low, high, whole=whole) if low <= tick <= high]
    return Axis(low, high, tuple(ticks), _labels(ticks))


def y_axis(figure: Figure) -> Axis:
    """Around all values and most of the bands, from zero where that wastes no room; cut to `y_limits` where given."""
    points = [point for series in figure.series for point in series.points()]
    values = [y for _, y, _, _ in points if math.isfinite(y)]
    bounds = [bound for _, _, low, high in points for bound in (low, high) if math.isfinite(bound)]
    if figure.y_log:
        return _log_axis(
            figure, [v for v in values if v > 0], [bound for bound in bounds if bound > 0]
        )
    return linear_axis(values, bounds, figure.y_limits)


def linear_axis(
    values: list[float], bounds: list[float], limits: tuple[float, float] | None = None
) -> Axis:
    """Around all of `values` and most of their `bounds`, all finite, or from one of `limits` to the other."""
    if limits is not None:
        low, high = limits
    else:
        low, high = _span(values)
        # The interval of two seeds can be wider than the whole figure: bands widen the axis, but never flatten the curves.
        reach = 0.5 * (high - low)
        low, high = max(min([low, *bounds]), low - reach), min(max([high, *bounds]), high + reach)
        low = max(low, 0.0) if min(values, default=0.0) >= 0 else low
        from_zero = 0 <= low <= 0.45 * high
        room = 0.04 * (high - low)
        low, high = 0.0 if from_zero else low - room, high + room
    ticks = [tick for tick in _nice_ticks(low, high) if low <= tick <= high]
    return Axis(low, high, tuple(ticks), _labels(ticks))


def _log_axis(figure: Figure, values: list[float], bounds: list[float]) -> Axis:
    low, high = figure.y_limits or (min(values, default=1.0), max(values, default=10.0))
    if figure.y_limits is None:
        reach = math.sqrt(high / low)
        low, high = (
            max(min([low, *bounds]), low / reach) / 1.15,
            min(max([high, *bounds]), high * reach) * 1.15,
        )
    num_decades = math.log10(high / low)
    every = max(1, math.ceil(num_decades / NUM_TICKS))
    first, last = math.floor(math.log10(low) / every) * every, math.ceil(math.log10(high))
    factors = (1, 2, 5) if num_decades < 3 else (1,)
    ticks = [factor * 10.0**power for power in range(first, last + 1, every) for factor in factors]
    ticks = [tick for tick in ticks if low <= tick <= high] or [low, high]
    return Axis(low, high, tuple(ticks), _log_labels(ticks), log=True)


def _span(values: Iterable[float]) -> tuple[float, float]:
    present = list(values)
    low, high = min(present, default=0.0), max(present, default=1.0)
    if high - low <= 1e-12 * max(abs(low), abs(high), 1e-300):
        room = abs(low) / 2 or 0.5
        return low - room, high + room
    return low, high


def _nice_ticks(low: float, high: float, *, whole: bool = False) -> list[float]:
    """Multiples of 1, 2, 2.5 or 5 times a power of ten that enclose [low, high], about NUM_TICKS of them; no 2.5 where `whole`."""
    rough = (high - low) / (NUM_TICKS - 1)
    power = 10.0 ** math.floor(math.log10(rough))
    factors = (1, 2, 5, 10) if whole and power <= 1 else (1, 2, 2.5, 5, 10)
    step = next(factor * power for factor in factors if factor * power >= rough * 0.999)
    start, stop = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [index * step for index in range(start, stop + 1)]


def _labels(ticks: Iterable[float]) -> tuple[str, ...]:
    """Texts with as many decimals as the ticks need, thousands as k and millions as M, and a true minus sign."""
    values = list(ticks)
    largest = max((abs(v) for v in values), default=0.0)
    unit, suffix = (1e6, "M") if largest >= 2e6 else (1e3, "k") if largest >= 1e4 else (1.0, "")
    if largest and (largest < 1e-4 or largest >= 1e10):
        return tuple(f"{v:.3g}".replace("-", "\N{MINUS SIGN}") for v in values)
    scaled = [v / unit for v in values]
    decimals = next(
        (d for d in range(9) if all(abs(round(v, d) - v) <= 1e-6 * largest / unit for v in scaled)),
        9,
    )
    texts = [f"{v:.{decimals}f}" + (suffix if v else "") for v in scaled]
    return tuple(
        ("0" if float(text.rstrip("kM")) == 0 else text).replace("-", "\N{MINUS SIGN}")
        for text in texts
    )


def _log_labels(ticks: list[float]) -> tuple[str, ...]:
    if min(ticks) >= 1e-3 and max(ticks) < 1e5:
        return tuple(f"{value:.4g}" for value in ticks)
    return tuple(_power(value) for value in ticks)


def _power(value: float) -> str:
    if value == 1:
        return "1"
    superscripts = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
    exponent = math.floor(math.log10(value) + 1e-9)
    factor = round(value / 10.0**exponent)
    return ("" if factor == 1 else f"{factor}·") + "10" + str(exponent).translate(superscripts)
