"""A study as a page: conditions with mean, spread and interval, curves of training and test error, error against depth, verdicts.

Place in the paper: table 6 and figures 1 and 6, with several seeds instead of one. All numbers come from `study`; here they are
only set and drawn.
"""

from __future__ import annotations

import math
import shlex
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import Any

from reslearn.report.content import (
    Cell,
    Code,
    Column,
    Facts,
    Figure,
    Item,
    Page,
    Panels,
    Section,
    Series,
    Table,
)
from reslearn.report.curves import Curve, curve, error_styles, interval_note, seeds_series
from reslearn.report.responses import response_figures, responses_of
from reslearn.report.run import device_name, environment_facts, format_duration
from reslearn.runs import RunFolder
from reslearn.study import (
    Interval,
    Summary,
    degradation_verdicts,
    differences,
    table,
    training_field,
)
from reslearn.study.collect import Collection, Row, RunGroup, StudyTable, names_of
from reslearn.study.verdicts import MARGIN_PCT

TEST = "test_top1_error_pct"


def study_page(
    found: Collection, *, title: str = "Study", subtitle: str = "", margin_pct: float = MARGIN_PCT
) -> Page:
    """The page of all runs `found` by `reslearn.study.collect`. `margin_pct` is the degradation rule's margin.

    Raises ValueError where there is no complete run, RunError where a run cannot be read.
    """
    if not found.rows:
        raise ValueError(
            f"{title}: no complete run was found, and a page of a study needs at least one"
            + _first_reason(found)
        )
    training = training_field(found.rows)
    conditions = table(
        found.rows,
        fields=(training, "validation_top1_error_pct", TEST),
        incomplete=found.incomplete,
    )
    names = names_of(conditions.groups)
    sections = [
        Section(
            "Conditions",
            "",
            [_conditions(conditions, names, found.rows, training), *conditions.notes],
        ),
        Section("Differences", "", _differences(found.rows, training)),
        Section("Does training error degrade with depth?", "", _verdicts(found.rows, margin_pct)),
        Section("Error against depth", "", _depth_figure(conditions, found.rows, training)),
        Section("Training", "", _curve_figures(conditions, names, found.rows)),
        Section("Responses of layers", "", _responses(conditions, names, found.rows)),
        Section("How to repeat it", "", _repeat(found.rows)),
    ]
    return Page(
        title, subtitle or _subtitle(conditions), [s for s in sections if s.items], _facts(found)
    )


def _first_reason(found: Collection) -> str:
    return (
        f" ({found.incomplete[0].folder}: {found.incomplete[0].reason})" if found.incomplete else ""
    )


def _subtitle(conditions: StudyTable) -> str:
    numbers = sorted({len(group.seeds) for group in conditions.groups})
    seeds = f"{numbers[0]}" if len(numbers) == 1 else f"{numbers[0]} to {numbers[-1]}"
    plural = "" if numbers == [1] else "s"
    many = "" if len(conditions.groups) == 1 else "s"
    return f"{len(conditions.groups)} condition{many}, {seeds} seed{plural} each. Errors are top-1, in per cent, at the last epoch."


def _facts(found: Collection) -> dict[str, str]:
    environments = [RunFolder.open(row.folder).environment for row in found.rows]
    seconds = sum(row.result.get("seconds") or 0.0 for row in found.rows)
    return {
        "data": ", ".join(
            sorted({str(row.recipe.get("data", {}).get("name", "")) for row in found.rows})
        ),
        "recipe": ", ".join(sorted({str(row.recipe.get("name", "")) for row in found.rows})),
        "runs": f"{len(found.rows)} complete"
        + (f", {len(found.incomplete)} not" if found.incomplete else ""),
        "time of all runs": format_duration(seconds),
        "device": "; ".join(sorted({device_name(environment) for environment in environments})),
    }


