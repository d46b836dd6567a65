"""A figure as PNG, drawn by matplotlib without a display, in the style of figures 1, 6 and 7.

Training error is thin and dashed, test error is bold, single runs are pale behind their mean, and
a band is an interval. Ticks, colors, markers and end labels are equal to those on the page.
matplotlib is imported only when a figure is drawn.
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
from reslearn.report.palette import GRID, INK, LIGHT, NUM_COLORS, marker_of
from reslearn.report.svg import end_labels, is_single_run, marked_points

if TYPE_CHECKING:
    from matplotlib.axes import Axes

DASHES: tuple[float, tuple[float, float]] = (0, (5, 2.2))
WIDTH_OF = {"line": 2.2, "dashed": 1.1, "thin": 0.8, "thin-dashed": 0.8}
LAYER_OF = {"thin-dashed": 1.9, "thin": 2.0, "dashed": 2.2, "line": 2.4}
MAX_ENTRIES_INSIDE = 12
"""A legend with more entries is placed beside the plot, so that it does not cover the curves."""
SETTINGS: Any = {
    "font.size": 10.5,
    "text.parse_math": False,  # a name may contain a dollar sign, which is not a formula
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
    """Return `figure` as PNG on white, by default of 1080 x 630 pixels.

    A forest plot with many effects is higher.
    """
    import matplotlib as mpl
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure as Canvas

    if isinstance(figure, Forest):
        height_inches = max(height_inches, 0.4 * len(figure.effects))
    buffer = io.BytesIO()
    with mpl.rc_context(SETTINGS), warnings.catch_warnings():
        # matplotlib draws a box for a character that its font lacks, which is good enough.
        warnings.filterwarnings("ignore", message="Glyph .* missing")
        canvas = Canvas(figsize=(width_inches, height_inches), layout="constrained")
        FigureCanvasAgg(canvas)
        axes = canvas.add_subplot()
        if isinstance(figure, HeatMap):
            plot_heat(figure, axes)
        elif isinstance(figure, Forest):
            plot_forest(figure, axes)
        else:
            _plot(figure, axes)
        canvas.savefig(buffer, dpi=dots_per_inch)
    return _with_few_colors(buffer)


def _with_few_colors(png: io.BytesIO) -> bytes:
    """Reduce the picture to 128 colors, which takes a third of the bytes."""
    from PIL import Image

    palette_png = io.BytesIO()
    picture = Image.open(png).convert("RGB").quantize(128, dither=Image.Dither.NONE)
    picture.save(palette_png, "PNG", optimize=True)
    return palette_png.getvalue()


def _plot(figure: Figure, axes: Axes) -> None:
    up, groups = y_axis(figure), figure.groups()
    _scale(axes, x_axis(figure), up)
    for series in figure.series:
        _plot_series(series, groups.index(series.group), axes)
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
    _legend(figure, [] if labels else groups, axes)


def _plot_series(series: Series, group: int, axes: Axes) -> None:
    color, points, layer = LIGHT[group % NUM_COLORS], series.points(), LAYER_OF[series.style]
    finite_points = [[v if math.isfinite(v) else math.nan for v in point] for point in points]
    x, y, low, high = zip(*finite_points, strict=True) if points else ((), (), (), ())
    axes.plot(
        x,
        y,
        color=color,
        linewidth=WIDTH_OF[series.style],
        linestyle=_dash(series.style),
        alpha=0.4 if is_single_run(series) else 1.0,
        zorder=layer,
        solid_capstyle="round",
    )
    if series.low is not None:
        band: dict[str, Any] = {"color": color, "alpha": 0.16, "linewidth": 0, "zorder": 1.5}
        if series.style == "dashed":
            # An outline is distinct from the filled band of a bold curve of the same color.
            band = {"facecolor": "none", "edgecolor": color, "alpha": 0.6, "linewidth": 0.7}
            band |= {"linestyle": ":", "zorder": 1.6}
        axes.fill_between(x, low, high, **band)
    marks = marked_points(series, points)
    if marks:
        axes.plot(
            [point[0] for point in marks],
            [point[1] for point in marks],
            marker_of(group)[2],
            color=color,
            markerfacecolor="white" if series.style == "dashed" else color,
            markersize=5.5,
            zorder=layer + 0.1,
        )


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
    axes.grid(axis="y", color=GRID, linewidth=0.7)
    axes.set_axisbelow(True)


def _legend(figure: Figure, groups: list[str], axes: Axes) -> None:
    """Add the legend. `groups` is empty if the names are at the ends of the curves."""
    from matplotlib.lines import Line2D

    handles = []
    if len(groups) > 1:
        for index, group in enumerate(groups):
            color, marker = LIGHT[index % NUM_COLORS], marker_of(index)[2]
            handles.append(Line2D([], [], color=color, marker=marker, linewidth=2, label=group))
    for style, meaning in figure.styles.items():
        line: dict[str, Any] = {"linewidth": WIDTH_OF[style], "linestyle": _dash(style)}
        alpha = 0.5 if style.startswith("thin") else 1.0
        handles.append(Line2D([], [], color=INK, alpha=alpha, label=meaning, **line))
    settings: dict[str, Any] = {"handles": handles, "frameon": False, "fontsize": 9}
    if len(handles) > MAX_ENTRIES_INSIDE:
        num_columns = 1 + len(handles) // 22
        axes.figure.legend(loc="outside right upper", ncols=num_columns, **settings)
    elif handles:
        axes.legend(loc="best", ncols=2 if len(handles) > 5 else 1, **settings)
