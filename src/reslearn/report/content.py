"""What a page is made of: plain frozen values, no drawing and no HTML.

Place in the paper: figures 1, 4 and 6 are curves with thin dashed training error and bold test error, figure 7 is lines
over layers, tables 2 to 6 are conditions with errors. A `Figure` and a `Table` say just that; `markup`, `svg`, `heat` and
`png` draw them.
Legend: a series has N points, x and y of length N; a NaN or infinite value is a gap, never a zero.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, get_args

from reslearn.report.diagram import Diagram

Style = Literal["line", "dashed", "thin", "thin-dashed"]
VerdictOutcome = Literal[
    "shown",
    "not shown",
    "reproduced",
    "not reproduced",
    "undecided",
    "not testable here",
    "not run here",
]

FILE_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")


def _numbers(values: Iterable[float | None], where: str) -> tuple[float, ...]:
    try:
        return tuple(math.nan if value is None else float(value) for value in values)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{where}: every value must be a number or None ({error})") from None


def _check_name(name: str) -> None:
    if not FILE_NAME.fullmatch(name):
        raise ValueError(
            f"figure name {name!r}: it names files, so use a-z, 0-9, - and _ only, at most 64"
        )


@dataclass(frozen=True, slots=True)
class Series:
    """One curve. `style`: "line" is bold (the paper's test error), "dashed" thin and dashed (training error), "thin" and
    "thin-dashed" one of several runs behind a mean of either. Series of one `group` (default: the name) share a color, a
    marker and a legend entry. `low` and `high` bound an interval drawn as a band. Raises ValueError where lengths differ.
    """

    name: str
    x: Sequence[float]
    y: Sequence[float | None]
    style: Style = "line"
    group: str = ""
    low: Sequence[float | None] | None = None
    high: Sequence[float | None] | None = None

    def __post_init__(self) -> None:
        if self.style not in get_args(Style):
            raise ValueError(
                f"series {self.name!r}: style {self.style!r} is not one of {', '.join(get_args(Style))}"
            )
        if (self.low is None) != (self.high is None):
            raise ValueError(
                f"series {self.name!r}: low and high belong together, only one was given"
            )
        for key in ("x", "y", "low", "high"):
            if getattr(self, key) is not None:
                object.__setattr__(
                    self, key, _numbers(getattr(self, key), f"series {self.name!r}, {key}")
                )
        for key in ("y", "low", "high"):
            values = getattr(self, key)
            if values is not None and len(values) != len(self.x):
                raise ValueError(
                    f"series {self.name!r}: {len(self.x)} x values but {len(values)} of {key}"
                )
        if not self.group:
            object.__setattr__(self, "group", self.name)

    def points(self) -> list[tuple[float, float, float, float]]:
        """(x, y, low, high) a point, NaN where there is nothing. Numbers only: what the drawings and the CSV are made from."""
        nothing = (math.nan,) * len(self.x)
        return list(zip(self.x, self.y, self.low or nothing, self.high or nothing, strict=True))  # type: ignore[arg-type]


@dataclass(frozen=True, slots=True)
class Figure:
    """Curves over one pair of axes. `name` becomes figures/NAME.png and .csv, so only a-z, 0-9, - and _ are allowed.
    `styles` says what a style stands for here, e.g. {"line": "test error", "dashed": "training error"}; it makes a key
    that switches all series of a style on and off. `y_limits` cuts, it does not rescale the numbers.
    """

    name: str
    title: str
    caption: str
    x_label: str
    y_label: str
    series: Sequence[Series]
    y_log: bool = False
    y_limits: tuple[float, float] | None = None
    styles: Mapping[Style, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _check_name(self.name)
        if self.y_limits is not None:
            low, high = self.y_limits
            if not low < high or (self.y_log and low <= 0):
                raise ValueError(
                    f"figure {self.name!r}: y_limits {self.y_limits} must rise"
                    + (" and be above 0" if self.y_log else "")
                )

    def groups(self) -> list[str]:
        """Groups in order of first appearance: the n-th has the n-th color and marker, in the page and in the PNG."""
        return list(dict.fromkeys(series.group for series in self.series))


@dataclass(frozen=True, slots=True)
class HeatMap:
    """Values over a grid, as shades: values[row][column] stands at y[row] and x[column]; None or NaN leaves its cell empty. `name` is as a
    figure's. `log` shades by the logarithm of the values, which must then be above 0. Raises ValueError where lengths differ.
    """

    name: str
    title: str
    caption: str
    x_label: str
    y_label: str
    value_label: str
    x: Sequence[float]
    y: Sequence[float]
    values: Sequence[Sequence[float | None]]
    log: bool = False

    def __post_init__(self) -> None:
        _check_name(self.name)
        object.__setattr__(
            self, "values", tuple(_numbers(row, f"heat map {self.name!r}") for row in self.values)
        )
        if len(self.values) != len(self.y) or any(len(row) != len(self.x) for row in self.values):
            raise ValueError(
                f"heat map {self.name!r}: {len(self.y)} rows of {len(self.x)} values are needed, one for each y and x"
            )
        if self.log and any(
            value is not None and value <= 0 for row in self.values for value in row
        ):
            raise ValueError(
                f"heat map {self.name!r}: every value must be above 0 to have a logarithm"
            )


@dataclass(frozen=True, slots=True)
class Effect:
    """A row of a forest plot: what was changed, the `values` of every seed, their mean and its interval (NaN: there is none), and whether a
    rule `decided` that the effect is there."""

    name: str
    values: Sequence[float]
    mean: float
    low: float
    high: float
    decided: bool


@dataclass(frozen=True, slots=True)
class Forest:
    """Effects below each other over one axis with 0 in it, as clinical trials are compared. `name` is as a figure's; effects within
    `margin` of 0 are as good as none, which is shaded."""

    name: str
    title: str
    caption: str
    x_label: str
    effects: Sequence[Effect]
    margin: float = 0.0

    def __post_init__(self) -> None:
        _check_name(self.name)


Drawing = Figure | HeatMap | Forest


@dataclass(frozen=True, slots=True)
class Panels:
    """Figures side by side where there is room, as in the paper's figures 1, 4 and 6; below each other on a phone."""

    figures: Sequence[Drawing]


@dataclass(frozen=True, slots=True)
class Verdict:
    """The outcome of an experiment as a table cell: a symbol, a word and a color, so that no reader needs the color."""

    outcome: VerdictOutcome
    note: str = ""

    def __post_init__(self) -> None:
        if self.outcome not in get_args(VerdictOutcome):
            raise ValueError(
                f"verdict {self.outcome!r} is not one of: {', '.join(get_args(VerdictOutcome))}"
            )


@dataclass(frozen=True, slots=True)
class Number:
    """A number with a format of its own, where the column's does not do."""

    value: float
    format: str


Cell = str | int | float | None | Verdict | Number


@dataclass(frozen=True, slots=True)
class Column:
    """A column's head. `format` is a format specification for its numbers (".2f"); `numeric` aligns text such as
    "8.75 ± 0.16" to the right as numbers are, default: when every cell is a number."""

    name: str
    format: str = ""
    numeric: bool | None = None


@dataclass(frozen=True, slots=True)
class Table:
    """Rows under columns; the first cell of a row names it. Columns may be given as plain names. Raises ValueError where
    a row has not one cell a column."""

    caption: str
    columns: Sequence[Column | str]
    rows: Sequence[Sequence[Cell]]

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row) != len(self.columns):
                raise ValueError(
                    f"table {self.caption!r}: {len(self.columns)} columns but a row of {len(row)} cells: {list(row)!r}"
                )

    def heads(self) -> list[Column]:
        """Every column as a `Column`, with `numeric` decided."""
        heads = [
            column if isinstance(column, Column) else Column(column) for column in self.columns
        ]
        cells = list(zip(*self.rows, strict=True)) or [()] * len(heads)
        return [
            Column(
                head.name,
                head.format,
                _all_numbers(column) if head.numeric is None else head.numeric,
            )
            for head, column in zip(heads, cells, strict=True)
        ]


