"""A heat map as inline SVG and as PNG: pale cells are low values, deep cells are high values.

The paper has no heat map; this one shows the loss over two directions, as the contour plots of
Li et al. (2018). It uses one color and writes the values into the cells, so that no reader depends
on color. On a dark page the shades are made from the light color, and the deepest is still the
highest value. Rows are drawn by y from bottom to top, columns by x from left to right, both evenly
spaced.
"""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING

from markupsafe import Markup

from reslearn.report.content import HeatMap
from reslearn.report.palette import LIGHT

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MAX_COLUMNS_WITH_VALUES = 9
"""Maps with more columns do not show values in their cells, which would not fit on a phone."""
PALEST, DEEPEST = 0.04, 0.8
"""Opacity of the lowest and the highest value; dark text stays readable on the deepest cell."""


def shades(heat: HeatMap) -> list[list[float]]:
    """Return the depth of each cell: 0 for the lowest value, 1 for the highest, NaN for a gap.

    If all values are equal, each depth is 0.5.
    """
    scaled = [[_scaled(value, heat.log) for value in row] for row in heat.values]
    finite = [value for value in itertools.chain.from_iterable(scaled) if math.isfinite(value)]
    low, high = min(finite, default=0.0), max(finite, default=0.0)
    if low == high:
        return [[value * 0 + 0.5 for value in row] for row in scaled]
    return [[(value - low) / (high - low) for value in row] for row in scaled]


def draw_heat(heat: HeatMap) -> Markup:
    """Return cells, values and ticks for an SVG that is the plot area itself."""
    width, height = 100 / max(1, len(heat.x)), 100 / max(1, len(heat.y))
    parts = [Markup('<g class="c0">')]
    for row, (values, depths) in enumerate(zip(heat.values, shades(heat), strict=True)):
        top = 100 - (row + 1) * height
        for column, (value, depth) in enumerate(zip(values, depths, strict=True)):
            if value is None or not math.isfinite(depth):
                continue
            x, text = column * width, f"{value:.3g}".replace("-", "\N{MINUS SIGN}")
            opacity, title = _opacity(depth), f"{heat.value_label} {text}"
            parts.append(_CELL.format(x, top, width, height, opacity, title))
            if len(heat.x) <= MAX_COLUMNS_WITH_VALUES:
                parts.append(_VALUE.format(x + width / 2, top + height / 2, text))
    parts.append(Markup("</g>"))
    for column, value in enumerate(heat.x):
        parts.append(_X_TICK.format((column + 0.5) * width, _tick_label(value)))
    for row, value in enumerate(heat.y):
        parts.append(_Y_TICK.format(100 - (row + 0.5) * height, _tick_label(value)))
    return Markup("").join(parts)


def plot_heat(heat: HeatMap, axes: Axes) -> None:
    """Draw the heat map on matplotlib's axes, for the PNG file."""
    from matplotlib.colors import LinearSegmentedColormap

    colors = LinearSegmentedColormap.from_list("shades", ["#ffffff", LIGHT[0]])
    depths = shades(heat)
    opacities = [[_opacity(depth) for depth in row] for row in depths]
    if heat.x and heat.y:
        axes.imshow(opacities, cmap=colors, vmin=0, vmax=1, origin="lower", aspect="auto")
    axes.set_xticks(range(len(heat.x)), [_tick_label(x) for x in heat.x])
    axes.set_yticks(range(len(heat.y)), [_tick_label(y) for y in heat.y])
    axes.tick_params(length=0)
    axes.set_title(heat.title, loc="left", fontsize=11.5, pad=10)
    axes.set_xlabel(heat.x_label)
    axes.set_ylabel(heat.y_label)
    if len(heat.x) > MAX_COLUMNS_WITH_VALUES:
        return
    for row, values in enumerate(heat.values):
        for column, value in enumerate(values):
            if value is not None and math.isfinite(depths[row][column]):
                axes.text(column, row, f"{value:.3g}", ha="center", va="center", fontsize=8.5)


_CELL = Markup(
    '<rect x="{:.2f}%" y="{:.2f}%" width="{:.2f}%" height="{:.2f}%" fill-opacity="{:.3f}">'
    "<title>{}</title></rect>"
)
_VALUE = Markup(
    '<text class="cell" x="{:.2f}%" y="{:.2f}%" dy=".32em" text-anchor="middle">{}</text>'
)
_X_TICK = Markup(
    '<text class="tick" x="{:.2f}%" y="100%" dy="1.6em" text-anchor="middle">{}</text>'
)
_Y_TICK = Markup('<text class="tick" x="-8" y="{:.2f}%" dy=".32em" text-anchor="end">{}</text>')


def _opacity(depth: float) -> float:
    return PALEST + (DEEPEST - PALEST) * depth


def _scaled(value: float | None, log: bool) -> float:
    if value is None or not math.isfinite(value):
        return math.nan
    return math.log(value) if log else value


def _tick_label(value: float) -> str:
    return f"{value:.2g}".replace("-", "\N{MINUS SIGN}")
