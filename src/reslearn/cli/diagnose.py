"""`reslearn diagnose FILE.py:BUILD --data DATA`: does depth hurt this network, what else does, and do shortcuts help?"""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from reslearn.diagnose import Diagnosis

EXAMPLES = (
    "reslearn diagnose net.py:build --data digits",
    "reslearn diagnose net.py:build --depth 56 --data net.py:data --minutes 10 --json",
)


def diagnose(
    network: Annotated[str, typer.Argument(help="FILE.py:BUILD or MODULE:BUILD; a function that gives an nn.Module.")],
    data: Annotated[str, typer.Option(help="digits, cifar10, a folder of images, or FILE.py:DATA, a function giving (inputs, targets).")],
    depth: Annotated[int | None, typer.Option(min=1, help="For a function that takes a depth.")] = None,
    minutes: Annotated[float, typer.Option(help="How long it may take.")] = 10.0,
    optimizer: Annotated[str, typer.Option(help="sgd, adam or adamw.")] = "sgd",
    lr: Annotated[float | None, typer.Option(help="Your learning rate; default: 0.1 for sgd, 0.001 for adam and adamw.")] = None,
    batch_size: Annotated[int, typer.Option("--batch-size", "-b", min=2, help="Examples a step.")] = 64,
    out: Annotated[Path | None, typer.Option(help="Where the page goes; default: diagnosis/NAME.")] = None,
    data_dir: Annotated[Path | None, typer.Option(help="Where data sets lie; default: RESLEARN_DATA, then the cache.")] = None,
    check: Annotated[bool, typer.Option("--check", help="Exit with 1 unless the network is healthy.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for programs.")] = False,
) -> None:
    """Tell by experiment whether depth hurts a network, or what else does.

    Builds the networks that would be better if the suspected cause were true (shallower, with shortcuts, newly initialised, ...), trains
    them on equal budgets with paired seeds, each at its best of a few learning rates, and judges by rules written beforehand.
    """
    import json
    import os

    from rich.console import Console

    from reslearn.diagnose import diagnose as run
    from reslearn.diagnose import load_build, make_problem
    from reslearn.diagnose.page import diagnosis_json, diagnosis_page
    from reslearn.report import write_page

    build, name = load_build(network)
    given: Any = load_build(data)[0] if ":" in data else data
    problem = make_problem(
        build, given, name=name, depth=depth, optimizer=optimizer, lr=lr, batch_size=batch_size, data_dir=data_dir
    )  # fmt: skip
    aloud = Console(stderr=True, highlight=False, quiet=os.environ.get("RESLEARN_PROGRESS", "on") == "off")
    found = run(problem, minutes=minutes, say=lambda text: aloud.print(text, markup=False, soft_wrap=True))
    place = out or Path("diagnosis") / name.replace(":", "-")
    page = write_page(diagnosis_page(found, command=["reslearn", *sys.argv[1:]]), place)
    if as_json:
        typer.echo(json.dumps({**diagnosis_json(found), "page": str(page)}, allow_nan=False))
    else:
        _print(found, page)
    if check and found.verdict.name != "healthy":
        raise typer.Exit(1)


def _print(found: "Diagnosis", page: Path) -> None:
    from rich.console import Console
    from rich.table import Table

    from reslearn.diagnose.page import evidence_table

    console = Console(highlight=False)
    if found.trials:
        rows = evidence_table(found)
        table = Table("condition", "what it is", "training", "held out", "seeds", title=rows.caption, title_justify="left")
        for name, what, train, spread, _, held, seeds in rows.rows:
            around = "" if spread is None else f" ± {spread:.2f}"
            table.add_row(str(name), str(what), f"{train:.2f}{around}", f"{held:.2f}", str(seeds))
        console.print(table)
    for note in found.conditions.notes:
        console.print(note, markup=False)
    console.print(f"{found.verdict.name}: {found.verdict.because}", style="bold", markup=False)
    console.print(f"page: {page}", markup=False)