def _all_numbers(cells: Sequence[Cell]) -> bool:
    present = [cell for cell in cells if cell is not None]
    return bool(present) and all(isinstance(cell, int | float | Number) for cell in present)


@dataclass(frozen=True, slots=True)
class Facts:
    """Short label and value pairs (device, time, seeds), set as a list of definitions."""

    rows: Mapping[str, str]
    caption: str = ""


@dataclass(frozen=True, slots=True)
class Code:
    """Commands or a file, word for word, in a box that scrolls."""

    text: str
    caption: str = ""


Item = str | Drawing | Panels | Diagram | Table | Facts | Code


@dataclass(frozen=True, slots=True)
class Section:
    """A headed part of a page: text (blank lines part paragraphs, `backticks` set code), then its items in order."""

    title: str
    text: str = ""
    items: Sequence[Item] = ()


@dataclass(frozen=True, slots=True)
class Page:
    """A whole page. `facts` stand under the title: the circumstances a reader needs before any number."""

    title: str
    subtitle: str = ""
    sections: Sequence[Section] = ()
    facts: Mapping[str, str] = field(default_factory=dict)

    def figures(self) -> list[Drawing]:
        """All figures in order. Raises ValueError where two would write the same files."""
        found: list[Drawing] = []
        for item in (item for section in self.sections for item in section.items):
            found += (
                [item]
                if isinstance(item, Drawing)
                else list(item.figures)
                if isinstance(item, Panels)
                else []
            )
        names = [figure.name for figure in found]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(
                f"page {self.title!r}: two figures named {', '.join(twice)} would write the same files"
            )
        return found
