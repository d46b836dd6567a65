"""Elements of a page as plain frozen values, without drawing and without HTML.

Figures 1, 4 and 6 of the paper are curves: training error is thin and dashed, test error is bold.
Figure 7 shows lines over layers, and tables 2 to 6 list networks with their errors. `Figure` and
`Table` describe such elements; the modules `markup`, `svg`, `heat`, `forest` and `png` draw them.

A NaN or infinite value is a gap in a curve, never a zero.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, get_args

from reslearn.report.confusion import Confusion
from reslearn.report.diagram import Diagram
from reslearn.report.gallery import Gallery

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


@dataclass(frozen=True, slots=True)
class Series:
    """One curve of a figure.

    Args:
        name: Name of the curve in the hover text and in the CSV file.
        x: N positions.
        y: N values; None, NaN and infinity are gaps.
        style: "line" is bold (the paper's test error). "dashed" is thin and dashed (training
            error). "thin" and "thin-dashed" are single runs behind the mean of several runs.
        group: Series of one group share a color, a marker and a legend entry. Default: `name`.
        low: N lower ends of an interval, drawn as a band; only together with `high`.
        high: N upper ends of the interval.

    Raises:
        ValueError: If the lengths differ, the style is unknown, or a value is not a number.
    """

    name: str
    x: Sequence[float]
    y: Sequence[float | None]
    style: Style = "line"
    group: str = ""
    low: Sequence[float | None] | None = None
    high: Sequence[float | None] | None = None

    def __post_init__(self) -> None:
        label = f"series {self.name!r}"
        if self.style not in get_args(Style):
            raise ValueError(
                f"{label}: style {self.style!r} is not one of {', '.join(get_args(Style))}"
            )
        if (self.low is None) != (self.high is None):
            raise ValueError(f"{label}: low and high belong together; pass both or neither")
        for key in ("x", "y", "low", "high"):
            values = getattr(self, key)
            if values is None:
                continue
            numbers = _to_floats(values, f"{label}, {key}")
            object.__setattr__(self, key, numbers)
            if len(numbers) != len(self.x):
                raise ValueError(f"{label}: {len(self.x)} x values but {len(numbers)} of {key}")
        if not self.group:
            object.__setattr__(self, "group", self.name)

    def points(self) -> list[tuple[float, float, float, float]]:
        """Return (x, y, low, high) for each point, with NaN for a missing value."""
        missing = (math.nan,) * len(self.x)
        low, high = self.low or missing, self.high or missing
        return list(zip(self.x, self.y, low, high, strict=True))  # type: ignore[arg-type]


@dataclass(frozen=True, slots=True)
class Figure:
    """Curves over one pair of axes.

    Args:
        name: Becomes figures/NAME.png and figures/NAME.csv, so only a-z, 0-9, - and _ are allowed.
        title: Title of the figure.
        caption: Text below the figure.
        x_label: Name of the horizontal axis.
        y_label: Name of the vertical axis.
        series: The curves.
        y_log: Whether the vertical axis is logarithmic.
        y_limits: Visible range of the vertical axis. Values outside are cut off, not rescaled.
        styles: Meaning of each style, e.g. {"line": "test error", "dashed": "training error"}.
            The legend then has one button per style, which shows or hides its curves.
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
        if self.y_limits is None:
            return
        low, high = self.y_limits
        if not low < high or (self.y_log and low <= 0):
            condition = "must rise and be above 0" if self.y_log else "must rise"
            raise ValueError(f"figure {self.name!r}: y_limits {self.y_limits} {condition}")

    def groups(self) -> list[str]:
        """Return the groups in order of first appearance, which decides color and marker."""
        return list(dict.fromkeys(series.group for series in self.series))