def _conditions(
    conditions: StudyTable, names: dict[tuple[str, str], str], rows: Sequence[Row], training: str
) -> Table:
    parameters = {(row.model, row.protocol): row.result.get("parameters") for row in rows}
    measured = [
        f
        for f in (training, "validation_top1_error_pct", TEST)
        if any(f in g.summaries for g in conditions.groups)
    ]
    said = {training: "training", "validation_top1_error_pct": "validation", TEST: "test"}
    columns: list[Column | str] = ["network", Column("parameters", ",", numeric=True), "n"]
    several = any(len(group.seeds) > 1 for group in conditions.groups)
    for field in measured:
        columns += [
            Column(said[field], numeric=True),
            *([Column("95 % interval", numeric=True)] if several else []),
        ]
    body = []
    for group in conditions.groups:
        cells: list[Cell] = [
            names[group.model, group.protocol],
            parameters[group.model, group.protocol],
            len(group.seeds),
        ]
        for field in measured:
            cells += _summary_cells(group.summaries.get(field))[: 1 + several]
        body.append(cells)
    recomputed = ", batch-norm statistics recomputed; test error with those that are saved"
    clean = recomputed if "recomputed" in training else ""
    spread = (
        "mean ± standard deviation over n seeds, and t interval"
        if several
        else "one seed, so that there is no interval"
    )
    caption = f"Top-1 error in per cent: {spread}. Training error on clean images{clean}."
    return Table(caption, columns, body)


def _summary_cells(numbers: Summary | None) -> list[Cell]:
    if numbers is None:
        return [None, None]
    spread = "" if numbers.standard_deviation is None else f" ± {numbers.standard_deviation:.2f}"
    mean = f"{numbers.mean:.2f}{spread}" if numbers.n else ""
    if numbers.num_diverged:
        mean += (
            f" ({numbers.num_diverged} diverged)"
            if numbers.n
            else f"{numbers.num_diverged} diverged"
        )
    interval = (
        f"{numbers.interval_low:.2f} to {numbers.interval_high:.2f}".replace("-", "\N{MINUS SIGN}")
        if numbers.interval
        else None
    )
    return [mean, interval]


def _differences(rows: Sequence[Row], training: str) -> list[Item]:
    tables: list[Item] = []
    for name, field in (("Training", training), ("Test", TEST)):
        body: list[Sequence[Cell]] = [
            (
                one.what,
                one.comparison.difference,
                _interval(one.comparison.interval),
                one.p,
                one.comparison.n_a,
            )
            for one in differences(rows, field=field)
        ]
        if body:
            columns: list[Column | str] = [
                "change",
                Column("difference", "+.2f", True),
                Column("95 % interval", numeric=True),
                Column("p", ".3f", True),
                "pairs",
            ]
            caption = (
                f"{name} error in points, paired by seed. p by Holm's correction for all lines of the table; intervals are of each line "
                "by itself."
            )
            tables.append(Table(caption, columns, body))
    return tables


def _interval(interval: Interval | None) -> str | None:
    return (
        None
        if interval is None
        else f"{interval.low:+.2f} to {interval.high:+.2f}".replace("-", "\N{MINUS SIGN}")
    )


def _verdicts(rows: Sequence[Row], margin_pct: float) -> list[Item]:
    body: list[Sequence[Cell]] = []
    for kind, verdict in degradation_verdicts(rows, margin_pct=margin_pct).items():
        told = (
            ("no verdict", verdict)
            if isinstance(verdict, str)
            else (verdict.answer, verdict.reason)
        )
        body.append((kind, *told))
    if not body:
        return []
    caption = f"Yes, no or undecided, by a rule fixed before the data were looked at. Margin in points of training error: {margin_pct:g}."
    return [Table(caption, ["networks", "answer", "because"], body)]


def _depth_figure(conditions: StudyTable, rows: Sequence[Row], training: str) -> list[Item]:
    groups = [group for group in conditions.groups if group.kind is not None]
    if len({group.depth for group in groups}) < 2:
        return []
    one_recipe = max(Counter((group.kind, group.depth) for group in groups).values()) == 1
    most_seeds = max(len(group.seeds) for group in groups)
    series: list[Series] = []
    for name, line in groupby(
        sorted(groups, key=lambda g: _line(g, one_recipe)), key=lambda g: _line(g, one_recipe)
    ):
        nets = {(group.model, group.protocol) for group in line}
        own = sorted(
            (row for row in rows if (row.model, row.protocol) in nets),
            key=lambda row: row.depth or 0,
        )
        for field, said in ((training, "training"), (TEST, "test")):
            curves: dict[int, list[tuple[float, float]]] = {}
            for row in own:
                if row.result.get(field) is not None:
                    curves.setdefault(row.seed, []).append(
                        (row.depth or 0, float(row.result[field]))
                    )
            series += seeds_series(
                f"{name}, {said}",
                curves,
                group=name,
                dashed=said == "training",
                include_partial=True,
            )
    caption = "Training error is on clean images." + interval_note(most_seeds)
    styles = error_styles(most_seeds)
    return [
        Figure(
            "error-against-depth",
            "Error against depth",
            caption,
            "layers",
            "top-1 error (%)",
            series,
            styles=styles,
        )
    ]


