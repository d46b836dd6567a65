"""`reslearn report`: run folders become one page that opens offline."""

from pathlib import Path
from typing import Annotated

import typer

from reslearn.cli.options import OUTPUT
from reslearn.terminal import print_lines

EXAMPLES = ("reslearn report runs/digits", "reslearn report results/degradation --out page")


def report(
    folders: Annotated[
        list[Path], typer.Argument(help="A run folder, or folders that contain runs.")
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            rich_help_panel=OUTPUT,
            help="Write report.html and its figures to this folder. Default: the first folder.",
        ),
    ] = None,
    title: Annotated[
        str | None,
        typer.Option(
            rich_help_panel=OUTPUT,
            help="Use this title for the page. Default: the name of the first folder.",
        ),
    ] = None,
) -> None:
    """Write one self-contained page with curves, tables and verdicts.

    Each figure is also written as PNG, and its numbers as CSV.
    """
    from reslearn.report import run_page, study_page, write_page
    from reslearn.runs import RunFolder
    from reslearn.study import collect

    out = out or folders[0]
    if len(folders) == 1 and RunFolder(folders[0]).exists():
        page = run_page(RunFolder.open(folders[0]))
    else:
        page = study_page(collect(*folders), title=title or folders[0].resolve().name)
    print_lines(write_page(page, out))
