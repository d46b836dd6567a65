"""The page of a study: errors with spread and interval, curves, error against depth, verdicts.

The page follows table 6 and figures 1 and 6 of the paper, with several seeds instead of one. All
numbers come from `reslearn.study`; this module only arranges and draws them.
"""

from __future__ import annotations

import itertools
import math
import shlex
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
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
from reslearn.report.curves import (
    Curve,
    curve,
    error_styles,
    interval_note,
    range_text,
    seeds_series,
)
from reslearn.report.responses import read_responses, response_figures
from reslearn.report.run import device_name, environment_facts, format_duration
from reslearn.runs import RunFolder
from reslearn.study import (
    Interval,
    Summary,
    degradation_verdicts,
    differences,
    interval_text,
    number_text,
    table,
    training_field,
)
from reslearn.study.collect import (
    Collection,
    Incomplete,
    Row,
    RunGroup,
    StudyTable,
    names_of,
)
from reslearn.study.verdicts import MARGIN_PCT

TEST = "test_top1_error_pct"
VALIDATION = "validation_top1_error_pct"

Names = Mapping[tuple[str, str], str]
"""Display name of each configuration, by model and protocol (recipe and images)."""


def study_page(
    collection: Collection,
    *,
    title: str = "Study",
    subtitle: str = "",
    margin_pct: float = MARGIN_PCT,
) -> Page:
    """Return the page of all runs that `reslearn.study.collect` found.

    Args:
        collection: The runs.
        title: Title of the page.
        subtitle: Subtitle of the page. By default the numbers of configurations and seeds.
        margin_pct: Margin of the degradation rule, in percentage points of training error.

    Raises:
        ValueError: If no run is complete.
        RunError: If a run cannot be read.
    """
    rows = collection.rows
    if not rows:
        raise ValueError(f"{title}: {_why_no_page(collection.incomplete)}")
    training = training_field(rows)
    configurations = table(
        rows, fields=(training, VALIDATION, TEST), incomplete=collection.incomplete
    )
    names = names_of(configurations.groups)
    errors = _error_table(configurations, names, rows, training)
    notes = [_with_arrow(note) for note in configurations.notes]
    sections = [
        Section("Results", "", [errors, *notes]),
        Section("Differences", "", _difference_tables(rows, training)),
        Section("Does training error degrade with depth?", "", _verdicts(collection, margin_pct)),
        Section("Training", "", _curve_figures(configurations, names, rows)),
        Section("Responses of layers", "", _responses(configurations, names, rows)),
        Section("How to repeat it", "", _repeat(rows)),
    ]
    sections = [section for section in sections if section.items]
    return Page(
        title,
        subtitle or _subtitle(configurations),
        sections,
        _facts(collection),
        lead=_depth_figure(configurations, rows, training),
    )


def _why_no_page(incomplete: Sequence[Incomplete]) -> str:
    """Return why a study without a complete run has no page, and what to do."""
    if not incomplete:
        return (
            "no complete run was found: pass a run folder or the --out of `reslearn study`, as in: "
            "reslearn report runs/digits"
        )
    first, num_runs = incomplete[0], len(incomplete)
    runs = f"the only run is {first.folder}" if num_runs == 1 else f"the first is {first.folder}"
    text = f"no complete run was found among {num_runs}: {runs}: {first.reason}"
    if all(run.diverged is not None for run in incomplete):
        return f"{text}; every run diverged: change the recipe and choose another --out"
    return f"{text}; to finish a stopped run: reslearn train --resume --out RUN"


def _subtitle(configurations: StudyTable) -> str:
    num_seeds = [len(group.seeds) for group in configurations.groups]
    seeds = f"{range_text(num_seeds)} seed{'' if max(num_seeds) == 1 else 's'} each"
    count = len(configurations.groups)
    networks = f"{count} configuration{'' if count == 1 else 's'}"
    return f"{networks}, {seeds}. Errors are top-1, in percent, at the last epoch."


def _facts(collection: Collection) -> dict[str, str]:
    rows = collection.rows
    seconds = sum(row.result.get("seconds") or 0.0 for row in rows)
    runs = f"{len(rows)} complete"
    num_diverged = len(collection.diverged)
    if num_diverged:
        runs += f", {num_diverged} diverged"
    if num_incomplete := len(collection.incomplete) - num_diverged:
        runs += f", {num_incomplete} incomplete"
    data = {str(row.recipe.get("data", {}).get("name", "")) for row in rows}
    recipes = {str(row.recipe.get("name", "")) for row in rows}
    devices = {device_name(RunFolder.open(row.folder).environment) for row in rows}
    return {
        "data": ", ".join(sorted(data)),
        "recipe": ", ".join(sorted(recipes)),
        "runs": runs,
        "time of all runs": format_duration(seconds),
        "device": "; ".join(sorted(devices)),
    }


