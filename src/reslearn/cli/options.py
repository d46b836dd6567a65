"""Options that several commands share, with one help text each."""

import copy
from pathlib import Path
from typing import Annotated, Any, get_args

import typer

DATA, RECIPE, RUN, MACHINE, OUTPUT = "Data", "Recipe", "Run folder", "Machine", "Output"
"""Titles of the panels in --help."""

DataDirOption = Annotated[
    Path | None,
    typer.Option(
        rich_help_panel=DATA,
        help="Search this folder for data sets first, then RESLEARN_DATA and the cache.",
    ),
]
DeviceOption = Annotated[
    str | None,
    typer.Option(
        rich_help_panel=MACHINE,
        help="Compute on cpu, cuda or cuda:N. Default: CUDA if available.",
    ),
]
ThreadsOption = Annotated[
    int | None,
    typer.Option(
        min=1, rich_help_panel=MACHINE, help="Use this many CPU threads. Default: all cores."
    ),
]
JobsOption = Annotated[
    int | None,
    typer.Option(
        min=1,
        rich_help_panel=MACHINE,
        help="Train this many runs at the same time. Default: one per core.",
    ),
]
EngineOption = Annotated[
    str,
    typer.Option(
        rich_help_panel=MACHINE,
        help="Run on this machine (local), or on a Ray cluster that shares the folder (ray).",
    ),
]
JsonOption = Annotated[
    bool, typer.Option("--json", rich_help_panel=OUTPUT, help="Print the result as JSON.")
]


def hidden(option: Any) -> Any:
    """Return the annotation of an option that --help does not list."""
    value_type, information = get_args(option)
    information = copy.copy(information)
    information.hidden = True
    return Annotated[value_type, information]
