"""`reslearn analyse RUN WHAT`: one trained net looked into (Fig. 7, claims C9 and C14)."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

EXAMPLES = (
    "reslearn analyse runs/digits responses",
    "reslearn analyse runs/digits gradients --json",
    "reslearn analyse runs/digits probes",
)


class What(StrEnum):
    """What is looked at."""

    responses = "responses"
    gradients = "gradients"
    probes = "probes"


def analyse(
    run: Annotated[Path, typer.Argument(help="The folder of a complete run.")],
    what: Annotated[What, typer.Argument(help="How strongly layers respond, gradients by layer and step, linear probes by stage.")],
    data_dir: Annotated[Path | None, typer.Option(help="Where data sets lie; default: RESLEARN_DATA, then the cache.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for programs.")] = False,
) -> None:
    """Look into one trained network, print what was found and keep it in the run as analysis/WHAT.json.

    responses: standard deviation of each 3x3 layer's output after batch norm (Fig. 7). gradients: norms by layer at the start, at each
    snapshot (recipe key evaluation.snapshots) and at the end. probes: logistic regression on each stage's output, trained and untrained.
    """
    from json import dumps

    from reslearn import analysis

    subject = analysis.Subject.open(run, data_dir=data_dir)
    make = {
        What.responses: analysis.responses_record,
        What.gradients: analysis.gradients_record,
        What.probes: analysis.probes_record,
    }
    record = analysis.plain(make[what](subject))
    path = analysis.write_analysis(subject.folder, what.value, record)
    if as_json:
        typer.echo(dumps(record, indent=1))
        return
    headings, rows = {What.responses: _responses, What.gradients: _gradients, What.probes: _probes}[what](record)
    _print(headings, rows, f"{record['model']}: {record['reads']}\n{path}")


def _responses(record: dict[str, Any]) -> tuple[list[str], list[list[Any]]]:
    rows = [[layer["layer"], layer["standard_deviation"], layer["gamma_rms"]] for layer in record["layers"]]
    return ["layer", "standard deviation", "rms of gamma"], rows


def _gradients(record: dict[str, Any]) -> tuple[list[str], list[list[Any]]]:
    moments = record["moments"]
    rows: list[list[Any]] = []
    for kind, title in (("weights", "by weights of"), ("signal", "by output of")):
        for index, layer in enumerate(moments[0][kind]):
            rows.append([f"{title} {layer['name']}", *(moment[kind][index]["norm"] for moment in moments)])
        rows.append([f"{kind}: first third / last third", *(moment[f"{kind}_ratio"] for moment in moments)])
    return ["gradient", *(f"step {moment['step']}" for moment in moments)], rows


def _probes(record: dict[str, Any]) -> tuple[list[str], list[list[Any]]]:
    pairs = zip(record["trained"], record["untrained"], strict=True)
    rows = [[trained["stage"], trained["test_error_pct"], untrained["test_error_pct"]] for trained, untrained in pairs]
    return ["stage", "trained: test error %", "untrained: test error %"], rows


def _print(headings: list[str], rows: list[list[Any]], note: str) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column(headings[0])
    for heading in headings[1:]:
        table.add_column(heading, justify="right")
    for name, *numbers in rows:
        table.add_row(name, *("-" if number is None else f"{number:.4g}" for number in numbers))
    console = Console(soft_wrap=True, highlight=False)
    console.print(table)
    console.print(f"\n{note}")