def _error_table(
    configurations: StudyTable, names: Names, rows: Sequence[Row], training: str
) -> Table:
    groups = configurations.groups
    parameters = {(row.model, row.protocol): row.result.get("parameters") for row in rows}
    heads = {training: "training", VALIDATION: "validation", TEST: "test"}
    fields = [field for field in heads if any(field in group.summaries for group in groups)]
    has_intervals = any(len(group.seeds) > 1 for group in groups)
    columns: list[Column | str] = ["network", Column("parameters", ",", numeric=True), "n"]
    for field in fields:
        columns.append(Column(heads[field], numeric=True))
        if has_intervals:
            columns.append(Column("95 % interval", numeric=True))
    body = []
    for group in groups:
        key = (group.model, group.protocol)
        cells: list[Cell] = [names[key], parameters[key], len(group.seeds)]
        for field in fields:
            summary = group.summaries.get(field)
            cells.append(_mean_text(summary))
            if has_intervals:
                cells.append(_interval_cell(summary.interval if summary else None))
        body.append(cells)
    for model, number in configurations.all_diverged:
        body.append([model, None, 0, f"{number} diverged", *[None] * (len(columns) - 4)])
    spread = "one seed, so there is no interval"
    if has_intervals:
        spread = "mean ± standard deviation over n seeds, and t interval of the mean"
    recomputed = ""
    if "recomputed" in training:
        recomputed = ", with recomputed batch-norm statistics; test error uses the saved statistics"
    caption = f"Top-1 error in percent: {spread}. Training error on clean images{recomputed}."
    return Table(caption, columns, body)


def _mean_text(summary: Summary | None) -> str | None:
    if summary is None:
        return None
    diverged = f"{summary.num_diverged} diverged"
    if not summary.n:
        return diverged if summary.num_diverged else ""
    mean = number_text(summary.mean, deviation=summary.standard_deviation)
    return f"{mean} ({diverged})" if summary.num_diverged else mean


def _interval_cell(interval: Interval | None, *, signed: bool = False) -> str | None:
    text = interval_text(interval, signed=signed).replace("-", "\N{MINUS SIGN}")
    return text or None


def _difference_tables(rows: Sequence[Row], training: str) -> list[Item]:
    columns: list[Column | str] = [
        "change",
        Column("difference", "+.2f", True),
        Column("95 % interval", numeric=True),
        Column("p", ".3f", True),
        "pairs",
    ]
    tables: list[Item] = []
    for name, field in (("Training", training), ("Test", TEST)):
        body: list[Sequence[Cell]] = []
        for item in differences(rows, field=field):
            comparison = item.comparison
            interval = _interval_cell(comparison.interval, signed=True)
            body.append(
                (_with_arrow(item.what), comparison.difference, interval, item.p, comparison.n_a)
            )
        if body:
            caption = (
                f"{name} error in percentage points, paired by seed. p is corrected for all rows "
                "of the table (Holm). Each interval belongs to its row alone."
            )
            tables.append(Table(caption, columns, body))
    return tables


def _with_arrow(change: str) -> str:
    """Replace "->" by an arrow, because a browser would break the line between - and >."""
    return change.replace("->", "\N{RIGHTWARDS ARROW}")


def _verdicts(collection: Collection, margin_pct: float) -> list[Item]:
    body: list[Sequence[Cell]] = []
    verdicts = degradation_verdicts(
        collection.rows, diverged=collection.diverged, margin_pct=margin_pct
    )
    for kind, verdict in verdicts.items():
        if isinstance(verdict, str):
            body.append((kind, "no verdict", verdict))
        else:
            body.append((kind, verdict.answer, verdict.reason))
    if not body:
        return []
    caption = (
        "Yes, no or undecided, by a rule that was fixed before the data were seen. "
        f"Margin, in percentage points of training error: {margin_pct:g}."
    )
    return [Table(caption, ["networks", "answer", "reason"], body)]


def _depth_figure(configurations: StudyTable, rows: Sequence[Row], training: str) -> Figure | None:
    """Return error against depth; None if all networks have one depth."""
    groups = [group for group in configurations.groups if group.kind is not None]
    if len({group.depth for group in groups}) < 2:
        return None
    one_recipe = max(Counter((group.kind, group.depth) for group in groups).values()) == 1
    families: dict[str, list[RunGroup]] = {}
    for group in groups:
        family = f"{group.kind}" if one_recipe else f"{group.kind} {group.protocol[:6]}"
        families.setdefault(family, []).append(group)
    series: list[Series] = []
    for family, members in sorted(families.items()):
        family_rows = [row for group in members for row in _rows_of(group, rows)]
        family_rows.sort(key=lambda row: row.depth or 0)
        for field, images in ((training, "training"), (TEST, "test")):
            curves: dict[int, list[tuple[float, float]]] = {}
            for row in family_rows:
                error = row.result.get(field)
                if error is not None:
                    curves.setdefault(row.seed, []).append((row.depth or 0, float(error)))
            series += seeds_series(
                f"{family}, {images}",
                curves,
                group=family,
                dashed=images == "training",
                include_partial=True,
            )
    num_seeds = [len(group.seeds) for group in groups]
    return Figure(
        name="error-against-depth",
        title="Error against depth",
        caption="Training error is on clean images." + interval_note(*num_seeds),
        x_label="layers",
        y_label="top-1 error (%)",
        series=series,
        styles=error_styles(max(num_seeds)),
    )


