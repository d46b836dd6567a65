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
        averaged.append((statistics.fmean(int(record["step"]) for record in one), statistics.fmean(_number(record[key]) for record in one)))
    return averaged if len(averaged) >= 8 else [(int(record["step"]), _number(record[key])) for record in chosen]


def seeds_series(name: str, curves: Mapping[int, Curve], *, group: str, dashed: bool = False, everywhere: bool = False) -> list[Series]:
    """Curves by seed as series: each seed pale behind their mean, bold or dashed, and its 95 % interval; one seed is its own mean.

    The mean is taken at the places that all seeds have, or `everywhere`, at those that any has. The interval is Student's, at each place by
    itself, as wide as so few seeds make it. Where a seed diverged (nan) is a gap: the mean of the others would flatter.
    """
    present = {seed: dict(points) for seed, points in sorted(curves.items()) if points}
    if not present:
        return []
    single = len(present) == 1
    places = sorted((set.union if everywhere else set.intersection)(*map(set, present.values())))
    numbers = [summary([points[x] for points in present.values() if x in points]) for x in places]
    whole = [one if one.num_diverged == 0 else None for one in numbers]
    low = None if single else [None if one is None else one.interval_low for one in whole]
    high = None if single else [None if one is None else one.interval_high for one in whole]
    means, label = [None if one is None else one.mean for one in whole], name if single else f"{name}, mean of {len(present)} seeds"
    mean = Series(label, places, means, "dashed" if dashed else "line", group, low, high)
    pale: Style = "thin-dashed" if dashed else "thin"
    behind = {} if single else present
    return [*(Series(f"{name}, seed {seed}", [*points], [*points.values()], pale, group) for seed, points in behind.items()), mean]


def bands(num_seeds: int) -> str:
    """For captions, from the space on: what a band is, where there are any."""
    said = " Bands are 95 % intervals of the mean over seeds, each point's by itself, cut at the axis; dotted where that is dashed."
    return said if num_seeds > 1 else ""


def error_styles(num_seeds: int, evaluated: str = "test") -> dict[Style, str]:
    """What the strokes stand for where training and `evaluated` error share a figure, with a key for single seeds where there are
    several."""
    means: dict[Style, str] = {"dashed": "training error", "line": f"{evaluated} error"}
    if num_seeds < 2:
        return means
    singles: dict[Style, str] = {"thin-dashed": "training error, each seed", "thin": f"{evaluated} error, each seed"}
    return {style: f"{said}, mean" for style, said in means.items()} | singles


def _number(value: Any) -> float:
    return math.nan if value is None else float(value)
