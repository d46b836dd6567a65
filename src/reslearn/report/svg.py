"""A figure as inline SVG that stretches with the page, in the style of the paper's figures.

Training error is thin and dashed, test error is bold, and curves are named at their ends.

The SVG is the plot area itself, and positions in it are percentages. The curves are in a nested
SVG of SIDE x SIDE units, which is stretched to the plot area. Strokes are not stretched, and text
is outside the nested SVG, so it keeps its size on a phone. Tick labels extend into the padding
around the plot area.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from reslearn.report.axes import NUM_MARKED_POINTS, Axis, x_axis, y_axis
from reslearn.report.content import Figure, Series, Style
from reslearn.report.palette import NUM_COLORS, marker_of

SIDE = 4000
STYLES: tuple[Style, ...] = ("thin-dashed", "thin", "dashed", "line")
"""From the back to the front."""
MIN_LABEL_GAP = 0.062
"""Minimum distance of two end labels, as a fraction of the plot's height (16 of 260 px)."""
MAX_LABELS = 8
MAX_LABEL_CHARACTERS = 14

Point = tuple[float, float, float, float]
"""x, y, and the low and high end of the interval."""


@dataclass(frozen=True, slots=True)
class CurveSvg:
    """A drawn figure, as the page template needs it.

    Args:
        svg: Content of the plot area.
        data: Numbers behind the hover text.
        num_label_characters: Length of the longest end label.
        group_styles: The boldest style of each group, which its legend entry shows.
    """

    svg: Markup
    data: dict[str, object]
    num_label_characters: int
    group_styles: list[Style]


@dataclass(frozen=True, slots=True)
class EndLabel:
    """Name of a group beside the end of its curve. `y` is a fraction of the vertical axis."""

    group: str
    index: int
    y: float


def draw(figure: Figure, max_points: int = 400) -> CurveSvg:
    """Return SVG and hover data of `figure`, with at most `max_points` points per series."""
    plot = _Plot(x_axis(figure), y_axis(figure), figure.groups())
    points = [thin(series.points(), max_points) for series in figure.series]
    order = sorted(range(len(points)), key=lambda index: STYLES.index(figure.series[index].style))
    labels = end_labels(figure, plot.y)
    parts = [plot.grid(), _OPEN_CURVES.format(SIDE)]
    parts += [plot.curve(figure.series[index], index, points[index]) for index in order]
    parts.append(Markup("</svg>"))
    parts += [plot.markers(figure.series[index], index, points[index]) for index in order]
    parts += [_end_label(label) for label in labels]
    hover_series = []
    for series, series_points in zip(figure.series, points, strict=True):
        hover_series.append(_hover(series, plot.groups, series_points))
    data: dict[str, object] = {
        "x": {"label": figure.x_label, "low": plot.x.low, "high": plot.x.high, "log": plot.x.log},
        "y": {"label": figure.y_label, "low": plot.y.low, "high": plot.y.high, "log": plot.y.log},
        "series": hover_series,
    }
    longest = max((len(label.group) for label in labels), default=0)
    boldest = [_boldest_style(figure, group) for group in plot.groups]
    return CurveSvg(Markup("").join(parts), data, longest, boldest)


