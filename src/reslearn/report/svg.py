"""A figure as inline SVG that stretches with the page: text keeps its size on a phone because only curves are stretched.

Place in the paper: the drawing manner of figures 1, 4, 6 and 7 (thin dashed training error, bold test error, curves named
at their ends).
How: the SVG is the plot area itself; places are per cent of it, and the curves live in a nested SVG whose box of
SIDE x SIDE units is stretched to fit while strokes are not. Labels hang over into the padding around.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

from reslearn.report.axes import NUM_MARKED_POINTS, Axis, x_axis, y_axis
from reslearn.report.content import Figure, Series, Style
from reslearn.report.palette import NUM_COLORS, mark_of

SIDE = 4000
STYLES: tuple[Style, ...] = ("thin-dashed", "thin", "dashed", "line")
"""From the back to the front."""
MIN_LABEL_GAP = 0.062
"""Least distance of two end labels, as a fraction of the plot's height (16 of 260 px)."""

Point = tuple[float, float, float, float]


@dataclass(frozen=True, slots=True)
class CurveSvg:
    """What the template needs of a figure: the SVG, the numbers behind the hover, and the longest end label."""

    svg: Markup
    data: dict[str, object]
    num_label_characters: int
    group_styles: list[Style]
    """The boldest style of each group: how its legend entry is drawn."""


@dataclass(frozen=True, slots=True)
class EndLabel:
    """A group's name beside the end of its curve. `y` is a fraction of the axis, moved apart from other labels."""

    group: str
    index: int
    y: float


def draw(figure: Figure, max_points: int = 400) -> CurveSvg:
    """SVG and hover data of `figure`, each series thinned to at most `max_points` of its own points."""
    across, up = x_axis(figure), y_axis(figure)
    groups = figure.groups()
    thinned = [thin(series.points(), max_points) for series in figure.series]
    order = sorted(range(len(thinned)), key=lambda i: STYLES.index(figure.series[i].style))
    labels = end_labels(figure, up)
    parts = [
        _grid(across, up),
        Markup(
            '<svg class="curves" viewBox="0 0 {0} {0}" preserveAspectRatio="none" width="100%" height="100%">'
        ).format(SIDE),
        *(_curve(figure.series[i], i, groups, thinned[i], across, up) for i in order),
        Markup("</svg>"),
        *(_marks(figure.series[i], i, groups, thinned[i], across, up) for i in order),
        *(_end_label(label) for label in labels),
    ]
    data: dict[str, object] = {
        "x": {"label": figure.x_label, "low": across.low, "high": across.high, "log": across.log},
        "y": {"label": figure.y_label, "low": up.low, "high": up.high, "log": up.log},
        "series": [
            _hover(series, groups, points)
            for series, points in zip(figure.series, thinned, strict=True)
        ],
    }
    ranks: dict[str, list[Style]] = {
        group: [series.style for series in figure.series if series.group == group]
        for group in groups
    }
    boldest = [max(styles, key=STYLES.index) for styles in ranks.values()]
    return CurveSvg(
        Markup("").join(parts),
        data,
        max((len(label.group) for label in labels), default=0),
        boldest,
    )


