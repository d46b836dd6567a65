"""The tables and figures of the paper, one module each, under the name of the command; tables 2 to 4, alike but for data, share one."""

import importlib
from typing import cast

from reslearn.paper.exhibit import ExhibitModule

NAMES = (
    "table1",
    "table2",
    "table3",
    "table4",
    "table5",
    "table6",
    "fig1",
    "fig4",
    "fig6",
    "fig7",
    "ambiguities",
)


def load_exhibit(name: str) -> ExhibitModule:
    """The module of that name. ValueError where the paper has no such table or figure, or it is no experiment."""
    if name not in NAMES:
        raise ValueError(f"no table or figure {name!r}: there are {', '.join(NAMES)}")
    if name in (alike := importlib.import_module(f"{__name__}.imagenet_tables").TABLES):
        return cast(ExhibitModule, alike[name])
    return cast(ExhibitModule, importlib.import_module(f"{__name__}.{name}"))
