"""`reslearn diagnose FILE.py:BUILD --data DATA`: does depth hurt this network, what else does, and do shortcuts help?"""

import itertools
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from reslearn.progress import print_progress

if TYPE_CHECKING:
    from reslearn.diagnose import Diagnosis, Patch, Problem

EXAMPLES = (
    "reslearn diagnose net.py:build --data digits",
    "reslearn diagnose net.py:build --depth 56 --data net.py:data --minutes 10 --json",
    "reslearn diagnose net.py:build --data digits --patch",
    "reslearn diagnose net.py:build --data digits --patch-file net_with_shortcuts.py",
)


def diagnose(
    network: Annotated[
        str,
        typer.Argument(help="FILE.py:BUILD or MODULE:BUILD; a function that gives an nn.Module."),
    ],
    data: Annotated[
        str,
        typer.Option(
            help="digits, cifar10, a folder of images, or FILE.py:DATA, a function giving (inputs, targets)."
        ),
    ],
    depth: Annotated[
        int | None, typer.Option(min=1, help="For a function that takes a depth.")
    ] = None,
    minutes: Annotated[float, typer.Option(help="How long it may take.")] = 10.0,
    steps: Annotated[
        int | None,
        typer.Option(
            min=4, help="Of a short trial; default: as many as let all fit into the minutes."
        ),
    ] = None,
    loss: Annotated[
        str | None,
        typer.Option(
            help="FILE.py:LOSS, of outputs and targets; default: cross-entropy or mean square."
        ),
    ] = None,
    optimizer: Annotated[
        str, typer.Option(help="sgd, adam, adamw, or FILE.py:MAKE, of parameters and a rate.")
    ] = "sgd",
    lr: Annotated[
        float | None, typer.Option(help="Your learning rate; it is judged where it is given.")
    ] = None,
    batch_size: Annotated[
        int, typer.Option("--batch-size", "-b", min=2, help="Examples a step.")
    ] = 64,
    size_px: Annotated[
        int | None,
        typer.Option(min=2, help="Side in pixels to which the images of a folder are brought."),
    ] = None,
    patch: Annotated[
        bool,
        typer.Option(
            "--patch", help="Write what to change, and train before and after it on a fresh seed."
        ),
    ] = False,
    patch_file: Annotated[
        Path | None,
        typer.Option(help="Where; NAME.py: a new file with its own build. Default: in --out."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Where the page goes; default: diagnosis/NAME, then NAME-2, ..."),
    ] = None,
    jobs: Annotated[
        int | None,
        typer.Option(
            min=1, help="Trials at once, a thread each; default: one a core (with a GPU: 1)."
        ),
    ] = None,
    data_dir: Annotated[
        Path | None,
        typer.Option(help="Where data sets lie; default: RESLEARN_DATA, then the cache."),
    ] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Exit with 1 unless the network is healthy.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for programs.")] = False,
) -> None:
    """Tell by experiment whether depth hurts a network, or what else does.

    Builds the networks that would be better if the suspected cause were true (shallower, with shortcuts, newly initialized, ...), trains
    them on equal budgets with paired seeds, each at its best of a few learning rates, and judges by rules written beforehand. With
    --patch, what to change is written: a diff of FILE.py where BUILD is a function in it, a new file around BUILD otherwise.
    Ctrl-C ends it with the verdict of the evidence so far.
    """
    import json

    from reslearn.diagnose import diagnose as run
    from reslearn.diagnose import load_build, make_problem, write_patch
    from reslearn.diagnose.page import diagnosis_json, diagnosis_page
    from reslearn.report import write_page

    build, name = load_build(network)
    given: Any = load_build(data)[0] if ":" in data else data
    problem = make_problem(
        build,
        given,
        name=name,
        depth=depth,
        loss=None if loss is None else load_build(loss)[0],
        optimizer=load_build(optimizer)[0] if ":" in optimizer else optimizer,
        lr=lr,
        batch_size=batch_size,
        size_px=size_px,
        data_dir=data_dir,
    )
    place = out or _not_there_yet(Path("diagnosis") / name.replace(":", "-"))
    if place.exists() and not place.is_dir():
        raise ValueError(f"--out {place}: a file is there, and a folder is needed")
    made = _patch(network, problem, depth, patch_file, place) if patch or patch_file else None
    found = run(
        problem,
        minutes=minutes,
        steps=steps,
        with_proof=made is not None,
        jobs=jobs,
        say=print_progress,
    )
    page = write_page(diagnosis_page(found, command=["reslearn", *sys.argv[1:]], patch=made), place)
    if made is not None:
        write_patch(made)
    if as_json:
        typer.echo(
            json.dumps({**diagnosis_json(found, patch=made), "page": str(page)}, allow_nan=False)
        )
    else:
        _print(found, page, made)
    if found.interrupted:
        raise typer.Exit(130)
    if check and found.verdict.name != "healthy":
        raise typer.Exit(1)


def _not_there_yet(place: Path) -> Path:
    """`place`, or place-2, place-3, ...: a diagnosis after the repair does not take the place of that before it."""
    return next(
        one
        for number in itertools.count(1)
        if not (one := place if number == 1 else Path(f"{place}-{number}")).exists()
    )


def _patch(
    network: str, problem: "Problem", depth: int | None, path: Path | None, folder: Path
) -> "Patch | None":
    """Made before anything is trained, so that a wrong path is told at once; none for a network that takes no shortcuts."""
    from reslearn.diagnose import make_patch
    from reslearn.models import SurgeryError

    try:
        made = make_patch(network, problem, depth=depth, path=path, folder=folder)
    except SurgeryError as error:
        print_progress(f"no patch: {error}")
        return None
    num = len(made.around)
    print_progress(
        f"patch: shortcuts around {num} block{'s' * (num > 1)}, to be tried on a fresh seed within the minutes given"
    )
    return made


def _print(found: "Diagnosis", page: Path, patch: "Patch | None") -> None:
    from rich.console import Console
    from rich.table import Table

    from reslearn.diagnose.page import evidence_table, patch_line

    console = Console(highlight=False)
    if found.trials:
        rows = evidence_table(found)
        table = Table(
            "condition",
            "what it is",
            "training",
            "held out",
            "seeds",
            title=rows.caption,
            title_justify="left",
        )
        for name, what, train, spread, _, held, seeds in rows.rows:
            around = "" if spread is None else f" ± {spread:.2f}"
            table.add_row(str(name), str(what), f"{train:.2f}{around}", f"{held:.2f}", str(seeds))
        console.print(table)
    for note in found.conditions.notes:
        console.print(note, markup=False)
    console.print(f"{found.verdict.name}: {found.verdict.because}", style="bold", markup=False)
    if patch is not None:
        console.print(patch_line(found, patch), markup=False, soft_wrap=True)
        console.print(
            f"patch: {patch.path} ({'apply by' if patch.kind == 'diff' else 'use'}: {patch.use})",
            markup=False,
            soft_wrap=True,
        )
    console.print(f"page: {page}", markup=False)
