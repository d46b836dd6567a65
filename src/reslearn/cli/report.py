"""`reslearn report`: run folders to one page that opens offline."""

from pathlib import Path
from typing import Annotated

import typer

EXAMPLES = ("reslearn report runs/digits", "reslearn report results/degradation --out page")


def report(
    folders: Annotated[
        list[Path], typer.Argument(help="A run folder, or folders with runs in them.")
    ],
    out: Annotated[
        Path | None,
        typer.Option(help="Where report.html and its figures go; default: the first folder."),
    ] = None,
    title: Annotated[
        str | None, typer.Option(help="The page's title; default: the first folder's name.")
    ] = None,
) -> None:
    """Write one self-contained page: curves, tables, verdicts; each figure also as PNG, its numbers as CSV."""
    from reslearn.report import run_page, study_page, write_page
    from reslearn.runs import RunFolder
    from reslearn.study import collect

    out = out or folders[0]
    if len(folders) == 1 and RunFolder(folders[0]).exists():
        page = run_page(RunFolder.open(folders[0]))
    else:
        page = study_page(collect(*folders), title=title or folders[0].resolve().name)
    typer.echo(write_page(page, out))
