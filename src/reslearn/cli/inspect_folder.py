"""`reslearn inspect FOLDER`: the content of a folder of images, its problems, and advice."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from reslearn.cli.output import print_json, process_pool
from reslearn.terminal import print_lines, printable_line, safe_console

if TYPE_CHECKING:
    from reslearn.report import Table
    from reslearn.survey import Survey

_MAX_ROWS = 40
_STYLES = {"error": "bold red", "warning": "yellow", "note": "dim"}


def inspect_folder(folder: Path, *, html: Path | None, workers: int | None, as_json: bool) -> bool:
    """Print a survey of a folder, and write its page.

    Returns:
        Whether there is no finding that is an error.
    """
    from reslearn.survey import survey_folder

    if html is not None:
        _check_target(html)
    num_workers = workers or os.cpu_count() or 1
    start_pool = None
    if num_workers > 1:
        # The fork server imports the libraries once, for all workers.
        preload = ("reslearn.data.pictures", "imagehash", "scipy.fftpack")
        start_pool = partial(process_pool, num_workers, preload)
    survey = survey_folder(folder, start_pool=start_pool)
    if html is not None:
        _write_page(survey, html)
    if as_json:
        from reslearn.survey import survey_json

        print_json(survey_json(survey), indent=2)
    else:
        _print_survey(survey)
        if html is not None:
            print_lines("", html)
    return all(finding.severity != "error" for finding in survey.findings)


def _check_target(html: Path) -> None:
    """Refuse a page that cannot be written, before minutes of work."""
    if html.is_dir():
        raise ValueError(
            f"--html {html} is a folder: pass the name of a file, as in {html}/page.html"
        )
    if not html.resolve().parent.is_dir():
        raise ValueError(f"--html {html}: there is no folder {html.parent}; create it first")


def _write_page(survey: Survey, html: Path) -> None:
    from reslearn.report import render_html
    from reslearn.runs import write_atomically
    from reslearn.survey import survey_page

    content = render_html(survey_page(survey)).encode()
    write_atomically(html, lambda file: file.write(content))


def _print_survey(survey: Survey) -> None:
    from rich.text import Text

    from reslearn.survey import example_lines, headline, make_tables, verdict

    facts = survey.facts
    console = safe_console(soft_wrap=True)
    console.print(f"{printable_line(str(facts.folder))}: {headline(survey)}")
    console.print(f"{verdict(survey)}, in {survey.seconds:,.1f} s\n")
    for finding in survey.findings:
        severity = Text(f"{finding.severity:<8} ", style=_STYLES[finding.severity])
        console.print(severity + printable_line(finding.line))
        for line in example_lines(finding, facts):
            console.print(Text(f"         {line}", style="dim"))
    if survey.advice:
        console.print("\nadvice")
    for advice in survey.advice:
        console.print(f"- {advice.text}")
    for table in make_tables(facts, max_rows=_MAX_ROWS):
        console.print()
        _print_table(table)


def _print_table(table: Table) -> None:
    from rich.table import Table as RichTable

    drawn = RichTable(
        box=None, header_style="bold", pad_edge=False, title=table.caption, title_justify="left"
    )
    heads = table.heads()
    for head in heads:
        drawn.add_column(head.name, justify="right" if head.numeric else "left")
    for row in table.rows:
        cells = []
        for cell, head in zip(row, heads, strict=True):
            is_number = isinstance(cell, int | float)
            cells.append(format(cell, head.format or ",") if is_number else str(cell or ""))
        drawn.add_row(*cells)
    safe_console(soft_wrap=True).print(drawn)
