"""Writing a page into a folder: report.html, figures/NAME.png and figures/NAME.csv.

The CSV file of a figure holds every point at full precision, so that any tool can draw the figure
again. Its columns are series, group, style, x, y, low and high, and the columns of x and y are
named after the axes. A gap is an empty cell. A heat map has one row per cell: its position on both
axes and its value. A forest plot has one row per effect, with the seeds at the end.
"""

from __future__ import annotations

import csv
import io
import itertools
import math
from collections.abc import Iterator
from pathlib import Path

from reslearn.report.content import Drawing, Figure, Forest, HeatMap, Page
from reslearn.report.markup import render_html
from reslearn.runs import make_folder, write_atomically

CsvRow = list[str | bool]


def write_page(page: Page, folder: Path | str) -> Path:
    """Write `page` into `folder` and return the path of report.html.

    The folder is created if it does not exist, and other files in it stay. Each file is written
    under another name and then renamed, and the page is written last. A reader therefore finds the
    old page or the new page, but never a part of one.

    Raises:
        ValueError: If two figures have the same name.
        RunError: If the folder cannot be created.
        OSError: If a file cannot be written.
    """
    from reslearn.report.png import figure_png

    folder = Path(folder)
    downloads: dict[str, tuple[str, bytes]] = {}
    for figure in page.figures():
        numbers = figure_csv(figure).encode()
        downloads[f"figures/{figure.name}.csv"] = ("text/csv;charset=utf-8", numbers)
        downloads[f"figures/{figure.name}.png"] = ("image/png", figure_png(figure))
    html = render_html(page, downloads)
    make_folder(folder / "figures" if downloads else folder)
    for path, (_, content) in downloads.items():
        _write(folder / path, content)
    _write(folder / "report.html", html.encode())
    return folder / "report.html"


def figure_csv(figure: Drawing) -> str:
    """Return the numbers of `figure` as CSV, neither thinned nor cut off at the axes."""
    match figure:
        case Figure():
            rows = _curve_rows(figure)
        case HeatMap():
            rows = _heat_map_rows(figure)
        case Forest():
            rows = _forest_rows(figure)
    buffer = io.StringIO(newline="")
    csv.writer(buffer, lineterminator="\n").writerows(rows)
    return buffer.getvalue()


def _curve_rows(figure: Figure) -> Iterator[CsvRow]:
    yield ["series", "group", "style", figure.x_label, figure.y_label, "low", "high"]
    for series in figure.series:
        for point in series.points():
            numbers = [_exact(value) for value in point]
            yield [series.name, series.group, series.style, *numbers]


def _heat_map_rows(heat: HeatMap) -> Iterator[CsvRow]:
    yield [heat.x_label, heat.y_label, heat.value_label]
    for y, values in zip(heat.y, heat.values, strict=True):
        for x, value in zip(heat.x, values, strict=True):
            yield [_exact(x), _exact(y), "" if value is None else _exact(value)]


def _forest_rows(forest: Forest) -> Iterator[CsvRow]:
    num_seeds = max((len(effect.values) for effect in forest.effects), default=0)
    seeds = [f"value {number}" for number in range(1, num_seeds + 1)]
    yield [forest.x_label, "decided", "mean", "low", "high", *seeds]
    for effect in forest.effects:
        numbers = itertools.chain((effect.mean, effect.low, effect.high), effect.values)
        yield [effect.name, effect.decided, *map(_exact, numbers)]


def _exact(value: float) -> str:
    """Return the shortest text that gives the same number; "" for a gap."""
    if not math.isfinite(value):
        return ""
    return str(int(value)) if value == int(value) and abs(value) < 2**53 else repr(value)


def _write(path: Path, content: bytes) -> None:
    write_atomically(path, lambda file: file.write(content))