def _curve_figures(configurations: StudyTable, names: Names, rows: Sequence[Row]) -> list[Item]:
    records = {row.folder: RunFolder.open(row.folder).metrics() for row in rows}
    evaluated = _evaluated_kind(records.values())
    series_by_family: dict[str, list[Series]] = {}
    for group in configurations.groups:
        name = names[group.model, group.protocol]
        training: dict[int, Curve] = {}
        evaluation: dict[int, Curve] = {}
        for row in _rows_of(group, rows):
            lines = records[row.folder]
            training[row.seed] = curve(lines, "train", "top1_error_pct")
            evaluation[row.seed] = curve(lines, evaluated, "top1_error_pct")
        family = series_by_family.setdefault(group.kind or "other", [])
        family += seeds_series(f"{name}, training", training, group=name, dashed=True)
        family += seeds_series(f"{name}, {evaluated}", evaluation, group=name)
    num_seeds = [len(group.seeds) for group in configurations.groups]
    caption = (
        "Training error is measured on the running, augmented batches, as in the paper's figure 6."
        + interval_note(*num_seeds)
    )
    titles = {"plain": "Plain networks", "residual": "Residual networks", "other": "Networks"}
    top = _common_top(series_by_family.values())
    figures = []
    for kind, series in series_by_family.items():
        if series:
            figure = Figure(
                name=f"curves-{kind}",
                title=titles[kind],
                caption=caption,
                x_label="iteration",
                y_label="top-1 error (%)",
                series=series,
                y_limits=(0.0, top),
                styles=error_styles(max(num_seeds), evaluated),
            )
            figures.append(figure)
    return [Panels(figures)]


def _responses(configurations: StudyTable, names: Names, rows: Sequence[Row]) -> list[Item]:
    """Return Fig. 7 of the networks that `reslearn analyze RUN responses` has analyzed."""
    responses = {}
    for group in configurations.groups:
        folders = {row.seed: row.folder for row in _rows_of(group, rows)}
        runs = [read_responses(RunFolder.open(folder)) for _, folder in sorted(folders.items())]
        analyzed = [run for run in runs if run is not None]
        if analyzed:
            responses[names[group.model, group.protocol]] = analyzed
    if not responses:
        return []
    text = (
        "Standard deviation of the output of each 3x3 layer after batch norm, before ReLU and "
        "addition. It depends on the learned gamma and on the spread of beta."
    )
    if len(responses) < len(configurations.groups):
        text += f" Analyzed networks: {', '.join(responses)}."
    return [text, Panels(response_figures(responses))]


def _rows_of(group: RunGroup, rows: Sequence[Row]) -> list[Row]:
    key = (group.model, group.protocol)
    return [row for row in rows if (row.model, row.protocol) == key]


def _evaluated_kind(runs: Iterable[list[dict[str, Any]]]) -> str:
    """Return "validation" if all runs have a curve of it and none of the test set, else "test"."""
    counts = [Counter(record.get("kind") for record in lines) for lines in runs]
    if all(count["test"] < 2 <= count["validation"] for count in counts):
        return "validation"
    return "test"


def _common_top(figures: Iterable[list[Series]]) -> float:
    """Return one height for all panels, so that readers can compare them.

    The height is the highest error after the first tenth of training, rounded up.
    """
    highest = 1.0
    for series in itertools.chain.from_iterable(figures):
        points = series.points()
        errors = [y for _, y, _, _ in points[len(points) // 10 :] if math.isfinite(y)]
        highest = max([highest, *errors])
    step = 5.0 if highest > 20 else 1.0
    return min(100.0, step * math.ceil(highest * 1.02 / step))


def _repeat(rows: Sequence[Row]) -> list[Item]:
    environments = [RunFolder.open(row.folder).environment for row in rows]
    commands: list[str] = []
    for environment in environments:
        if environment.get("command"):
            commands.append(shlex.join(map(str, environment["command"])))
    items: list[Item] = []
    if commands:
        items.append(Code("\n".join(dict.fromkeys(commands)), "Commands of the runs"))
    items.append(Facts(environment_facts(environments[0]), "Environment of the first run"))
    return items
