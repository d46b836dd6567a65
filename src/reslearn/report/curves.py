"""Lines of metrics.jsonl to curves: one run's, and several seeds' as thin lines behind their mean.

Place in the paper: figures 1, 4 and 6. Training error is that of the running batches, as there; it is averaged over about an
epoch so that a curve can be read.
Legend: a curve is a list of (step, value), steps rising.
"""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Iterable, Mapping
from typing import Any

from reslearn.report.content import Series

Curve = list[tuple[int, float]]
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
        averaged.append((int(one[-1]["step"]), statistics.fmean(_number(record[key]) for record in one)))
    return averaged if len(averaged) >= 8 else [(int(record["step"]), _number(record[key])) for record in chosen]


def seeds_series(
    name: str,
    curves: Mapping[int, Curve],
    *,
    group: str,
    dashed: bool = False,
    single: bool = True,
) -> list[Series]:
    """Curves by seed as series: each seed thin (`single`), their mean bold or dashed at the steps that all have.

    One seed is its own mean. No band: an interval at every step of a curve says more than a few correlated points know.
    """
    present = {seed: points for seed, points in curves.items() if points}
    if not present:
        return []
    common = sorted(set.intersection(*({step for step, _ in points} for points in present.values())))
    by_step = [dict(points) for points in present.values()]
    values = [[points[step] for points in by_step] for step in common]
    made = []
    if single and len(present) > 1:
        for seed, points in sorted(present.items()):
            made.append(Series(f"{name}, seed {seed}", [s for s, _ in points], [v for _, v in points], "thin", group))
    label = f"{name}, mean of {len(present)} seeds" if len(present) > 1 else name
    made.append(Series(label, common, [statistics.fmean(at) for at in values], "dashed" if dashed else "line", group))
    return made


def _number(value: Any) -> float:
    return math.nan if value is None else float(value)
