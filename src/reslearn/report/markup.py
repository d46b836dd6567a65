"""A `Page` as one self-contained HTML text: style, script, curves and downloads are inside.

The template escapes every name, caption and number. A content security policy allows only the
script of the page, identified by its hash, and no network request. A run or a class with a hostile
name is therefore harmless text.
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

from reslearn.report.confusion import Confusion, confusion_entry
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
    Page,
    Panels,
    Table,
    Verdict,
)
from reslearn.report.diagram import Diagram, diagram_entry
from reslearn.report.forest import ROW_PX, draw_forest
from reslearn.report.gallery import Gallery, gallery_entry
from reslearn.report.heat import draw_heat
from reslearn.report.palette import (
    DARK,
    DARK_GROUND,
    LIGHT,
    LIGHT_GROUND,
    MARKERS,
    NUM_COLORS,
    marker_of,
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
MAX_POINTS_PER_PAGE = 30_000
"""Points drawn on a page, about 27 bytes each. With the downloads, a page stays below 2 MB."""
MAX_DOWNLOAD_BYTES = 700_000
"""Size of the files embedded in the page. Further files are linked beside the page."""
LONG_CHARACTERS = 28
"""A table with a longer text becomes a list of cards on a phone."""

Downloads = Mapping[str, tuple[str, bytes]]
"""Path relative to the page, e.g. figures/errors.csv, to (media type, content)."""


def render_html(page: Page, downloads: Downloads | None = None) -> str:
    """Return the page as HTML.

    Args:
        page: The page.
        downloads: Files that the figures link, figures/NAME.png and figures/NAME.csv. They are
            embedded into the page, small files first, until `MAX_DOWNLOAD_BYTES` are used.
    """
    figures = [figure for figure in page.figures() if isinstance(figure, Figure)]
    num_series = sum(len(figure.series) for figure in figures)
    max_points = min(400, max(24, MAX_POINTS_PER_PAGE // max(1, num_series)))
    entries = _Entries(max_points, links=_embed(downloads or {}))
    lead = entries.entry(page.lead) if page.lead is not None else None
    sections = []
    for section in page.sections:
        items = [entries.entry(item) for item in section.items]
        sections.append(
            {
                "title": section.title,
                "text": section.text,
                "entries": items,
                "is_folded": section.is_folded,
            }
        )
    script = _package_text("report.js")
    script_hash = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return _template().render(
        page=page,
        lead=lead,
        sections=sections,
        style=Markup(_color_css() + _package_text("report.css")),
        script=Markup(script),
        script_hash=f"sha256-{script_hash}",
        markers=MARKERS,
        marker_of=marker_of,
        num_colors=NUM_COLORS,
        symbols=SYMBOLS,
    )


def mark_code(text: object) -> Markup:
    """Return escaped text in which `backticks` mark code."""
    return Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(text))))


class _Entries:
    """Turns items into the values that the template prints, and numbers tables and figures."""

    def __init__(self, max_points: int, links: Mapping[str, str]) -> None:
        self.max_points = max_points
        self.links = links
        self.num_figures = 0
        self.num_tables = 0

    def entry(self, item: Item) -> dict[str, Any]:
        match item:
            case str():
                return {"kind": "text", "text": item}
            case Table():
                self.num_tables += 1
                return {"number": self.num_tables} | _table_entry(item)
            case Figure() | HeatMap() | Forest():
                self.num_figures += 1
                entry = {"number": self.num_figures, "figure": item}
                return entry | self._drawing_entry(item) | self._links(item.name)
            case Diagram():
                self.num_figures += 1
                return {"number": self.num_figures} | diagram_entry(item)
            case Confusion():
                self.num_tables += 1
                return {"number": self.num_tables} | confusion_entry(item)
            case Gallery():
                return gallery_entry(item)
            case Panels():
                return {"kind": "panels", "figures": [self.entry(panel) for panel in item.figures]}
            case Facts():
                return {"kind": "facts", "rows": item.rows, "caption": item.caption}
            case Code():
                return {"kind": "code", "text": item.text, "caption": item.caption}

    def _drawing_entry(self, drawing: Drawing) -> dict[str, Any]:
        match drawing:
            case Figure():
                curves = draw(drawing, self.max_points)
                return {"kind": "figure", "groups": drawing.groups(), "drawing": curves}
            case HeatMap():
                return {"kind": "heat", "svg": draw_heat(drawing)}
            case Forest():
                height_px = ROW_PX * len(drawing.effects)
                return {"kind": "forest", "svg": draw_forest(drawing), "height_px": height_px}

    def _links(self, name: str) -> dict[str, str]:
        png, csv = f"figures/{name}.png", f"figures/{name}.csv"
        return {"png": self.links.get(png, png), "csv": self.links.get(csv, csv)}


def _table_entry(table: Table) -> dict[str, Any]:
    heads = table.heads()
    rows = []
    for row in table.rows:
        rows.append([_cell_entry(cell, head) for cell, head in zip(row, heads, strict=True)])
    has_long_text = any(cell["long"] for row in rows for cell in row)
    return {
        "kind": "table",
        "caption": table.caption,
        "heads": heads,
        "rows": rows,
        "is_cards": has_long_text,
    }


def _cell_entry(cell: Cell, head: Column) -> dict[str, Any]:
    if isinstance(cell, Verdict):
        is_long = len(cell.note) > LONG_CHARACTERS
        return {"outcome": cell.outcome, "note": cell.note, "long": is_long, "short": False}
    if isinstance(cell, str):
        is_long, is_short = len(cell) > LONG_CHARACTERS, len(cell) <= 24
        return {"outcome": "", "text": cell, "long": is_long, "short": is_short}
    text = _number_text(cell, head.format)
    return {"outcome": "", "text": text, "long": False, "short": True}


def _number_text(value: float | None, specification: str) -> str:
    """Return a number with a true minus sign; a dash if there is no number."""
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return "–"
    default = "," if isinstance(value, int) else ".4g"
    return format(value, specification or default).replace("-", "\N{MINUS SIGN}")


def _embed(downloads: Downloads) -> dict[str, str]:
    """Return the data addresses of the embedded files, by path."""
    available, links = MAX_DOWNLOAD_BYTES, {}
    for path, (media_type, content) in sorted(downloads.items(), key=lambda item: len(item[1][1])):
        link = f"data:{media_type};base64,{base64.b64encode(content).decode()}"
        if len(link) <= available:
            available -= len(link)
            links[path] = link
    return links


def _paragraphs(text: str) -> Markup:
    paragraphs = [part.strip() for part in re.split(r"\n\s*\n", text)]
    marked = [Markup("<p>{}</p>").format(mark_code(part)) for part in paragraphs if part]
    return Markup("\n").join(marked)


def _color_css() -> str:
    """Return the colors of background and series as CSS; c0 to c7 are the classes of series."""
    light = "".join(f"--c{index}:{color};" for index, color in enumerate(LIGHT))
    dark = "".join(f"--c{index}:{color};" for index, color in enumerate(DARK))
    classes = "".join(f".c{index}{{color:var(--c{index})}}" for index in range(NUM_COLORS))
    return (
        f":root{{--ground:{LIGHT_GROUND};{light}}}\n"
        f"@media (prefers-color-scheme: dark){{:root{{--ground:{DARK_GROUND};{dark}}}}}\n"
        f"{classes}\n"
    )


@functools.cache
def _package_text(name: str) -> str:
    return (resources.files("reslearn.report") / "template" / name).read_text(encoding="utf-8")


@functools.cache
def _template() -> Template:
    environment = Environment(autoescape=True, undefined=StrictUndefined)
    environment.filters |= {"mark_code": mark_code, "paragraphs": _paragraphs}
    return environment.from_string(_package_text("report.html.jinja"))
