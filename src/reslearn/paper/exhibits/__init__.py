"""The tables and figures of the paper: one module per command; Tables 2 to 4 share a module."""

import importlib
from typing import cast

from reslearn.paper.experiment import ExperimentModule

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


def load_exhibit(name: str) -> ExperimentModule:
    """Return a table or figure by the name of its command.

    Raises:
        ValueError: If the paper has no such table or figure, or if it is no experiment.
    """
    if name not in NAMES:
        raise ValueError(f"there is no table or figure {name!r}; allowed are {', '.join(NAMES)}")
    tables = importlib.import_module(f"{__name__}.imagenet_tables").TABLES
    if name in tables:
        return cast(ExperimentModule, tables[name])
    return cast(ExperimentModule, importlib.import_module(f"{__name__}.{name}"))
