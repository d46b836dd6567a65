"""Reports: figures, tables and one-file HTML pages from plain data. Knows nothing of torch; matplotlib is imported when drawn."""

from reslearn.report.content import (
    Cell,
    Code,
    Column,
    Drawing,
    Effect,
    Facts,
    Figure,
    Forest,
    HeatMap,
    Item,
    Number,
    Page,
    Panels,
    Section,
    Series,
    Table,
    Verdict,
)
from reslearn.report.diagram import Box, Diagram, LayerGroup
from reslearn.report.markup import render_html
from reslearn.report.run import run_page
from reslearn.report.study import study_page
from reslearn.report.write import write_page

__all__ = [
    "Box",
    "Cell",
    "Code",
    "Column",
    "Diagram",
    "Drawing",
    "Effect",
    "Facts",
    "Figure",
    "Forest",
    "HeatMap",
    "Item",
    "LayerGroup",
    "Number",
    "Page",
    "Panels",
    "Section",
    "Series",
    "Table",
    "Verdict",
    "render_html",
    "run_page",
    "study_page",
    "write_page",
]
