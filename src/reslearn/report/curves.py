"""Curves from the lines of metrics.jsonl: one run, or several seeds with their mean and interval.

The figures follow figures 1, 4 and 6 of the paper. As there, training error is measured on the
running batches. It is averaged over about one epoch and drawn at the middle of the epoch, so that
the curve is readable.

A curve is a list of (step, value) pairs with rising steps. In other figures, the first number is
another position on the horizontal axis.
"""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from reslearn.report.content import Series, Style
from reslearn.study import summary

Curve = Sequence[tuple[float, float]]
Record = Mapping[str, Any]

NUM_SINGLE_POINTS = 60
"""Up to this many training lines are drawn unchanged; more lines are averaged over epochs."""
MIN_EPOCHS = 8
"""Fewer epochs than this would leave too few points, so the lines are drawn unchanged."""


def curve(records: Iterable[Record], kind: str, key: str) -> Curve:
    """Return the values of `key` in the records of one kind; None becomes NaN.

    Many training lines are averaged by epoch.
    """
    lines = [record for record in records if record.get("kind") == kind and key in record]
    points = [(int(line["step"]), _to_float(line[key])) for line in lines]
    if kind != "train" or len(lines) <= NUM_SINGLE_POINTS:
        return points
    averaged = []
    for _, group in itertools.groupby(lines, key=lambda line: math.ceil(line["epoch"] - 1e-6)):
        epoch_lines = list(group)
        step = statistics.fmean(int(line["step"]) for line in epoch_lines)
        value = statistics.fmean(_to_float(line[key]) for line in epoch_lines)
        averaged.append((step, value))
    return averaged if len(averaged) >= MIN_EPOCHS else points


def learning_rate_curve(records: Iterable[Record]) -> Curve:
    """Return the learning rate at the steps between which it is constant or changes evenly.

    Lines of kind "lr" tell the rate at a change and in the step before. Runs of earlier versions
    have only the rates of their readings, so a change is drawn between two of them.
    """
    rates: dict[int, float] = {}
    for record in records:
        if record.get("kind") not in ("train", "lr") or record.get("lr") is None:
            continue
        step = int(record["step"])
        rates[step] = float(record["lr"])
        if record.get("previous_lr") is not None:
            rates[step - 1] = float(record["previous_lr"])
    points = sorted(rates.items())
    corners = []
    for index, (step, rate) in enumerate(points):
        # The first point and the last one have one neighbor.
        neighbors = points[max(0, index - 1) : index + 2]
        if len(neighbors) < 3 or {neighbor for _, neighbor in neighbors} != {rate}:
            corners.append((step, rate))
    return corners


def seeds_series(
    name: str,
    curves: Mapping[int, Curve | None],
    *,
    group: str,
    dashed: bool = False,
    include_partial: bool = False,
    log: bool = False,
) -> list[Series]:
    """Return one pale series per seed and a series of their mean with its 95 % interval.

    A single seed gives one series, which is its own mean. The interval is Student's t interval,
    computed at each point separately. The mean has a gap where a seed has no number (NaN), and
    everywhere if a seed was lost (None): the mean of the other seeds would be too optimistic.

    Args:
        name: Name of the network, to which the seed or "mean of N seeds" is appended.
        curves: The curve of each seed; None for a run that was lost.
        group: Group of all series (color, marker and legend entry).
        dashed: Whether the curves are training errors, which are dashed.
        include_partial: Whether the mean includes positions that only some seeds have.
        log: Whether the axis is logarithmic. Then the mean is geometric, and the interval is
            computed from the logarithms.
    """
    points_by_seed = {seed: dict(points) for seed, points in sorted(curves.items()) if points}
    if not points_by_seed:
        return []
    combine = set.union if include_partial else set.intersection
    positions = sorted(combine(*(set(points) for points in points_by_seed.values())))
    lost = [math.nan] * sum(points is None for points in curves.values())
    means = []
    for x in positions:
        values = [points[x] for points in points_by_seed.values() if x in points]
        means.append(_mean_and_interval([*lost, *values], log=log))
    bold: Style = "dashed" if dashed else "line"
    if len(points_by_seed) == 1 and not lost:
        return [Series(name, positions, [mean for mean, _, _ in means], bold, group)]
    pale: Style = "thin-dashed" if dashed else "thin"
    series = []
    for seed, points in points_by_seed.items():
        series.append(Series(f"{name}, seed {seed}", [*points], [*points.values()], pale, group))
    mean, low, high = zip(*means, strict=True) if means else ((), (), ())
    mean_name = f"{name}, mean of {len(lost) + len(points_by_seed)} seeds"
    series.append(Series(mean_name, positions, mean, bold, group, low, high))
    return series


def interval_note(*num_seeds: int, log: bool = False) -> str:
    """Return the sentences of a caption that explain the shading, with a space before them.

    Args:
        num_seeds: The number of seeds, or the numbers of seeds of several networks.
        log: Whether the vertical axis is logarithmic, so that means are geometric.
    """
    if max(num_seeds, default=0) < 2:
        return ""
    note = (
        f" Shading: 95 % confidence interval of the mean ({range_text(num_seeds)} seeds), computed"
        " at each point and cut off at the axis. For dashed curves, dotted lines mark the interval."
    )
    return note + " Means are geometric, to match the logarithmic axis." * log


def range_text(numbers: Sequence[int]) -> str:
    """Return "4" if all numbers are 4, or "1 to 3" for their range."""
    smallest, largest = min(numbers), max(numbers)
    return f"{largest}" if smallest == largest else f"{smallest} to {largest}"


def error_styles(num_seeds: int, evaluated: str = "test") -> dict[Style, str]:
    """Return the meaning of each style in a figure of training and `evaluated` error.

    Several seeds add the styles of single seeds.
    """
    if num_seeds < 2:
        return {"dashed": "training error", "line": f"{evaluated} error"}
    return {
        "dashed": "training, mean",
        "line": f"{evaluated}, mean",
        "thin-dashed": "training, each seed",
        "thin": f"{evaluated}, each seed",
    }


def _mean_and_interval(values: Sequence[float], *, log: bool) -> tuple[float, float, float]:
    """Return the mean and both ends of its interval; NaN for numbers that do not exist."""
    if not all(math.isfinite(value) and (value > 0 or not log) for value in values):
        return math.nan, math.nan, math.nan
    numbers = summary([math.log(value) for value in values] if log else values)
    low, high = numbers.interval or (math.nan, math.nan)
    if log:
        return math.exp(numbers.mean), math.exp(max(low, -700.0)), math.exp(min(high, 700.0))
    return numbers.mean, low, high


def _to_float(value: Any) -> float:
    return math.nan if value is None else float(value)
