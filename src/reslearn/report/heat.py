"""A heat map as inline SVG and as PNG: shades of one color from pale (least) to deep (greatest), the values written into the cells.

Place: not in the paper; the loss over two directions (Li et al. 2018, their contour plots). One color and written values, so that no
reader depends on telling hues apart; in the dark the shades are of the light color, and deep is still the greatest.
Legend: rows by y upwards, columns by x to the right, evenly spaced; a fraction is 0 at the least value and 1 at the greatest.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from markupsafe import Markup

from reslearn.report.content import HeatMap
from reslearn.report.palette import LIGHT

if TYPE_CHECKING:
    from matplotlib.axes import Axes

NUM_WRITTEN = 9
"""Values are written into the cells of up to so many columns; more would not fit on a phone."""
PALEST, DEEPEST = 0.04, 0.8
"""Of the full color: dark letters stay readable on the deepest shade."""


def shades(heat: HeatMap) -> list[list[float]]:
    """How deep each cell is, 0..1, NaN for an empty one; 0.5 for all where all are equal."""
    measured = [[_measure(value, heat.log) for value in row] for row in heat.values]
    finite = [value for row in measured for value in row if math.isfinite(value)]
    low, high = min(finite, default=0.0), max(finite, default=0.0)
    return [
        [(value - low) / (high - low) if high > low else value * 0 + 0.5 for value in row]
        for row in measured
    ]


def draw_heat(heat: HeatMap) -> Markup:
    """The cells, their values and the ticks, for an SVG that is the plot area itself."""
    width, height = 100 / max(1, len(heat.x)), 100 / max(1, len(heat.y))
    parts = [Markup('<g class="c0">')]
    for row, (values, depths) in enumerate(zip(heat.values, shades(heat), strict=True)):
        top = 100 - (row + 1) * height
        for column, (value, depth) in enumerate(zip(values, depths, strict=True)):
            if value is None or not math.isfinite(depth):
                continue
            left, text = column * width, f"{value:.3g}".replace("-", "\N{MINUS SIGN}")
            place, said = (left, top, width, height), f"{heat.value_label} {text}"
            cell = '<rect x="{:.2f}%" y="{:.2f}%" width="{:.2f}%" height="{:.2f}%" fill-opacity="{:.3f}"><title>{}</title></rect>'
            parts.append(Markup(cell).format(*place, PALEST + (DEEPEST - PALEST) * depth, said))
            if len(heat.x) <= NUM_WRITTEN:
                number = '<text class="cell" x="{:.2f}%" y="{:.2f}%" dy=".32em" text-anchor="middle">{}</text>'
                parts.append(Markup(number).format(left + width / 2, top + height / 2, text))
    parts.append(Markup("</g>"))
    for column, x in enumerate(heat.x):
        tick = Markup(
            '<text class="tick" x="{:.2f}%" y="100%" dy="1.6em" text-anchor="middle">{}</text>'
        )
        parts.append(tick.format((column + 0.5) * width, _tick(x)))
    for row, y in enumerate(heat.y):
        tick = Markup(
            '<text class="tick" x="-8" y="{:.2f}%" dy=".32em" text-anchor="end">{}</text>'
        )
        parts.append(tick.format(100 - (row + 0.5) * height, _tick(y)))
    return Markup("").join(parts)


def plot_heat(heat: HeatMap, axes: Axes) -> None:
    """The same by matplotlib."""
    from matplotlib.colors import LinearSegmentedColormap

    colors = LinearSegmentedColormap.from_list("shades", ["#ffffff", LIGHT[0]])
    depths = shades(heat)
    deepened = [[PALEST + (DEEPEST - PALEST) * depth for depth in row] for row in depths]
    if heat.x and heat.y:
        axes.imshow(deepened, cmap=colors, vmin=0, vmax=1, origin="lower", aspect="auto")
    axes.set_xticks(range(len(heat.x)), [_tick(x) for x in heat.x])
    axes.set_yticks(range(len(heat.y)), [_tick(y) for y in heat.y])
    axes.tick_params(length=0)
    axes.set_title(heat.title, loc="left", fontsize=11.5, pad=10)
    axes.set_xlabel(heat.x_label)
    axes.set_ylabel(heat.y_label)
    for row, values in enumerate(heat.values):
        for column, value in enumerate(values):
            if (
                value is not None
                and math.isfinite(depths[row][column])
                and len(heat.x) <= NUM_WRITTEN
            ):
                axes.text(column, row, f"{value:.3g}", ha="center", va="center", fontsize=8.5)


def _measure(value: float | None, log: bool) -> float:
    if value is None or not math.isfinite(value):
        return math.nan
    return math.log(value) if log else value


def _tick(value: float) -> str:
    return f"{value:.2g}".replace("-", "\N{MINUS SIGN}")
