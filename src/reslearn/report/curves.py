"""Lines of metrics.jsonl to curves: one run's, and several seeds' as pale lines behind their mean and its interval.

Place in the paper: figures 1, 4 and 6. Training error is that of the running batches, as there; it is averaged over about an
epoch, and drawn at its middle, so that a curve can be read.
Legend: a curve is a list of (step, value), steps rising; of other figures, of (place across, value).
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
"""Up to so many training lines are drawn as they are; more are averaged over whole epochs."""


def curve(records: Iterable[Record], kind: str, key: str) -> Curve:
    """`key` of the records of one kind; training lines averaged by epoch where there are many. What has no number is a gap."""
    chosen = [record for record in records if record.get("kind") == kind and key in record]
    if kind != "train" or len(chosen) <= NUM_SINGLE_POINTS:
        return [(int(record["step"]), _number(record[key])) for record in chosen]
    epochs = itertools.groupby(chosen, key=lambda record: math.ceil(record["epoch"] - 1e-6))
    averaged = []
    for _, group in epochs:
        one = list(group)
        averaged.append(
            (
                statistics.fmean(int(record["step"]) for record in one),
                statistics.fmean(_number(record[key]) for record in one),
            )
        )
    return (
        averaged
        if len(averaged) >= 8
        else [(int(record["step"]), _number(record[key])) for record in chosen]
    )


def seeds_series(
    name: str,
    curves: Mapping[int, Curve | None],
    *,
    group: str,
    dashed: bool = False,
    include_partial: bool = False,
    log: bool = False,
) -> list[Series]:
    """Curves by seed as series: each seed pale behind their mean, bold or dashed, and its 95 % interval; one seed is its own mean.

    The mean is taken at the places that all seeds have, or `include_partial`, at those that any has. The interval is Student's, at each place by
    itself, as wide as so few seeds make it; for a `log` axis of the logarithms, so that the mean is geometric. Where a seed has no number
    (nan), and wherever one was lost altogether (None), is a gap: the mean of the others would flatter.
    """
    present = {seed: dict(points) for seed, points in sorted(curves.items()) if points}
    if not present:
        return []
    places = sorted(
        (set.union if include_partial else set.intersection)(*map(set, present.values()))
    )
    lost = [math.nan] * sum(points is None for points in curves.values())
    means = [
        _mean([*lost, *(points[x] for points in present.values() if x in points)], log=log)
        for x in places
    ]
    bold: Style = "dashed" if dashed else "line"
    if len(present) == 1 and not lost:
        return [Series(name, places, [mean for mean, _, _ in means], bold, group)]
    pale: Style = "thin-dashed" if dashed else "thin"
    singles = [
        Series(f"{name}, seed {seed}", [*points], [*points.values()], pale, group)
        for seed, points in present.items()
    ]
    middle, low, high = zip(*means, strict=True) if means else ((), (), ())
    return [
        *singles,
        Series(
            f"{name}, mean of {len(lost) + len(present)} seeds",
            places,
            middle,
            bold,
            group,
            low,
            high,
        ),
    ]


def _mean(values: Sequence[float], *, log: bool) -> tuple[float, float, float]:
    """The mean, and both ends of its interval; nan for what there is not."""
    if not all(math.isfinite(value) and (value > 0 or not log) for value in values):
        return math.nan, math.nan, math.nan
    found = summary([math.log(value) for value in values] if log else values)
    low, high = found.interval or (math.nan, math.nan)
    if log:
        return math.exp(found.mean), math.exp(max(low, -700.0)), math.exp(min(high, 700.0))
    return found.mean, low, high


def interval_note(num_seeds: int, *, log: bool = False) -> str:
    """For captions, from the space on: what a band is, where there are any."""
    said = " Bands are 95 % intervals of the mean over seeds, each point's by itself, cut at the axis; dotted where that is dashed."
    return (
        (said + (" Means are geometric, as the axis is." if log else "")) if num_seeds > 1 else ""
    )


def error_styles(num_seeds: int, evaluated: str = "test") -> dict[Style, str]:
    """What the strokes stand for where training and `evaluated` error share a figure, with a key for single seeds where there are
    several."""
    means: dict[Style, str] = {"dashed": "training error", "line": f"{evaluated} error"}
    if num_seeds < 2:
        return means
    singles: dict[Style, str] = {
        "thin-dashed": "training error, each seed",
        "thin": f"{evaluated} error, each seed",
    }
    return {style: f"{said}, mean" for style, said in means.items()} | singles


def _number(value: Any) -> float:
    return math.nan if value is None else float(value)
