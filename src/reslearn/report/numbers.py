"""A figure's numbers as CSV: every point at full precision, one a row, so that any tool can draw the figure again.

Place in the paper: beside each of its figures. Columns: series, group, style, x, y, low, high, the axes' names in x and y.
A gap is an empty cell. A heat map has its two axes and the value, one row a cell; a forest plot a row an effect, its seeds at the end.
"""

from __future__ import annotations

import csv
import io
import math

from reslearn.report.content import Drawing, Forest, HeatMap


def figure_csv(figure: Drawing) -> str:
    """The numbers of `figure`, unthinned and uncut; the head names the axes."""
    buffer = io.StringIO(newline="")
    writer = csv.writer(buffer, lineterminator="\n")
    if isinstance(figure, HeatMap):
        writer.writerow([figure.x_label, figure.y_label, figure.value_label])
        for y, row in zip(figure.y, figure.values, strict=True):
            for x, value in zip(figure.x, row, strict=True):
                writer.writerow(
                    [_exact(number) for number in (x, y, math.nan if value is None else value)]
                )
        return buffer.getvalue()
    if isinstance(figure, Forest):
        most = max((len(effect.values) for effect in figure.effects), default=0)
        writer.writerow(
            [
                figure.x_label,
                "decided",
                "mean",
                "low",
                "high",
                *(f"value {number}" for number in range(1, most + 1)),
            ]
        )
        for effect in figure.effects:
            numbers = (effect.mean, effect.low, effect.high, *effect.values)
            writer.writerow([effect.name, effect.decided, *map(_exact, numbers)])
        return buffer.getvalue()
    writer.writerow(["series", "group", "style", figure.x_label, figure.y_label, "low", "high"])
    for series in figure.series:
        for point in series.points():
            writer.writerow(
                [series.name, series.group, series.style, *(_exact(value) for value in point)]
            )
    return buffer.getvalue()


def _exact(value: float) -> str:
    if not math.isfinite(value):
        return ""
    return str(int(value)) if value == int(value) and abs(value) < 2**53 else repr(value)
