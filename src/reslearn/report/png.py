"""A figure as PNG, by matplotlib without a display, in the manner of the paper's figures 1, 6 and 7.

Thin and dashed is training error, bold is test error, single runs are pale lines behind their bold mean, a band is an
interval. Ticks, colors, markers and end labels are those of the page. matplotlib is imported here and only when drawn.
"""

from __future__ import annotations

import io
import math
import warnings
from typing import TYPE_CHECKING, Any

from reslearn.report.axes import Axis, x_axis, y_axis
from reslearn.report.content import Drawing, Figure, Forest, HeatMap, Series, Style
from reslearn.report.forest import plot_forest
from reslearn.report.heat import plot_heat
from reslearn.report.palette import LIGHT, NUM_COLORS, mark_of
from reslearn.report.svg import end_labels, marked, single_run

if TYPE_CHECKING:
    from matplotlib.axes import Axes

INK = "#22262b"
DASHES: tuple[float, tuple[float, float]] = (0, (5, 2.2))
WIDTH_OF = {"line": 2.2, "dashed": 1.1, "thin": 0.8, "thin-dashed": 0.8}
NUM_INSIDE = 12  # entries of a legend that leave room for curves beside it
SETTINGS: Any = {
    "font.size": 10.5,
    "text.parse_math": False,  # names are data: a dollar sign in one is no formula
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
}


def figure_png(
    figure: Drawing,
    *,
    width_inches: float = 7.2,
    height_inches: float = 4.2,
    dots_per_inch: int = 150,
) -> bytes:
    """PNG of `figure` on white, 1080 x 630 pixels by default."""
    import matplotlib as mpl
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure as Canvas

    buffer = io.BytesIO()
    with mpl.rc_context(SETTINGS), warnings.catch_warnings():
        warnings.filterwarnings(
            "ignore", message="Glyph .* missing"
        )  # a box for a rare letter is no reason to lose the figure
        height = (
            max(height_inches, 0.4 * len(figure.effects))
            if isinstance(figure, Forest)
            else height_inches
        )
        canvas = Canvas(figsize=(width_inches, height), layout="constrained")
        FigureCanvasAgg(canvas)
        if isinstance(figure, HeatMap):
            plot_heat(figure, canvas.add_subplot())
        elif isinstance(figure, Forest):
            plot_forest(figure, canvas.add_subplot())
        else:
            _plot(figure, canvas.add_subplot())
        canvas.savefig(buffer, dpi=dots_per_inch)
    return _in_few_colors(buffer)


def _in_few_colors(drawn: io.BytesIO) -> bytes:
    """The picture with a palette of 128 colors, for a third of the bytes: lines on white need no more."""
    from PIL import Image

    smaller = io.BytesIO()
    Image.open(drawn).convert("RGB").quantize(128, dither=Image.Dither.NONE).save(
        smaller, "PNG", optimize=True
    )
    return smaller.getvalue()


def _plot(figure: Figure, axes: Axes) -> None:
    across, up = x_axis(figure), y_axis(figure)
    groups = figure.groups()
    _scale(axes, across, up)
    for series in figure.series:
        _curve(series, groups.index(series.group), axes)
    axes.set_title(figure.title, loc="left", fontsize=11.5, pad=10)
    axes.set_xlabel(figure.x_label)
    axes.set_ylabel(figure.y_label)
    labels = end_labels(figure, up)
    for label in labels:
        axes.annotate(
            label.group,
            (1.0, label.y),
            xycoords="axes fraction",
            xytext=(8, 0),
            textcoords="offset points",
            va="center",
            color=LIGHT[label.index % NUM_COLORS],
            annotation_clip=False,
        )
    _legend(figure, groups, bool(labels), axes)


def _curve(series: Series, group: int, axes: Axes) -> None:
    color, points = LIGHT[group % NUM_COLORS], series.points()
    x, y, low, high = (
        [point[i] if math.isfinite(point[i]) else math.nan for point in points] for i in range(4)
    )
    order = {"thin-dashed": 1.9, "thin": 2.0, "dashed": 2.2, "line": 2.4}[series.style]
    axes.plot(
        x,
        y,
        color=color,
        linewidth=WIDTH_OF[series.style],
        linestyle=_dash(series.style),
        alpha=0.4 if single_run(series) else 1.0,
        zorder=order,
        solid_capstyle="round",
    )
    if (
        series.low is not None and series.style == "dashed"
    ):  # outlined, so that it can be told from a filled one of the same color
        axes.fill_between(
            x,
            low,
            high,
            facecolor="none",
            edgecolor=color,
            alpha=0.6,
            linewidth=0.7,
            linestyle=":",
            zorder=1.6,
        )
    elif series.low is not None:
        axes.fill_between(x, low, high, color=color, alpha=0.16, linewidth=0, zorder=1.5)
    marks = marked(series, points)
    if marks:
        shape = mark_of(group)[2]
        face = "white" if series.style == "dashed" else color
        at = [point[0] for point in marks], [point[1] for point in marks]
        axes.plot(*at, shape, color=color, markerfacecolor=face, markersize=5.5, zorder=order + 0.1)


def _dash(style: Style) -> Any:
    return DASHES if style.endswith("dashed") else "solid"


def _scale(axes: Axes, across: Axis, up: Axis) -> None:
    if up.log:
        axes.set_yscale("log")
    axes.set_xlim(across.low, across.high)
    axes.set_ylim(up.low, up.high)
    axes.set_xticks(across.ticks, across.labels)
    axes.set_yticks(up.ticks, up.labels)
    axes.minorticks_off()
    axes.grid(axis="y", color="#e4e2dc", linewidth=0.7)
    axes.set_axisbelow(True)


def _legend(figure: Figure, groups: list[str], named_at_ends: bool, axes: Axes) -> None:
    from matplotlib.lines import Line2D

    handles = []
    if not named_at_ends and len(groups) > 1:
        for index, group in enumerate(groups):
            handles.append(
                Line2D(
                    [],
                    [],
                    color=LIGHT[index % NUM_COLORS],
                    marker=mark_of(index)[2],
                    linewidth=2,
                    label=group,
                )
            )
    for style, meaning in figure.styles.items():
        alpha = 0.5 if style.startswith("thin") else 1.0
        handles.append(
            Line2D(
                [],
                [],
                color=INK,
                linewidth=WIDTH_OF[style],
                linestyle=_dash(style),
                alpha=alpha,
                label=meaning,
            )
        )
    if len(handles) > NUM_INSIDE:
        axes.figure.legend(
            handles=handles,
            frameon=False,
            fontsize=9,
            loc="outside right upper",
            ncols=1 + len(handles) // 22,
        )
    elif handles:
        axes.legend(
            handles=handles,
            frameon=False,
            fontsize=9,
            loc="best",
            ncols=2 if len(handles) > 5 else 1,
        )
