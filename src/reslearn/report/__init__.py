"""Reports: figures, tables and self-contained HTML pages, made from plain data.

This package does not import torch. matplotlib is imported only when a figure is drawn.
"""

from reslearn.report.confusion import Confusion
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
    Page,
    Panels,
    Section,
    Series,
    Table,
    Verdict,
)
from reslearn.report.diagram import Box, Diagram, LayerGroup
from reslearn.report.gallery import Gallery, Picture, PictureGroup, thumbnail
from reslearn.report.markup import render_html
from reslearn.report.run import run_page
from reslearn.report.study import study_page
from reslearn.report.write import write_page

__all__ = [
    "Box",
    "Cell",
    "Code",
    "Column",
    "Confusion",
    "Diagram",
    "Drawing",
    "Effect",
    "Facts",
    "Figure",
    "Forest",
    "Gallery",
    "HeatMap",
    "Item",
    "LayerGroup",
    "Page",
    "Panels",
    "Picture",
    "PictureGroup",
    "Section",
    "Series",
    "Table",
    "Verdict",
    "render_html",
    "run_page",
    "study_page",
    "thumbnail",
    "write_page",
]
