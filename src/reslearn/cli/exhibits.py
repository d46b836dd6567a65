"""`reslearn paper table1`, `fig6` and the others: a table or figure of the paper, the paper's numbers beside ours, with verdicts."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from reslearn.cli.output import write_json
from reslearn.cli.study import engine_named
from reslearn.progress import print_progress

if TYPE_CHECKING:
    from reslearn.paper import Budget, ExhibitReport
    from reslearn.study import Engine

# Name and the line of help. The modules are in paper/exhibits; they are not imported for `--help`.
EXHIBITS = {
    "table1": "Table 1: architectures for ImageNet, counted to the unit.",
    "table2": "Table 2: plain and residual nets on ImageNet, ten crops.",
    "table3": "Table 3: shortcut options and depth on ImageNet, ten crops.",
    "table4": "Table 4: single models on ImageNet, whole pictures at five scales.",
    "table5": "Table 5: an ensemble of six on ImageNet.",
    "table6": "Table 6: test error of residual nets on CIFAR-10.",
    "fig1": "Figure 1: plain nets of 20 and 56 layers, training and test error.",
    "fig4": "Figure 4: training on ImageNet, plain and residual nets of 18 and 34 layers.",
    "fig6": "Figure 6: plain and residual nets of all depths over iterations.",
    "fig7": "Figure 7: standard deviations of layer responses.",
    "ambiguities": "How much each choice that the paper leaves open moves the error of resnet20.",
}
_IMAGENET = ("table2", "table3", "table4", "table5", "fig4")
_STYLES = {
    "reproduced": "green",
    "shown": "green",
    "not reproduced": "red",
    "not shown": "red",
    "undecided": "yellow",
    "not run here": "dim",
}


def examples(name: str) -> tuple[str, ...]:
    """What stands at the end of the help."""
    if name == "table1":
        return ("reslearn paper table1", "reslearn paper table1 --json")
    if name in _IMAGENET:
        return (
            f"reslearn paper {name} --data photos --budget smoke",
            f"reslearn paper {name} --data /data/ILSVRC2012 --budget full",
        )
    return (
        f"reslearn paper {name} --budget smoke --data digits",
        f"reslearn paper {name} --budget short --seeds 3 --jobs 2",
    )


def exhibit_command(name: str) -> Callable[..., None]:
    """The command of one table or figure."""
    medium = "" if name in _IMAGENET else ", medium (a GPU's minutes)"

    def command(
        data: Annotated[str | None, typer.Option(help=_data_help(name))] = None,
        budget: Annotated[
            str | None,
            typer.Option(
                help=f"smoke (does it run), short (hours on two cores){medium} or full (the paper's own).  [default: short]"
            ),
        ] = None,
        seeds: Annotated[
            int | None, typer.Option(min=1, help="Seeds a net; default: 2, 3 or 5, by budget.")
        ] = None,
        depths: Annotated[
            str | None,
            typer.Option(
                help="Layers to compare, as in 20,56; default: the paper's, fewer by budget."
            ),
        ] = None,
        out: Annotated[
            Path | None,
            typer.Option(
                help="Where pages and runs go; default: paper/DATA-BUDGET, for all of them."
            ),
        ] = None,
        jobs: Annotated[
            int | None, typer.Option(min=1, help="Runs at once; default: one a core.")
        ] = None,
        engine: Annotated[
            str,
            typer.Option(
                help="local: this machine; ray: a Ray cluster that shares the folder of --out."
            ),
        ] = "local",
        data_dir: Annotated[
            Path | None,
            typer.Option(help="Where data sets lie; default: RESLEARN_DATA, then the cache."),
        ] = None,
        check: Annotated[
            bool,
            typer.Option(
                "--check",
                help="Exit with 1 where what the paper says is judged 'not reproduced' or 'not shown'.",
            ),
        ] = False,
        as_json: Annotated[bool, typer.Option("--json", help="Print the lines as JSON.")] = False,
    ) -> None:
        from reslearn import paper
        from reslearn.train import Machine, check_recipes

        module = paper.load_exhibit(name)
        if budget is not None and module.EXHIBIT.data == "none":
            raise ValueError(f"--budget has no effect in {name}: leave it out")
        chosen = paper.budget_of(
            module, budget or "short", data, seeds=seeds, depths=_depths(depths)
        )
        if out is None:
            without = "" if module.EXHIBIT.data == "none" else "without-data"
            out = Path("paper") / (
                f"{Path(chosen.data).name}-{chosen.name}" if chosen.data else without
            )
        needed = paper.jobs_of(module.conditions(chosen), chosen, out / "runs")
        # Wrong recipes are reported once here, not by every run.
        to_train = (job.recipe for job in needed if not job.is_complete)
        check_recipes(to_train, Machine(data_dir=data_dir))
        report = _run(
            name,
            chosen,
            out,
            engine=engine_named(engine, jobs=jobs),
            data_dir=data_dir,
            as_json=as_json,
        )
        for failure in report.failures:
            print(f"reslearn: failed: {failure}", file=sys.stderr)
        against = ("not reproduced",) if module.EXHIBIT.is_open else ("not reproduced", "not shown")
        refused = check and any(line.outcome in against for line in report.measured.lines)
        if report.failures or refused:
            raise typer.Exit(1)

    command.__doc__ = f"{EXHIBITS[name]}\n\nPrints the paper's numbers beside ours with verdicts. Stopped, it goes on when called again."
    return command


def _data_help(name: str) -> str:
    if name in _IMAGENET:
        return "ILSVRC2012 as class folders; another folder of images is a stand-in, shown and not judged."
    return "cifar10, cifar100, digits or a folder of images.  [default: cifar10]"


def _depths(text: str | None) -> tuple[int, ...]:
    if text is None:
        return ()
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdigit() for part in parts):
        raise ValueError(f"--depths {text}: numbers of layers are needed, as in --depths 20,56")
    return tuple(map(int, parts))


def _run(
    name: str,
    budget: "Budget",
    out: Path,
    *,
    engine: "Engine",
    data_dir: Path | None,
    as_json: bool,
) -> "ExhibitReport":
    """Train, measure, write page and JSON, print."""
    import json

    from reslearn import paper
    from reslearn.cli.paper import evaluate, fit
    from reslearn.report import write_page

    try:
        report = paper.run_exhibit(
            paper.load_exhibit(name),
            budget,
            out,
            engine=engine,
            fit=fit,
            evaluate=evaluate,
            data_dir=data_dir,
            say=print_progress,
        )
    except paper.StudyStopped as stopped:
        print(stopped, file=sys.stderr)
        raise typer.Exit(130) from None
    page = write_page(paper.exhibit_page(report, command=["reslearn", *sys.argv[1:]]), out / name)
    told = paper.exhibit_json(report)
    write_json(told, out / name / f"{name}.json")
    if as_json:
        typer.echo(json.dumps({**told, "page": str(page)}, allow_nan=False))
    else:
        _print(report, page)
    return report


def _print(report: "ExhibitReport", page: Path) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Column, Table
    from rich.text import Text

    from reslearn import paper

    console = Console(highlight=False)
    table = Table(
        "",
        *paper.HEADS,
        "verdict",
        title=report.exhibit.title,
        title_justify="left",
        box=box.HORIZONTALS,
    )
    table.columns[-1].no_wrap = True
    for line in report.measured.lines:
        table.add_row(
            line.what, *paper.texts(line), Text(line.outcome, style=_STYLES[line.outcome])
        )
    console.print(table)
    for reason in paper.reasons_of(report.measured.lines):
        console.print(f"  {reason}", markup=False)
    for extra in report.measured.tables:
        # Where the terminal is narrow a number goes on below rather than to end in dots.
        heads = (Column(head.name, overflow="fold") for head in extra.heads())
        shown = Table(
            *heads,
            title=extra.caption,
            title_justify="left",
            box=box.HORIZONTALS,
            padding=(0, 1, 0, 0),
        )
        for row in extra.rows:
            shown.add_row(*map(_text, row))
        console.print(shown)
    for note in report.measured.notes:
        console.print(note, markup=False)
    runs = f"{report.num_runs} runs, {report.seconds:.0f} s. " if report.num_runs else ""
    console.print(f"{runs}Page: {page}", markup=False)


def _text(cell: object) -> str:
    return "" if cell is None else f"{cell:g}" if isinstance(cell, float) else str(cell)