def thin(points: Sequence[Point], max_points: int) -> list[Point]:
    """Return about `max_points` of the points.

    From each of equally long stretches, the lowest and the highest y remain, so spikes stay
    visible. One gap of each stretch remains, so gaps stay gaps.
    """
    if len(points) <= max_points:
        return list(points)
    num_stretches = max(1, max_points // 2 - 1)
    selected = {0, len(points) - 1}
    for stretch in range(num_stretches):
        start = stretch * len(points) // num_stretches
        stop = (stretch + 1) * len(points) // num_stretches
        finite = [index for index in range(start, stop) if math.isfinite(points[index][1])]
        if finite:
            selected.add(min(finite, key=lambda index: points[index][1]))
            selected.add(max(finite, key=lambda index: points[index][1]))
        if len(finite) < stop - start:
            gaps = (index for index in range(start, stop) if not math.isfinite(points[index][1]))
            selected.add(next(gaps))
    return [points[index] for index in sorted(selected)]


def end_labels(figure: Figure, up: Axis) -> list[EndLabel]:
    """Return the names at the ends of the curves, moved apart so that they do not overlap.

    The result is empty for a single group, for many groups, for long names, and for curves that
    end at different positions. The legend has all names in these cases.
    """
    groups = figure.groups()
    if not 2 <= len(groups) <= MAX_LABELS or max(map(len, groups)) > MAX_LABEL_CHARACTERS:
        return []
    if not _end_together(figure):
        return []
    ends: list[tuple[float, int]] = []
    for index, group in enumerate(groups):
        members = [series for series in figure.series if series.group == group]
        labeled = next((series for series in members if series.style == "line"), members[0])
        fractions = [up.fraction(y) for _, y, _, _ in labeled.points()]
        visible = [fraction for fraction in fractions if math.isfinite(fraction)]
        if visible:
            ends.append((min(1.0, max(0.0, visible[-1])), index))
    ends.sort()
    positions = _move_apart([position for position, _ in ends])
    labels = []
    for position, (_, index) in zip(positions, ends, strict=True):
        labels.append(EndLabel(groups[index], index, position))
    return labels


def is_single_run(series: Series) -> bool:
    """Return whether a series is one of several runs, drawn pale behind their mean."""
    return series.style in ("thin", "thin-dashed")


def marked_points(series: Series, points: Sequence[Point]) -> list[Point]:
    """Return the points of a series that carry a marker.

    These are all points of a short series, five points of a long bold series, and a point that no
    line connects to another point.
    """
    finite = [point for point in points if math.isfinite(point[1])]
    if len(finite) == 1:
        return finite
    if len(points) <= NUM_MARKED_POINTS:
        return [] if is_single_run(series) else finite
    if series.style != "line" or not finite:
        return []
    return [finite[round(share * (len(finite) - 1))] for share in (0.1, 0.3, 0.5, 0.7, 0.9)]


_OPEN_CURVES = Markup(
    '<svg class="curves" viewBox="0 0 {0} {0}" preserveAspectRatio="none" '
    'width="100%" height="100%">'
)
_Y_TICK = Markup(
    '<line class="grid" x1="0" x2="100%" y1="{y}" y2="{y}"/>'
    '<text class="tick" x="-8" y="{y}" dy=".32em" text-anchor="end">{label}</text>'
)
_X_TICK = Markup(
    '<svg x="{x}" y="100%" overflow="visible"><line class="axis" y2="5"/></svg>'
    '<text class="{rank}" x="{x}" y="100%" dy="1.6em" text-anchor="middle">{label}</text>'
)
_END_LABEL = Markup(
    '<text class="end c{}" data-group="{}" x="100%" dx="10" y="{}" dy=".32em">{}</text>'
)


@dataclass(frozen=True, slots=True)
class _Plot:
    """The plot area: both axes, and the groups, whose index is the index of their color."""

    x: Axis
    y: Axis
    groups: list[str]

    def grid(self) -> Markup:
        parts = []
        for value, label in zip(self.y.ticks, self.y.labels, strict=True):
            parts.append(_Y_TICK.format(y=_percent(1 - self.y.fraction(value)), label=label))
        parts.append(Markup('<line class="axis" x1="0" x2="100%" y1="100%" y2="100%"/>'))
        for index, (value, label) in enumerate(zip(self.x.ticks, self.x.labels, strict=True)):
            # A narrow plot hides every second label of a long axis.
            rank = "tick second" if index % 2 and len(self.x.ticks) >= 6 else "tick"
            x = _percent(self.x.fraction(value))
            parts.append(_X_TICK.format(x=x, rank=rank, label=label))
        return Markup("").join(parts)

    def curve(self, series: Series, index: int, points: list[Point]) -> Markup:
        content = self._band(points)
        path = self._path(points)
        if path:
            content += Markup('<path class="stroke" d="{}"/>').format(path)
        return self._opening(series, index, "curve") + content + Markup("</g>")

    def markers(self, series: Series, index: int, points: list[Point]) -> Markup:
        use = Markup('<use href="#mark-{}" x="{}" y="{}"/>')
        name = marker_of(self.groups.index(series.group))[0]
        uses = []
        for x, y, _, _ in marked_points(series, points):
            height = self.y.fraction(y)
            if math.isfinite(height) and -1e-9 <= height <= 1 + 1e-9:
                uses.append(use.format(name, _percent(self.x.fraction(x)), _percent(1 - height)))
        if not uses:
            return Markup("")
        return self._opening(series, index, "marks") + Markup("").join(uses) + Markup("</g>")

    def _opening(self, series: Series, index: int, kind: str) -> Markup:
        color = self.groups.index(series.group) % NUM_COLORS
        return Markup('<g class="{} {} c{}" data-series="{}">').format(
            kind, series.style, color, index
        )

    def _position(self, x: float, y: float) -> str:
        """Return "x y" in units of the nested SVG, or "" for a gap.

        A point far outside is moved to a few heights away; the visible part of the curve is equal.
        """
        right, height = self.x.fraction(x), self.y.fraction(y)
        if not (math.isfinite(right) and math.isfinite(height)):
            return ""
        return f"{round(right * SIDE)} {round(SIDE * (1 - min(9.0, max(-8.0, height))))}"

    def _path(self, points: Iterable[Point]) -> str:
        """Return path data. A gap begins a new stretch of the path.

        An isolated point is a stroke of length 0, which round caps turn into a dot.
        """
        stretches: list[list[str]] = [[]]
        for x, y, _, _ in points:
            position = self._position(x, y)
            if position:
                stretches[-1].append(position)
            elif stretches[-1]:
                stretches.append([])
        path = ""
        for stretch in stretches:
            if len(stretch) > 1:
                path += "M" + "L".join(stretch)
            elif stretch:
                path += f"M{stretch[0]}h0"
        return path

    def _band(self, points: Iterable[Point]) -> Markup:
        stretches: list[list[tuple[str, str]]] = [[]]
        for x, _, low, high in points:
            bottom, top = self._position(x, low), self._position(x, high)
            if bottom and top:
                stretches[-1].append((bottom, top))
            elif stretches[-1]:
                stretches.append([])
        bands = Markup("")
        for stretch in stretches:
            if len(stretch) > 1:
                outline = [top for _, top in stretch] + [bottom for bottom, _ in stretch[::-1]]
                bands += Markup('<path class="band" d="M{}z"/>').format("L".join(outline))
        return bands


def _boldest_style(figure: Figure, group: str) -> Style:
    styles = [series.style for series in figure.series if series.group == group]
    return max(styles, key=STYLES.index)


def _end_together(figure: Figure) -> bool:
    """Return whether all curves end at about the same x."""
    curves = [series.x for series in figure.series if not is_single_run(series) and len(series.x)]
    if not curves:
        return True
    first, last = min(map(min, curves)), max(map(max, curves))
    return last - min(map(max, curves)) <= 0.05 * (last - first)


def _move_apart(positions: list[float]) -> list[float]:
    """Move sorted positions so that they differ by MIN_LABEL_GAP and stay at most at 1."""
    separated: list[float] = []
    for position in positions:
        if separated:
            position = max(position, separated[-1] + MIN_LABEL_GAP)
        separated.append(position)
    ceiling = 1.0
    for index in reversed(range(len(separated))):
        separated[index] = min(separated[index], ceiling)
        ceiling = separated[index] - MIN_LABEL_GAP
    return separated


def _end_label(label: EndLabel) -> Markup:
    return _END_LABEL.format(
        label.index % NUM_COLORS, label.index, _percent(1 - label.y), label.group
    )


def _hover(series: Series, groups: list[str], points: list[Point]) -> dict[str, object]:
    x, y, low, high = zip(*points, strict=True) if points else ((), (), (), ())
    data: dict[str, object] = {
        "name": series.name,
        "group": groups.index(series.group),
        "style": series.style,
        "x": _rounded(x, 9),
        "y": _rounded(y, 5),
    }
    if series.low is not None:
        data |= {"low": _rounded(low, 5), "high": _rounded(high, 5)}
    return data


def _rounded(values: Iterable[float], digits: int) -> list[float | None]:
    return [float(f"{value:.{digits}g}") if math.isfinite(value) else None for value in values]


def _percent(fraction: float) -> str:
    return f"{100 * fraction:.2f}%"
