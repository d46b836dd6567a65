"""The paper's Fig. 7: standard deviations of layer responses, in network order and sorted.

The responses of one run are one number per layer, in network order. A network has one list of
responses per run (seed).
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence

from reslearn.report.content import Figure, Series
from reslearn.report.curves import interval_note, range_text, seeds_series
from reslearn.runs import RunError, RunFolder, read_analysis

LayerResponses = Sequence[float | None]


def response_figures(networks: Mapping[str, Sequence[LayerResponses]]) -> list[Figure]:
    """Return two figures: layers in network order (the top of Fig. 7), and sorted (the bottom).

    Args:
        networks: For each network, the responses of each run.
    """
    log = _needs_log_axis(networks)
    note = _seeds_note([len(runs) for runs in networks.values()], log=log)
    in_order = Figure(
        name="responses",
        title="In network order",
        caption=f"As the top of the paper's figure 7.{note}",
        x_label="layer",
        y_label="standard deviation",
        series=_series(networks, log=log),
        y_log=log,
    )
    sorted_networks = {name: [_sorted(run) for run in runs] for name, runs in networks.items()}
    by_strength = Figure(
        name="responses-sorted",
        title="Sorted by strength",
        caption=f"As the bottom of the paper's figure 7.{note}",
        x_label="layer, strongest first",
        y_label="standard deviation",
        series=_series(sorted_networks, log=log),
        y_log=log,
    )
    return [in_order, by_strength]


def read_responses(folder: RunFolder) -> LayerResponses | None:
    """Return one number per layer from analysis/responses.json; None if the run has no such file.

    Raises:
        RunError: If the file is not the output of `reslearn analyze`.
    """
    record = read_analysis(folder, "responses")
    if record is None:
        return None
    try:
        return [layer["standard_deviation"] for layer in record["layers"]]
    except TypeError:
        path = folder.path / "analysis" / "responses.json"
        raise RunError(
            f"{path} is not the output of `reslearn analyze`; run the command again"
        ) from None


def _needs_log_axis(networks: Mapping[str, Sequence[LayerResponses]]) -> bool:
    """Return whether a linear axis would show most layers as one flat line.

    Some layers of a network that does not train respond ten times as strongly as the others.
    """
    values: list[float] = []
    for runs in networks.values():
        for run in runs:
            values += [value for value in run if value is not None]
    return min(values, default=0.0) > 0 and max(values) > 5 * statistics.median(values)


def _seeds_note(num_runs: Sequence[int], *, log: bool) -> str:
    if max(num_runs) == 1:
        return ""
    note = f" Bold: mean over {range_text(num_runs)} seeds. Pale: single seeds."
    return note + interval_note(*num_runs, log=log)


def _series(networks: Mapping[str, Sequence[LayerResponses]], *, log: bool) -> list[Series]:
    series = []
    for name, runs in networks.items():
        curves = {}
        for number, run in enumerate(runs, 1):
            values = [math.nan if value is None else value for value in run]
            curves[number] = list(enumerate(values, 1))
        series += seeds_series(name, curves, group=name, log=log)
    return series


def _sorted(run: LayerResponses) -> list[float | None]:
    """Sort from the strongest response; missing values come last."""
    return sorted(run, key=lambda value: -1.0 if value is None else value, reverse=True)
