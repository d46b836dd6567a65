"""The paper's Fig. 7: standard deviations of layer responses, in network order and sorted, one net or several side by side.

Legend: a net's runs (its seeds) are lists of one number a layer, all in network order and of one length.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence

from reslearn.report.content import Figure, Series
from reslearn.report.curves import interval_note, seeds_series
from reslearn.runs import RunError, RunFolder

Runs = Sequence[Sequence[float | None]]


def response_figures(nets: Mapping[str, Runs]) -> list[Figure]:
    """Left in network order, right sorted from the greatest, as the paper's upper and lower part: each run, and the mean of a net's."""
    seeds = sorted({len(runs) for runs in nets.values()})
    number = seeds[0] if len(seeds) == 1 else f"{seeds[0]} to {seeds[-1]}"
    values = [value for runs in nets.values() for run in runs for value in run if value is not None]
    # Layers of a net that does not train can respond ten times as strongly as all others, which would then be one flat line.
    log = min(values, default=0.0) > 0 and max(values) > 5 * statistics.median(values)
    means = (
        ""
        if seeds == [1]
        else f" Bold: means over {number} seeds; pale: each seed.{interval_note(seeds[-1], log=log)}"
    )
    by_size = {name: [_sorted(run) for run in runs] for name, runs in nets.items()}
    return [
        Figure(
            key,
            title,
            f"As the paper's figure 7, {part}.{means}",
            label,
            "standard deviation",
            _lines(drawn, log=log),
            y_log=log,
        )
        for key, title, part, label, drawn in (
            ("responses", "In network order", "top", "layer", nets),
            (
                "responses-sorted",
                "Sorted by strength",
                "bottom",
                "layer, from the strongest",
                by_size,
            ),
        )
    ]


def responses_of(folder: RunFolder) -> list[float | None] | None:
    """One number a layer from analysis/responses.json; None where the run has none. RunError where it is something else."""
    record = folder.analysis("responses")
    if record is None:
        return None
    try:
        return [layer["standard_deviation"] for layer in record["layers"]]
    except TypeError:
        raise RunError(
            f"{folder.path / 'analysis' / 'responses.json'}: not what `reslearn analyze` writes; run it again"
        ) from None


def _lines(nets: Mapping[str, Runs], *, log: bool) -> list[Series]:
    series = []
    for name, runs in nets.items():
        by_run = {
            number: list(enumerate(map(_number, run), 1)) for number, run in enumerate(runs, 1)
        }
        series += seeds_series(name, by_run, group=name, log=log)
    return series


def _sorted(run: Sequence[float | None]) -> list[float | None]:
    return sorted(run, key=lambda value: -1.0 if value is None else value, reverse=True)


def _number(value: float | None) -> float:
    return math.nan if value is None else value
