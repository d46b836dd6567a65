"""`reslearn report`: run folders become one page that opens offline."""

from pathlib import Path
from typing import Annotated

import typer

from reslearn.cli.options import OUTPUT, DataDirOption
from reslearn.terminal import print_lines

EXAMPLES = (
    "reslearn report runs/digits",
    "reslearn report runs/photos --evaluate",
    "reslearn report results/degradation --out page",
)


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
    evaluate: Annotated[
        bool,
        typer.Option(
            "--evaluate",
            rich_help_panel=OUTPUT,
            help="Evaluate the run first, as `reslearn evaluate RUN` does.",
        ),
    ] = False,
    data_dir: DataDirOption = None,
) -> None:
    """Write one self-contained page with curves, tables and verdicts.

    Each figure is also written as PNG, and its numbers as CSV. The page of one run also
    shows the evaluation that `reslearn evaluate RUN` or `--evaluate` saved.
    """
    from reslearn.report import run_page, study_page, write_page
    from reslearn.runs import RunFolder
    from reslearn.study import collect

    if evaluate:
        _evaluate(folders, data_dir)
    out = out or folders[0]
    if len(folders) == 1 and RunFolder(folders[0]).exists():
        page = run_page(RunFolder.open(folders[0]))
    else:
        page = study_page(collect(*folders), title=title or folders[0].resolve().name)
    print_lines(write_page(page, out))


def _evaluate(folders: list[Path], data_dir: Path | None) -> None:
    """Evaluate one run on its test images, and save the evaluation in its folder."""
    from reslearn.cli.detailed_evaluation import evaluate_in_detail
    from reslearn.train import Machine

    if len(folders) != 1:
        raise ValueError(f"--evaluate needs one run, not {len(folders)} folders: name one run")
    evaluate_in_detail(str(folders[0]), None, Machine(data_dir=data_dir))
