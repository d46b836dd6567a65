"""A forest plot as inline SVG and as PNG: effects in rows, with seeds, mean and interval.

The paper has one run of each network and no such plot; this one shows the effect of each choice
that the paper leaves open. Filled marks are effects that a rule decided to exist, hollow marks are
all other effects, so that no reader depends on color. On the page the name of an effect is above
its line, where a phone has room for it.
"""

from __future__ import annotations

import math
import textwrap
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from reslearn.report.axes import Axis, linear_axis
from reslearn.report.content import Effect, Forest
from reslearn.report.palette import GRID, INK, LIGHT
from reslearn.study import Interval, number_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes

ROW_PX = 46
_NAME_PX, _LINE_PX = 16, 33
"""Baseline of the name and position of the line, from the top of a row."""


def forest_axis(forest: Forest) -> Axis:
    """Return an axis that contains every seed, 0, the margin, and most of the intervals."""
    values = [0.0, -forest.margin, forest.margin]
    bounds: list[float] = []
    for effect in forest.effects:
        values += [value for value in (*effect.values, effect.mean) if math.isfinite(value)]
        bounds += [bound for bound in (effect.low, effect.high) if math.isfinite(bound)]
    return linear_axis(values, bounds)


def draw_forest(forest: Forest) -> Markup:
    """Return margin, zero line, rows and ticks for an SVG that is the plot area itself.

    Each row is `ROW_PX` high.
    """
    axis = forest_axis(forest)
    parts = [Markup('<g class="c0">')]
    if forest.margin:
        start, stop = axis.fraction(-forest.margin), axis.fraction(forest.margin)
        parts.append(_MARGIN.format(100 * start, 100 * (stop - start)))
    parts.append(_ZERO.format(100 * axis.fraction(0.0)))
    parts += [_row(effect, number, axis) for number, effect in enumerate(forest.effects)]
    parts.append(Markup('</g><line class="axis" x1="0" x2="100%" y1="100%" y2="100%"/>'))
    for value, label in zip(axis.ticks, axis.labels, strict=True):
        parts.append(_TICK.format(100 * axis.fraction(value), label))
    return Markup("").join(parts)


def plot_forest(forest: Forest, axes: Axes) -> None:
    """Draw the forest plot on matplotlib's axes, with the names at the left."""
    axis = forest_axis(forest)
    if forest.margin:
        axes.axvspan(-forest.margin, forest.margin, color=GRID, alpha=0.6, linewidth=0, zorder=0)
    axes.axvline(0.0, color=INK, linewidth=0.8, zorder=1)
    for row, effect in enumerate(forest.effects):
        _plot_row(effect, row, axes)
    axes.set_xlim(axis.low, axis.high)
    axes.set_ylim(len(forest.effects) - 0.4, -0.6)
    axes.set_xticks(axis.ticks, axis.labels)
    names = [textwrap.fill(effect.name, 34) for effect in forest.effects]
    axes.set_yticks(range(len(names)), names, fontsize=9)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.grid(axis="x", color=GRID, linewidth=0.7)
    axes.set_axisbelow(True)
    axes.set_title(forest.title, loc="left", fontsize=11.5, pad=10)
    axes.set_xlabel(forest.x_label)


_MARGIN = Markup('<rect class="margin" x="{:.2f}%" width="{:.2f}%" height="100%"/>')
_ZERO = Markup('<line class="axis" x1="{0:.2f}%" x2="{0:.2f}%" y2="100%"/>')
_TICK = Markup('<text class="tick" x="{:.2f}%" y="100%" dy="1.6em" text-anchor="middle">{}</text>')
_INTERVAL = Markup('<line class="interval" x1="{:.2f}%" x2="{:.2f}%" y1="{y}" y2="{y}"/>')
_SEED = Markup('<circle class="seed" cx="{:.2f}%" cy="{}" r="3.8"/>')
_MEAN = Markup('<use href="#mark-diamond" x="{:.2f}%" y="{}"/>')


def _row(effect: Effect, number: int, axis: Axis) -> Markup:
    top = ROW_PX * number
    line_y = top + _LINE_PX
    kind = "effect" if effect.decided else "effect open"
    parts = [
        Markup('<g class="{}"><title>{}</title>').format(kind, _title(effect)),
        Markup('<text x="0" y="{}">{}</text>').format(top + _NAME_PX, effect.name),
        Markup('<line class="grid" x1="0" x2="100%" y1="{0}" y2="{0}"/>').format(line_y),
    ]
    low, high = axis.fraction(effect.low), axis.fraction(effect.high)
    if math.isfinite(low) and math.isfinite(high):
        start, stop = min(1.0, max(0.0, low)), min(1.0, max(0.0, high))
        parts.append(_INTERVAL.format(100 * start, 100 * stop, y=line_y))
    for value in effect.values:
        if math.isfinite(value):
            parts.append(_SEED.format(100 * axis.fraction(value), line_y))
    if math.isfinite(effect.mean):
        parts.append(_MEAN.format(100 * axis.fraction(effect.mean), line_y))
    return Markup("").join(parts) + Markup("</g>")


def _plot_row(effect: Effect, row: int, axes: Axes) -> None:
    color = LIGHT[0]
    interval = [effect.low, effect.high]
    axes.plot(interval, [row, row], color=color, linewidth=1.8, solid_capstyle="butt", zorder=2)
    seeds: dict[str, Any] = {
        "color": color,
        "alpha": 0.45,
        "markersize": 5,
        "markeredgewidth": 0,
        "zorder": 3,
    }
    axes.plot(effect.values, [row] * len(effect.values), "o", **seeds)
    axes.plot(
        [effect.mean],
        [row],
        "D",
        color=color,
        markerfacecolor=color if effect.decided else "white",
        markersize=7,
        markeredgewidth=1.5,
        zorder=4,
    )


def _title(effect: Effect) -> str:
    if not math.isfinite(effect.mean):
        return f"{effect.name}: no number"
    interval = Interval(effect.low, effect.high) if math.isfinite(effect.low) else None
    text = number_text(effect.mean, signed=True, interval=interval)
    return f"{effect.name}: " + text.replace("-", "\N{MINUS SIGN}")
