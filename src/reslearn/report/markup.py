"""A `Page` as one HTML text that needs nothing but itself: style, script, curves and downloads are inside.

Every name, caption and number is escaped by the template; a content security policy allows this page's own script, by its
hash, and no request at all. So a run or a class with a hostile name is a harmless text.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import math
import re
from collections.abc import Mapping
from importlib import resources
from typing import Any

from jinja2 import Environment, StrictUndefined, Template
from markupsafe import Markup, escape

from reslearn.report.content import (
    Cell,
    Code,
    Column,
    Drawing,
    Facts,
    Figure,
    Forest,
    HeatMap,
    Item,
    Number,
    Page,
    Panels,
    Table,
    Verdict,
)
from reslearn.report.diagram import Diagram, entry
from reslearn.report.forest import ROW_PX, draw_forest
from reslearn.report.heat import draw_heat
from reslearn.report.palette import (
    DARK,
    DARK_GROUND,
    LIGHT,
    LIGHT_GROUND,
    MARKS,
    NUM_COLORS,
    mark_of,
)
from reslearn.report.svg import draw

SYMBOLS = {
    "shown": "✓",
    "reproduced": "✓",
    "not shown": "✗",
    "not reproduced": "✗",
    "undecided": "?",
    "not testable here": "–",
    "not run here": "–",
}
NUM_POINTS_OF_PAGE = 30_000
"""Points drawn on a whole page; about 27 bytes each. With the downloads below, a page stays under 2 MB."""
NUM_BYTES_OF_DOWNLOADS = 700_000
"""Files put into the page; what does not fit any more is linked beside it."""

Downloads = Mapping[str, tuple[str, bytes]]
"""File path relative to the page, e.g. figures/errors.csv, to (media type, content)."""


def render_html(page: Page, downloads: Downloads | None = None) -> str:
    """The page as HTML. Figures link figures/NAME.png and .csv; those in `downloads` are embedded while there is room."""
    figures = page.figures()
    num_series = sum(len(figure.series) for figure in figures if isinstance(figure, Figure))
    max_points = min(400, max(24, NUM_POINTS_OF_PAGE // max(1, num_series)))
    numbering = _Numbering(max_points, links=_embed(downloads or {}))
    sections = [
        {
            "title": section.title,
            "text": section.text,
            "entries": [numbering.entry(item) for item in section.items],
        }
        for section in page.sections
    ]
    script = _package_text("report.js")
    return _template().render(
        page=page,
        sections=sections,
        style=Markup(_colors() + _package_text("report.css")),
        script=Markup(script),
        script_hash="sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        marks=MARKS,
        mark_of=mark_of,
        num_colors=NUM_COLORS,
        symbols=SYMBOLS,
    )


class _Numbering:
    """Items to what the template prints, tables and figures counted from 1 through the page."""

    def __init__(self, max_points: int, links: Mapping[str, str]) -> None:
        self.max_points, self.links = max_points, links
        self.num_figures = self.num_tables = 0

    def entry(self, item: Item) -> dict[str, Any]:
        match item:
            case str():
                return {"kind": "text", "text": item}
            case Table():
                self.num_tables += 1
                heads = item.heads()
                rows = [
                    [_cell(cell, head) for cell, head in zip(row, heads, strict=True)]
                    for row in item.rows
                ]
                return {
                    "kind": "table",
                    "number": self.num_tables,
                    "caption": item.caption,
                    "heads": heads,
                    "rows": rows,
                }
            case Figure() | HeatMap() | Forest():
                self.num_figures += 1
                links = {
                    ending: self.links.get(path := f"figures/{item.name}.{ending}", path)
                    for ending in ("png", "csv")
                }
                return {"number": self.num_figures, "figure": item} | self._drawn(item) | links
            case Diagram():
                self.num_figures += 1
                return entry(item) | {"number": self.num_figures}
            case Panels():
                return {
                    "kind": "panels",
                    "figures": [self.entry(figure) for figure in item.figures],
                }
            case Facts():
                return {"kind": "facts", "rows": item.rows, "caption": item.caption}
            case Code():
                return {"kind": "code", "text": item.text, "caption": item.caption}

    def _drawn(self, item: Drawing) -> dict[str, Any]:
        match item:
            case Figure():
                return {
                    "kind": "figure",
                    "groups": item.groups(),
                    "drawing": draw(item, self.max_points),
                }
            case HeatMap():
                return {"kind": "heat", "svg": draw_heat(item)}
            case Forest():
                return {
                    "kind": "forest",
                    "svg": draw_forest(item),
                    "height_px": ROW_PX * len(item.effects),
                }


def _cell(cell: Cell, head: Column) -> dict[str, Any]:
    if isinstance(cell, Verdict):
        return {"outcome": cell.outcome, "note": cell.note, "long": False, "short": False}
    if isinstance(cell, str):
        return {"outcome": "", "text": cell, "long": len(cell) > 28, "short": len(cell) <= 24}
    value, specification = (
        (cell.value, cell.format) if isinstance(cell, Number) else (cell, head.format)
    )
    return {"outcome": "", "text": _number_text(value, specification), "long": False, "short": True}


def _number_text(value: float | None, specification: str) -> str:
    """A number as a reader wants it: true minus sign, a dash where there is none."""
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return "–"
    default = "," if isinstance(value, int) else ".4g"
    return format(value, specification or default).replace("-", "\N{MINUS SIGN}")


def _embed(downloads: Downloads) -> dict[str, str]:
    """Paths to data addresses, small files first so that most figures have theirs inside, as many as there is room for."""
    room, links = NUM_BYTES_OF_DOWNLOADS, {}
    for path, (media_type, content) in sorted(
        downloads.items(), key=lambda entry: len(entry[1][1])
    ):
        link = f"data:{media_type};base64,{base64.b64encode(content).decode()}"
        if len(link) <= room:
            room -= len(link)
            links[path] = link
    return links


def prose(text: object) -> Markup:
    """Escaped text in which `backticks` set code."""
    return Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(text))))


def _paragraphs(text: str) -> Markup:
    parts = [part.strip() for part in re.split(r"\n\s*\n", text) if part.strip()]
    return Markup("\n").join(Markup("<p>") + prose(part) + Markup("</p>") for part in parts)


def _colors() -> str:
    """Colors of ground and series as CSS, for light and for dark; c0 to c7 are the series' classes."""
    light = "".join(f"--c{i}:{color};" for i, color in enumerate(LIGHT))
    dark = "".join(f"--c{i}:{color};" for i, color in enumerate(DARK))
    classes = "".join(f".c{i}{{color:var(--c{i})}}" for i in range(NUM_COLORS))
    return (
        f":root{{--ground:{LIGHT_GROUND};{light}}}\n"
        f"@media (prefers-color-scheme: dark){{:root{{--ground:{DARK_GROUND};{dark}}}}}\n{classes}\n"
    )


@functools.cache
def _package_text(name: str) -> str:
    return (resources.files("reslearn.report") / "template" / name).read_text(encoding="utf-8")


@functools.cache
def _template() -> Template:
    environment = Environment(autoescape=True, undefined=StrictUndefined)
    environment.filters |= {"prose": prose, "paragraphs": _paragraphs}
    return environment.from_string(_package_text("report.html.jinja"))