@dataclass(frozen=True, slots=True)
class HeatMap:
    """Values over a grid, drawn as shades of one color.

    Args:
        name: File name, as in `Figure`.
        title: Title of the heat map.
        caption: Text below the heat map.
        x_label: Name of the horizontal axis.
        y_label: Name of the vertical axis.
        value_label: Name of the values.
        x: Positions of the columns.
        y: Positions of the rows, from bottom to top.
        values: values[row][column] belongs to y[row] and x[column]. None and NaN are empty cells.
        log: Whether shades follow the logarithm of the values, which must then be above 0.

    Raises:
        ValueError: If the lengths differ, or if a value has no logarithm.
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
        label = f"heat map {self.name!r}"
        rows = tuple(_to_floats(row, label) for row in self.values)
        object.__setattr__(self, "values", rows)
        if len(rows) != len(self.y) or any(len(row) != len(self.x) for row in rows):
            raise ValueError(
                f"{label}: {len(self.y)} rows of {len(self.x)} values are needed, "
                "one for each y and x"
            )
        if self.log:
            for row in rows:
                if any(value <= 0 for value in row):
                    raise ValueError(f"{label}: every value must be above 0 to have a logarithm")


@dataclass(frozen=True, slots=True)
class Effect:
    """One row of a forest plot.

    Args:
        name: The change whose effect was measured.
        values: The effect for each seed.
        mean: Mean over seeds; NaN if there is none.
        low: Lower end of the interval of the mean; NaN if there is none.
        high: Upper end of the interval.
        decided: Whether a rule decided that the effect exists.
    """

    name: str
    values: Sequence[float]
    mean: float
    low: float
    high: float
    decided: bool


@dataclass(frozen=True, slots=True)
class Forest:
    """Effects in rows over one axis that contains 0, as clinical trials are compared.

    Args:
        name: File name, as in `Figure`.
        title: Title of the plot.
        caption: Text below the plot.
        x_label: Name of the axis.
        effects: The rows.
        margin: Effects within `margin` of 0 count as negligible; this range is shaded.
    """

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
    """Figures side by side on a wide screen and below each other on a phone."""

    figures: Sequence[Drawing]


@dataclass(frozen=True, slots=True)
class Verdict:
    """The outcome of an experiment as a table cell: a symbol, a word and a color.

    The symbol and the word carry the meaning, so that no reader depends on the color.
    """

    outcome: VerdictOutcome
    note: str = ""

    def __post_init__(self) -> None:
        if self.outcome not in get_args(VerdictOutcome):
            outcomes = ", ".join(get_args(VerdictOutcome))
            raise ValueError(f"verdict {self.outcome!r} is not one of: {outcomes}")


Cell = str | int | float | None | Verdict


@dataclass(frozen=True, slots=True)
class Column:
    """The head of a table column.

    Args:
        name: Text of the head.
        format: Format specification of the numbers in the column, such as ".2f".
        numeric: Whether cells are aligned to the right, also for text such as "8.75 ± 0.16".
            By default True if every cell is a number.
    """

    name: str
    format: str = ""
    numeric: bool | None = None


@dataclass(frozen=True, slots=True)
class Table:
    """Rows under columns. The first cell of a row is the name of the row.

    Raises:
        ValueError: If a row does not have one cell per column.
    """

    caption: str
    columns: Sequence[Column | str]
    rows: Sequence[Sequence[Cell]]

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row) != len(self.columns):
                raise ValueError(
                    f"table {self.caption!r}: {len(self.columns)} columns but a row of "
                    f"{len(row)} cells: {list(row)!r}"
                )

    def heads(self) -> list[Column]:
        """Return every column as a `Column` whose `numeric` is True or False."""
        heads = []
        for index, column in enumerate(self.columns):
            head = column if isinstance(column, Column) else Column(column)
            numeric = head.numeric
            if numeric is None:
                numeric = _all_numbers([row[index] for row in self.rows])
            heads.append(Column(head.name, head.format, numeric))
        return heads


@dataclass(frozen=True, slots=True)
class Facts:
    """Short pairs of label and value (device, time, seeds), set as a list of definitions."""

    rows: Mapping[str, str]
    caption: str = ""


@dataclass(frozen=True, slots=True)
class Code:
    """Commands or the text of a file, printed verbatim in a box that scrolls."""

    text: str
    caption: str = ""


Item = str | Drawing | Panels | Confusion | Diagram | Gallery | Table | Facts | Code


@dataclass(frozen=True, slots=True)
class Section:
    """A part of a page with a heading: its text, then its items in order.

    Blank lines in the text separate paragraphs, and `backticks` mark code.

    Args:
        is_folded: Only the heading is visible until a reader opens the section.
    """

    title: str
    text: str = ""
    items: Sequence[Item] = ()
    is_folded: bool = False


@dataclass(frozen=True, slots=True)
class Page:
    """A complete page.

    Args:
        title: Title of the page.
        subtitle: The result of the page in one sentence.
        sections: The parts of the page.
        facts: Data, device, time and the like, listed above the sections.
        lead: The picture that shows the result. It is directly below the subtitle, so that readers
            see it without scrolling, also on a phone.
    """

    title: str
    subtitle: str = ""
    sections: Sequence[Section] = ()
    facts: Mapping[str, str] = field(default_factory=dict)
    lead: Drawing | Panels | None = None

    def figures(self) -> list[Drawing]:
        """Return all figures in order.

        Raises:
            ValueError: If two figures have the same name and would write the same files.
        """
        items: list[Item] = [] if self.lead is None else [self.lead]
        for section in self.sections:
            items += section.items
        figures: list[Drawing] = []
        for item in items:
            if isinstance(item, Panels):
                figures += item.figures
            elif isinstance(item, Drawing):
                figures.append(item)
        names = [figure.name for figure in figures]
        duplicates = sorted({name for name in names if names.count(name) > 1})
        if duplicates:
            raise ValueError(
                f"page {self.title!r}: two figures named {', '.join(duplicates)} would write "
                "the same files; give each figure its own name"
            )
        return figures


def _to_floats(values: Iterable[float | None], label: str) -> tuple[float, ...]:
    try:
        return tuple(math.nan if value is None else float(value) for value in values)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{label}: every value must be a number or None ({error})") from None


def _check_name(name: str) -> None:
    if not FILE_NAME.fullmatch(name):
        raise ValueError(
            f"figure name {name!r} becomes a file name: use only a-z, 0-9, - and _, "
            "at most 64 characters, and begin with a letter or digit"
        )


def _all_numbers(cells: Sequence[Cell]) -> bool:
    numbers = [cell for cell in cells if cell is not None]
    return bool(numbers) and all(isinstance(cell, int | float) for cell in numbers)