def thin(points: Sequence[Point], max_points: int) -> list[Point]:
    """At most about `max_points` of `points`: lowest and highest y of equal stretches, so that spikes stay; gaps stay gaps."""
    if len(points) <= max_points:
        return list(points)
    num_stretches = max(1, max_points // 2 - 1)
    kept = {0, len(points) - 1}
    for stretch in range(num_stretches):
        indices = range(
            stretch * len(points) // num_stretches, (stretch + 1) * len(points) // num_stretches
        )
        finite = [i for i in indices if math.isfinite(points[i][1])]
        if finite:
            kept |= {
                min(finite, key=lambda i: points[i][1]),
                max(finite, key=lambda i: points[i][1]),
            }
        if len(finite) < len(indices):
            kept.add(next(i for i in indices if not math.isfinite(points[i][1])))
    return [points[i] for i in sorted(kept)]


def end_labels(figure: Figure, up: Axis) -> list[EndLabel]:
    """Names at curve ends, pushed apart; none for a single group, for many, for long names, and where curves end at different places (the
    legend has them all)."""
    groups = figure.groups()
    if not 2 <= len(groups) <= 8 or max(len(group) for group in groups) > 14:
        return []
    along = [series.x for series in figure.series if not single_run(series) and len(series.x)]
    ends = [max(x) for x in along]
    if ends and max(ends) - min(ends) > 0.05 * (max(ends) - min(map(min, along))):
        return []
    wanted: list[tuple[float, int]] = []
    for index, group in enumerate(groups):
        own = [series for series in figure.series if series.group == group]
        chosen = next((series for series in own if series.style == "line"), own[0])
        ends = [f for f in (up.fraction(point[1]) for point in chosen.points()) if math.isfinite(f)]
        if ends:
            wanted.append((min(1.0, max(0.0, ends[-1])), index))
    wanted.sort()
    places: list[float] = []
    for place, _ in wanted:
        places.append(max(place, places[-1] + MIN_LABEL_GAP) if places else place)
    ceiling = 1.0
    for i in reversed(range(len(places))):
        places[i] = min(places[i], ceiling)
        ceiling = places[i] - MIN_LABEL_GAP
    return [
        EndLabel(groups[index], index, place)
        for place, (_, index) in zip(places, wanted, strict=True)
    ]


def single_run(series: Series) -> bool:
    """Whether a series is one of several runs, pale behind their mean."""
    return series.style in ("thin", "thin-dashed")


def marked(series: Series, points: Sequence[Point]) -> list[Point]:
    """Points that carry a marker: all of a short series, a few of a long bold one, and one that no line joins to another."""
    finite = [point for point in points if math.isfinite(point[1])]
    if len(finite) == 1:
        return finite
    if len(points) <= NUM_MARKED_POINTS:
        return [] if single_run(series) else finite
    if series.style != "line":
        return []
    return (
        [finite[round(share * (len(finite) - 1))] for share in (0.1, 0.3, 0.5, 0.7, 0.9)]
        if finite
        else []
    )


def _grid(across: Axis, up: Axis) -> Markup:
    parts = []
    for value, label in zip(up.ticks, up.labels, strict=True):
        y = _percent(1 - up.fraction(value))
        parts.append(Markup('<line class="grid" x1="0" x2="100%" y1="{0}" y2="{0}"/>').format(y))
        parts.append(
            Markup(
                '<text class="tick" x="-8" y="{}" dy=".32em" text-anchor="end">{}</text>'
            ).format(y, label)
        )
    parts.append(Markup('<line class="axis" x1="0" x2="100%" y1="100%" y2="100%"/>'))
    for index, (value, label) in enumerate(zip(across.ticks, across.labels, strict=True)):
        x, rank = (
            _percent(across.fraction(value)),
            "tick" if index % 2 == 0 or len(across.ticks) < 6 else "tick second",
        )
        parts.append(
            Markup(
                '<svg x="{}" y="100%" overflow="visible"><line class="axis" y2="5"/></svg>'
            ).format(x)
        )
        parts.append(
            Markup(
                '<text class="{}" x="{}" y="100%" dy="1.6em" text-anchor="middle">{}</text>'
            ).format(rank, x, label)
        )
    return Markup("").join(parts)


def _opening(series: Series, index: int, groups: list[str], kind: str) -> Markup:
    group = groups.index(series.group)
    return Markup('<g class="{} {} c{}" data-series="{}">').format(
        kind, series.style, group % NUM_COLORS, index
    )


def _curve(
    series: Series, index: int, groups: list[str], points: list[Point], across: Axis, up: Axis
) -> Markup:
    inside = _band(points, across, up)
    path = _path(points, across, up)
    if path:
        inside += Markup('<path class="stroke" d="{}"/>').format(path)
    return _opening(series, index, groups, "curve") + inside + Markup("</g>")


def _place(x: float, y: float, across: Axis, up: Axis) -> str:
    """Units of the nested SVG, or "" for a gap. What lies far outside is pulled to a few heights away: the cut is the same."""
    right, above = across.fraction(x), up.fraction(y)
    if not (math.isfinite(right) and math.isfinite(above)):
        return ""
    return f"{round(right * SIDE)} {round(SIDE * (1 - min(9.0, max(-8.0, above))))}"


def _path(points: Iterable[Point], across: Axis, up: Axis) -> str:
    """Path data; a gap starts a new stretch, and a lonely point is a stroke without length, which round caps make a dot."""
    stretches: list[list[str]] = [[]]
    for x, y, _, _ in points:
        place = _place(x, y, across, up)
        if place:
            stretches[-1].append(place)
        elif stretches[-1]:
            stretches.append([])
    return "".join(
        "M" + ("L".join(stretch) if len(stretch) > 1 else stretch[0] + "h0")
        for stretch in stretches
        if stretch
    )


def _band(points: Iterable[Point], across: Axis, up: Axis) -> Markup:
    stretches: list[list[tuple[str, str]]] = [[]]
    for x, _, low, high in points:
        bottom, top = _place(x, low, across, up), _place(x, high, across, up)
        if bottom and top:
            stretches[-1].append((bottom, top))
        elif stretches[-1]:
            stretches.append([])
    paths = [
        [top for _, top in stretch] + [bottom for bottom, _ in reversed(stretch)]
        for stretch in stretches
        if len(stretch) > 1
    ]
    return Markup("").join(
        Markup('<path class="band" d="M{}z"/>').format("L".join(path)) for path in paths
    )


def _marks(
    series: Series, index: int, groups: list[str], points: list[Point], across: Axis, up: Axis
) -> Markup:
    group = groups.index(series.group)
    uses = []
    for x, y, _, _ in marked(series, points):
        right, above = across.fraction(x), up.fraction(y)
        if math.isfinite(above) and -1e-9 <= above <= 1 + 1e-9:
            uses.append(
                Markup('<use href="#mark-{}" x="{}" y="{}"/>').format(
                    mark_of(group)[0], _percent(right), _percent(1 - above)
                )
            )
    return (
        _opening(series, index, groups, "marks") + Markup("").join(uses) + Markup("</g>")
        if uses
        else Markup("")
    )


def _end_label(label: EndLabel) -> Markup:
    return Markup(
        '<text class="end c{}" data-group="{}" x="100%" dx="10" y="{}" dy=".32em">{}</text>'
    ).format(label.index % NUM_COLORS, label.index, _percent(1 - label.y), escape(label.group))


def _hover(series: Series, groups: list[str], points: list[Point]) -> dict[str, object]:
    def short(values: Iterable[float]) -> list[float | None]:
        return [float(f"{value:.5g}") if math.isfinite(value) else None for value in values]

    x, y, low, high = zip(*points, strict=True) if points else ((), (), (), ())
    data: dict[str, object] = {
        "name": series.name,
        "group": groups.index(series.group),
        "style": series.style,
    }
    data |= {"x": [float(f"{v:.9g}") if math.isfinite(v) else None for v in x], "y": short(y)}
    return data | ({"low": short(low), "high": short(high)} if series.low is not None else {})


def _percent(fraction: float) -> str:
    return f"{100 * fraction:.2f}%"
