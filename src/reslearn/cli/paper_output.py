"""Print the reports of `reslearn paper` to the terminal."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from reslearn.terminal import safe_console

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from reslearn.paper import Experiment, Report
    from reslearn.paper.inventory import ClaimsItem, ExhibitItem
    from reslearn.report import Table as ReportTable

_STYLES = {
    "shown": "green",
    "reproduced": "green",
    "not shown": "red",
    "not reproduced": "red",
    "undecided": "yellow",
    "not testable here": "dim",
    "not run here": "dim",
}


def print_claims(report: Report, page: Path) -> None:
    """Print the table of claims."""
    from rich.table import Table
    from rich.text import Text

    table = Table("", "claim", "measured", "verdict", show_lines=True)
    for experiment, result in zip(report.experiments, report.results, strict=True):
        outcome = str(result.outcome)
        verdict = Text(outcome, style=_STYLES[outcome])
        table.add_row(experiment.name, Text(experiment.text), Text(result.measured), verdict)
    console = safe_console()
    console.print(table)
    num_runs = len(report.trained.runs)
    console.print(f"{num_runs} runs, {report.seconds:.0f} s. Page: {page}")


def print_exhibit(report: Report, page: Path) -> None:
    """Print the lines of a table or figure, the reasons of their verdicts, and its other tables."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    from reslearn import paper

    (experiment,), (result,) = report.experiments, report.results
    console = safe_console()
    table = Table(
        "",
        *paper.HEADS,
        "verdict",
        title=experiment.text,
        title_justify="left",
        box=box.HORIZONTALS,
    )
    table.columns[-1].no_wrap = True
    for line in result.lines:
        verdict = Text(line.outcome, style=_STYLES[line.outcome])
        table.add_row(line.what, *paper.line_texts(line), verdict)
    console.print(table)
    for reason in paper.reasons_of(result.lines):
        console.print(f"  {reason}")
    for extra_table in result.tables:
        _print_table(console, extra_table)
    for note in (*result.notes, *report.notes):
        console.print(note)
    num_runs = len(report.trained.runs)
    runs = f"{num_runs} runs, {report.seconds:.0f} s. " if num_runs else ""
    console.print(f"{runs}Page: {page}")


def print_inventory(
    items: Iterable[ExhibitItem], claims_item: ClaimsItem, experiments: Iterable[Experiment]
) -> None:
    """Print the table of tables and figures, and the lines of the claims."""
    console = safe_console()
    console.print(_exhibits_table(items))
    for line in _claims_lines(claims_item, experiments):
        console.print(line, soft_wrap=True)


def _print_table(console: Console, content: ReportTable) -> None:
    from rich import box
    from rich.table import Column, Table

    # On a narrow terminal a number continues on the next line instead of ending in dots.
    heads = (Column(head.name, overflow="fold") for head in content.heads())
    table = Table(
        *heads,
        title=content.caption,
        title_justify="left",
        box=box.HORIZONTALS,
        padding=(0, 1, 0, 0),
    )
    for row in content.rows:
        table.add_row(*map(_cell_text, row))
    console.print(table)


def _cell_text(cell: object) -> str:
    if cell is None:
        return ""
    return f"{cell:g}" if isinstance(cell, float) else str(cell)


def _exhibits_table(items: Iterable[ExhibitItem]) -> Table:
    from rich import box
    from rich.table import Table

    heads = ("name", "what", "needs", "hours on\n2 cores,\nbf16", "on one\nGPU", "committed\nruns")
    table = Table(
        *heads,
        title="Tables and figures",
        title_justify="left",
        box=box.HORIZONTALS,
        padding=(0, 1, 0, 0),
    )
    for item in items:
        counts = [
            f"{budget} {num_complete} of {num_needed}"
            for budget, (num_complete, num_needed) in item.committed.items()
            if num_complete
        ]
        committed = "\n".join(counts) or "none"
        about = "~" if item.estimated else ""
        table.add_row(
            item.name,
            item.title,
            "nothing" if item.data == "none" else item.data,
            _hours(item.hours_two_cores),
            f"{about}{_hours(item.hours_one_gpu)}",
            committed if item.num_runs else "exact, no run",
        )
    return table


def _claims_lines(item: ClaimsItem, experiments: Iterable[Experiment]) -> list[str]:
    lines = [
        f"Claims (reslearn paper claims) need CIFAR-10. The full budget takes {item.num_runs} "
        f"runs, {item.hours_two_cores:,.0f} hours on 2 cores or {item.hours_one_gpu:,.0f} on one "
        "GPU."
    ]
    for path, (data, num_shown, num_claims) in item.committed.items():
        lines.append(f"  committed: {path}, {num_shown} of {num_claims} shown on {data}")
    lines += [f"  {claim.name:4} {claim.text} ({claim.section})" for claim in experiments]
    return lines


def _hours(hours: float | None) -> str:
    if hours is None:
        return "-"
    return f"{hours:,.0f}" if hours >= 10 else f"{hours:.1f}"
