"""The tables of README.md and docs/weights.md that are made from something else: `python results/tables.py` writes each between its marks.

Results come from the run folders beside this file, what weights load from the dialect files of `interop`. tests/docs/test_tables.py fails
where a page and its source disagree. Only complete runs count; runs of different recipes are never averaged.
"""

from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import torch

from reslearn import models
from reslearn.interop import Dialect, dialects, unsupported
from reslearn.paper.numbers import numbers
from reslearn.report.run import device_name, format_duration
from reslearn.runs import RunFolder
from reslearn.study import Summary, collect, table
from reslearn.study.collect import Row, RunGroup

RESULTS = Path(__file__).resolve().parent
README, WEIGHTS = RESULTS.parent / "README.md", RESULTS.parent / "docs" / "weights.md"
TRAINING, TEST = "train_recomputed_top1_error_pct", "test_top1_error_pct"


def results_table(results: Path = RESULTS) -> str:
    """Markdown: a row for each network and recipe, plain before residual and by depth."""
    found = collect(results)
    # A trial on the validation split chose the recipe; the numbers that count are those of all training images.
    # The worth of each ambiguity has a table of its own.
    rows = [
        row
        for row in found.rows
        if not row.recipe["data"]["validation_images"]
        and row.folder.relative_to(results).parts[0] != "ambiguities"
    ]
    heads = (
        "network",
        "recipe",
        "seeds",
        "training error %",
        "test error %",
        "paper, 164 epochs %",
        "a run",
    )
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for group in table(rows, fields=(TRAINING, TEST)).groups:
        own = [row for row in rows if (row.model, row.protocol) == (group.model, group.protocol)]
        lines.append("| " + " | ".join(_cells(group, own)) + " |")
    return "\n".join(lines)


def _cells(group: RunGroup, rows: list[Row]) -> list[str]:
    recipe = rows[0].recipe
    size = recipe["data"]["size_px"]
    told = (
        f"`{recipe['name']}`, {recipe['schedule']['duration']}"
        + (f", {size} x {size} pixels" if size else "")
        + _data_and_start(recipe)
    )
    folders = {row.folder.relative_to(RESULTS).parts[0] for row in rows}
    printed = (
        None if size else numbers("table6").get(group.model)
    )  # it says nothing of smaller pictures
    return [
        f"[{group.model}](results/{'/'.join(sorted(folders))})",
        told,
        str(len(group.seeds)),
        _error(group.summaries.get(TRAINING)),
        _error(group.summaries.get(TEST)),
        "" if printed is None else f"{printed:.2f}",
        _runs(rows),
    ]


def _data_and_start(recipe: dict[str, Any]) -> str:
    """What is not CIFAR-10 from nothing."""
    data, told = recipe["data"], ""
    if data["name"] != "cifar10":
        told = f", {data['train_images'] or 'all'} images of {Path(data['name']).name}"
    return told + (f", from {recipe['init']['source']}" if recipe.get("init") else "")


def _error(numbers_: Summary | None) -> str:
    if numbers_ is None:
        return ""
    text = f"{numbers_.mean:.2f}" + (
        "" if numbers_.standard_deviation is None else f" ± {numbers_.standard_deviation:.2f}"
    )
    around = numbers_.interval
    return text + (f" [{around.low:.2f}, {around.high:.2f}]" if around else "")


def _runs(rows: Iterable[Row]) -> str:
    """On what, and how long: the range over the runs."""
    seconds = sorted(float(row.result["seconds"]) for row in rows)
    places = sorted({device_name(RunFolder.open(row.folder).environment) for row in rows})
    times = dict.fromkeys(format_duration(value) for value in (seconds[0], seconds[-1]))
    told = tuple(f" on {place}" for place in places)  # of a GPU the instruction set is its name
    precision = sorted(
        {
            row.numerics.rpartition(" on ")[0] if row.numerics.endswith(told) else row.numerics
            for row in rows
        }
    )
    return f"{' to '.join(times)} ({'; '.join((*places, *precision))})"


def dialects_table(*, sources: bool) -> str:
    """Markdown: a row for each dialect of weights, those that are not supported last; with `sources` also why we know it, or why not."""
    heads = ("dialect", "whose", "files", "direction", "example", "checked against")
    rows = [
        (
            f"`{name}`",
            dialect.title,
            ", ".join(f".{kind}" for kind in dialect.containers),
            "in, out",
            _example(dialect),
            dialect.source,
        )
        for name, dialect in dialects().items()
    ]
    rows += [(f"`{name}`", "", "", "neither", "", reason) for name, reason in unsupported().items()]
    shown = len(heads) if sources else len(heads) - 1
    return "\n".join(
        f"| {' | '.join(cells[:shown])} |" for cells in (heads, ("---",) * len(heads), *rows)
    )


def _example(dialect: Dialect) -> str:
    """A network that loads, with its shortcuts where they are not those that its name stands for."""
    with torch.device("meta"):
        usual = models.build(dialect.example, num_classes=10).spec["shortcut"]
    theirs = dialect.spec.get("shortcut", usual)
    return dialect.example if usual in theirs else f"{dialect.example}, option {theirs}"


TABLES: dict[str, tuple[Path, Callable[[], str]]] = {
    "results": (README, results_table),
    "what loads": (README, partial(dialects_table, sources=False)),
    "dialects": (WEIGHTS, partial(dialects_table, sources=True)),
}


def page(path: Path) -> str:
    """The text of a page with its tables made anew. ValueError where the marks of one are not there once each, in order."""
    text = path.read_text(encoding="utf-8")
    for name, (place, make) in TABLES.items():
        if place == path:
            text = between(text, name, make())
    return text


def between(text: str, name: str, made: str) -> str:
    """`text` with what stands between the marks of a table replaced."""
    first, last = f"<!-- {name}: made by results/tables.py -->", f"<!-- end of {name} -->"
    before, begin, rest = text.partition(first)
    _, end, after = rest.partition(last)
    if not (begin and end) or first in after:
        raise ValueError(f"{first} and {last} must stand there once each")
    return f"{before}{first}\n{made}\n{last}{after}"


if __name__ == "__main__":
    for path in sorted({place for place, _ in TABLES.values()}):
        path.write_text(page(path), encoding="utf-8")