def _line(group: RunGroup, one_recipe: bool) -> str:
    return f"{group.kind}" if one_recipe else f"{group.kind} {group.protocol[:6]}"


def _curve_figures(
    conditions: StudyTable, names: dict[tuple[str, str], str], rows: Sequence[Row]
) -> list[Item]:
    records = {row.folder: RunFolder.open(row.folder).metrics() for row in rows}
    kind = _evaluated(records.values())
    by_kind: dict[str, list[Series]] = {}
    for group in conditions.groups:
        own = {
            r.seed: records[r.folder]
            for r in rows
            if (r.model, r.protocol) == (group.model, group.protocol)
        }
        name = names[group.model, group.protocol]
        training: dict[int, Curve] = {
            seed: curve(lines, "train", "top1_error_pct") for seed, lines in own.items()
        }
        evaluated: dict[int, Curve] = {
            seed: curve(lines, kind, "top1_error_pct") for seed, lines in own.items()
        }
        series = seeds_series(f"{name}, training", training, group=name, dashed=True)
        series += seeds_series(f"{name}, {kind}", evaluated, group=name)
        by_kind.setdefault(group.kind or "other", []).extend(series)
    most_seeds = max(len(group.seeds) for group in conditions.groups)
    styles = error_styles(most_seeds, kind)
    top = _common_top(by_kind.values())
    titles = {"plain": "Plain networks", "residual": "Residual networks", "other": "Networks"}
    caption = (
        "Training error is of the running, augmented batches, as in the paper's figure 6."
        + interval_note(most_seeds)
    )
    return [
        Panels(
            [
                Figure(
                    f"curves-{kind}",
                    titles[kind],
                    caption,
                    "iteration",
                    "top-1 error (%)",
                    series,
                    y_limits=(0.0, top),
                    styles=styles,
                )
                for kind, series in by_kind.items()
                if series
            ]
        )
    ]


def _responses(
    conditions: StudyTable, names: dict[tuple[str, str], str], rows: Sequence[Row]
) -> list[Item]:
    """Fig. 7 of all groups of which a run was looked into by `reslearn analyze RUN responses`."""
    nets = {}
    for group in conditions.groups:
        own = {
            row.seed: row.folder
            for row in rows
            if (row.model, row.protocol) == (group.model, group.protocol)
        }
        runs = [
            one
            for _, folder in sorted(own.items())
            if (one := responses_of(RunFolder.open(folder))) is not None
        ]
        if runs:
            nets[names[group.model, group.protocol]] = runs
    if not nets:
        return []
    said = (
        "Standard deviation of each 3x3 layer's output after batch norm, before ReLU and addition. It follows the learned gamma, and the "
        "spread of beta."
    )
    if len(nets) < len(conditions.groups):
        said += f" Looked into were: {', '.join(nets)}."
    return [said, Panels(response_figures(nets))]


def _evaluated(runs: Iterable[list[dict[str, Any]]]) -> str:
    """ "test" where the runs recorded a curve of it; else "validation" where they have that; else "test" for its one last point."""
    counts = [Counter(record.get("kind") for record in lines) for lines in runs]
    return (
        "validation"
        if all(count["test"] < 2 <= count["validation"] for count in counts)
        else "test"
    )


def _common_top(figures: Iterable[list[Series]]) -> float:
    """One height for all panels, so that they can be compared: the highest error after the first tenth of training, rounded up."""
    highest = 1.0
    for series in (one for figure in figures for one in figure):
        points = series.points()
        highest = max(
            [highest, *(y for _, y, _, _ in points[len(points) // 10 :] if math.isfinite(y))]
        )
    step = 5.0 if highest > 20 else 1.0
    return min(100.0, step * math.ceil(highest * 1.02 / step))


def _repeat(rows: Sequence[Row]) -> list[Item]:
    environments = [RunFolder.open(row.folder).environment for row in rows]
    commands = dict.fromkeys(
        shlex.join(map(str, one["command"])) for one in environments if one.get("command")
    )
    items: list[Item] = [Code("\n".join(commands), "Commands of the runs")] if commands else []
    return [*items, Facts(environment_facts(environments[0]), "Circumstances of the first run")]
