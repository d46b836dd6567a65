"""A forest plot as inline SVG and as PNG: effects below each other, each with its seeds, its mean and its interval, around a line at 0.

Place: not in the paper, which has one run of everything; the worth of each choice that it leaves open. Full marks are effects that a rule
decided to be there, hollow ones are not, so that no reader depends on color. The page writes a name above its line, where there is room on
a phone.
"""

from __future__ import annotations

import math
import textwrap
from typing import TYPE_CHECKING

from markupsafe import Markup

from reslearn.report.axes import Axis, linear_axis
from reslearn.report.content import Effect, Forest
from reslearn.report.palette import LIGHT

if TYPE_CHECKING:
    from matplotlib.axes import Axes

ROW_PX = 46
_NAME_PX, _LINE_PX = 16, 33  # of a row, from its top: the foot of its name, and its line


def forest_axis(forest: Forest) -> Axis:
    """Around every seed and 0, and most of the intervals."""
    values = [
        value
        for effect in forest.effects
        for value in (*effect.values, effect.mean)
        if math.isfinite(value)
    ]
    bounds = [
        bound
        for effect in forest.effects
        for bound in (effect.low, effect.high)
        if math.isfinite(bound)
    ]
    return linear_axis([*values, 0.0, -forest.margin, forest.margin], bounds)


def draw_forest(forest: Forest) -> Markup:
    """Margin, 0, rows and ticks, for an SVG that is the plot area itself, `ROW_PX` high a row."""
    axis = forest_axis(forest)
    parts = [Markup('<g class="c0">')]
    if forest.margin:
        left, right = axis.fraction(-forest.margin), axis.fraction(forest.margin)
        parts.append(
            Markup('<rect class="margin" x="{:.2f}%" width="{:.2f}%" height="100%"/>').format(
                100 * left, 100 * (right - left)
            )
        )
    parts.append(
        Markup('<line class="axis" x1="{0:.2f}%" x2="{0:.2f}%" y2="100%"/>').format(
            100 * axis.fraction(0.0)
        )
    )
    parts += [_row(effect, number, axis) for number, effect in enumerate(forest.effects)]
    parts.append(Markup('</g><line class="axis" x1="0" x2="100%" y1="100%" y2="100%"/>'))
    for value, label in zip(axis.ticks, axis.labels, strict=True):
        tick = Markup(
            '<text class="tick" x="{:.2f}%" y="100%" dy="1.6em" text-anchor="middle">{}</text>'
        )
        parts.append(tick.format(100 * axis.fraction(value), label))
    return Markup("").join(parts)


def plot_forest(forest: Forest, axes: Axes) -> None:
    """The same by matplotlib, the names at the left."""
    axis, color = forest_axis(forest), LIGHT[0]
    if forest.margin:
        axes.axvspan(
            -forest.margin, forest.margin, color="#e4e2dc", alpha=0.6, linewidth=0, zorder=0
        )
    axes.axvline(0.0, color="#22262b", linewidth=0.8, zorder=1)
    for row, effect in enumerate(forest.effects):
        axes.plot(
            [effect.low, effect.high],
            [row, row],
            color=color,
            linewidth=1.8,
            solid_capstyle="butt",
            zorder=2,
        )
        axes.plot(
            effect.values,
            [row] * len(effect.values),
            "o",
            color=color,
            alpha=0.45,
            markersize=5,
            markeredgewidth=0,
            zorder=3,
        )
        face = color if effect.decided else "white"
        axes.plot(
            [effect.mean],
            [row],
            "D",
            color=color,
            markerfacecolor=face,
            markersize=7,
            markeredgewidth=1.5,
            zorder=4,
        )
    axes.set_xlim(axis.low, axis.high)
    axes.set_ylim(len(forest.effects) - 0.4, -0.6)
    axes.set_xticks(axis.ticks, axis.labels)
    axes.set_yticks(
        range(len(forest.effects)),
        [textwrap.fill(effect.name, 34) for effect in forest.effects],
        fontsize=9,
    )
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.grid(axis="x", color="#e4e2dc", linewidth=0.7)
    axes.set_axisbelow(True)
    axes.set_title(forest.title, loc="left", fontsize=11.5, pad=10)
    axes.set_xlabel(forest.x_label)


def _row(effect: Effect, number: int, axis: Axis) -> Markup:
    top = ROW_PX * number
    parts = [
        Markup('<g class="effect{}"><title>{}</title>').format(
            "" if effect.decided else " open", _said(effect)
        ),
        Markup('<text x="0" y="{}">{}</text>').format(top + _NAME_PX, effect.name),
        Markup('<line class="grid" x1="0" x2="100%" y1="{0}" y2="{0}"/>').format(top + _LINE_PX),
    ]
    low, high = axis.fraction(effect.low), axis.fraction(effect.high)
    if math.isfinite(low) and math.isfinite(high):
        ends = 100 * min(1.0, max(0.0, low)), 100 * min(1.0, max(0.0, high))
        parts.append(
            Markup('<line class="interval" x1="{:.2f}%" x2="{:.2f}%" y1="{y}" y2="{y}"/>').format(
                *ends, y=top + _LINE_PX
            )
        )
    for value in effect.values:
        if math.isfinite(value):
            seed = Markup('<circle class="seed" cx="{:.2f}%" cy="{}" r="3.8"/>')
            parts.append(seed.format(100 * axis.fraction(value), top + _LINE_PX))
    if math.isfinite(effect.mean):
        mean = Markup('<use href="#mark-diamond" x="{:.2f}%" y="{}"/>')
        parts.append(mean.format(100 * axis.fraction(effect.mean), top + _LINE_PX))
    return Markup("").join(parts) + Markup("</g>")


def _said(effect: Effect) -> str:
    if not math.isfinite(effect.mean):
        return f"{effect.name}: no number"
    interval = f" [{effect.low:+.2f}, {effect.high:+.2f}]" if math.isfinite(effect.low) else ""
    return f"{effect.name}: " + f"{effect.mean:+.2f}{interval}".replace("-", "\N{MINUS SIGN}")
