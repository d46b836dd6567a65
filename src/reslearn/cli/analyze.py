"""`reslearn analyze RUN WHAT`: one trained net looked into (Fig. 7, claims C9 and C14; Veit et al. 2016; Li et al. 2018)."""

from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

EXAMPLES = (
    "reslearn analyze runs/digits responses",
    "reslearn analyze runs/digits gradients --json",
    "reslearn analyze runs/digits probes",
    "reslearn analyze runs/digits lesion --draws 10",
    "reslearn analyze runs/digits paths --seed 1",
    "reslearn analyze runs/digits landscape --with runs/digits-seed1 --grid 0",
)


class What(StrEnum):
    """What is looked at."""

    responses = "responses"
    gradients = "gradients"
    probes = "probes"
    lesion = "lesion"
    paths = "paths"
    landscape = "landscape"


# Options that an analysis has besides those of all; any other is refused, for it would have no effect.
_OPTIONS = {
    What.responses: ("images",),
    What.gradients: ("images",),
    What.probes: ("seed",),
    What.lesion: ("images", "draws", "seed"),
    What.paths: ("images", "draws", "seed"),
    What.landscape: ("images", "seed", "points", "grid", "with"),
}
# How an option is called where its value goes.
_ARGUMENTS = {
    "images": "num_images",
    "points": "num_points",
    "grid": "num_grid",
    "with": "second_run",
}


_IMAGES_HELP = "How many images, evenly spaced; default: 10,000 (responses), 512 (gradients), 1,000 (lesion), 128 (paths), 500 (landscape)."


def analyze(
    run: Annotated[Path, typer.Argument(help="The folder of a complete run.")],
    what: Annotated[What, typer.Argument(help="What is looked at; see above.")],
    images: Annotated[int | None, typer.Option(min=1, help=_IMAGES_HELP)] = None,
    draws: Annotated[
        int | None,
        typer.Option(min=1, help="Random draws of each kind; default: 5 (lesion), 10 (paths)."),
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Decides the draws; default: 0.")] = None,
    other: Annotated[
        Path | None,
        typer.Option(
            "--with", help="Another run of the recipe: the line from RUN's end to its end."
        ),
    ] = None,
    points: Annotated[
        int | None,
        typer.Option(min=3, help="Points of the line and of the curve across; default: 11."),
    ] = None,
    grid: Annotated[
        int | None,
        typer.Option(min=0, help="Points a side of the grid across, 0: none; default: 7."),
    ] = None,
    data_dir: Annotated[
        Path | None,
        typer.Option(help="Where data sets lie; default: RESLEARN_DATA, then the cache."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for programs.")] = False,
) -> None:
    """Look into one trained network, print what was found and keep it in the run as analysis/WHAT.json.

    responses: standard deviation of each 3x3 layer's output after batch norm (Fig. 7). gradients: norms by layer at the start, at each
    snapshot (recipe key evaluation.snapshots) and at the end. probes: logistic regression on each stage's output, trained and untrained.

    lesion: test error with blocks dropped, one and several, and swapped. paths: the gradient by lengths of paths through a residual net.
    landscape: loss along the line from the start of the run to its end, or to another run's, and across its end in random directions.

    `reslearn report RUN` draws all that was kept.
    """
    from json import dumps

    from reslearn import analysis
    from reslearn.runs import to_json_value

    options = {
        "images": images,
        "draws": draws,
        "seed": seed,
        "points": points,
        "grid": grid,
        "with": other,
    }
    given: dict[str, Any] = {name: value for name, value in options.items() if value is not None}
    _check_options(what, given)
    subject = analysis.Subject.open(run, data_dir=data_dir)
    if other is not None:
        given["with"] = analysis.Subject.open(other, data_dir=data_dir)
    make: dict[What, Callable[..., dict[str, Any]]] = {
        What.responses: analysis.responses_record,
        What.gradients: analysis.gradients_record,
        What.probes: analysis.probes_record,
        What.lesion: analysis.lesion_record,
        What.paths: analysis.paths_record,
        What.landscape: analysis.landscape_record,
    }
    record = to_json_value(
        make[what](subject, **{_ARGUMENTS.get(name, name): value for name, value in given.items()})
    )
    path = analysis.write_analysis(subject.folder, what.value, record)
    if as_json:
        typer.echo(dumps(record, indent=1))
        return
    _print(_TABLES[what](record), f"{record['model']}: {record['reads']}\n{path}")


def _check_options(what: What, given: dict[str, Any]) -> None:
    allowed = _OPTIONS[what]
    for name in given:
        if name not in allowed:
            of_its_own = ", ".join(f"--{option}" for option in allowed) or "no option of its own"
            raise ValueError(f"--{name} has no effect on {what}, which has {of_its_own}")
    if 0 < given.get("grid", 0) < 3:
        raise ValueError(
            f"--grid {given['grid']}: allowed are 0 (no grid) and 3 or more points a side"
        )


# Headings and rows of one table.
Rows = tuple[list[str], list[list[Any]]]


def _responses(record: dict[str, Any]) -> list[Rows]:
    rows = [
        [layer["layer"], layer["standard_deviation"], layer["gamma_rms"]]
        for layer in record["layers"]
    ]
    return [(["layer", "standard deviation", "rms of gamma"], rows)]


def _gradients(record: dict[str, Any]) -> list[Rows]:
    moments = record["moments"]
    rows: list[list[Any]] = []
    for kind, title in (("weights", "by weights of"), ("signal", "by output of")):
        for index, layer in enumerate(moments[0][kind]):
            rows.append(
                [f"{title} {layer['name']}", *(moment[kind][index]["norm"] for moment in moments)]
            )
        rows.append(
            [f"{kind}: first third / last third", *(moment[f"{kind}_ratio"] for moment in moments)]
        )
    return [(["gradient", *(f"step {moment['step']}" for moment in moments)], rows)]


def _probes(record: dict[str, Any]) -> list[Rows]:
    pairs = zip(record["trained"], record["untrained"], strict=True)
    rows = [
        [trained["stage"], trained["test_error_pct"], untrained["test_error_pct"]]
        for trained, untrained in pairs
    ]
    return [(["stage", "trained: test error %", "untrained: test error %"], rows)]


def _lesion(record: dict[str, Any]) -> list[Rows]:
    one = [["none", record["intact"]["top1_error_pct"], record["intact"]["loss"]]]
    one += [
        [block["block"], block["top1_error_pct"], block["loss"]] for block in record["one_dropped"]
    ]
    one += [[f"{name} (changes the shape)", None, None] for name in record["not_droppable"]]
    some = [
        [
            f"{entry['num_blocks']}",
            entry["mean_top1_error_pct"],
            entry["sd_top1_error_pct"],
            len(entry["draws"]),
        ]
        for entry in record["some_dropped"]
    ]
    swapped = [
        [
            f"{entry['num_swaps']}",
            entry["mean_kendall_tau"],
            entry["mean_top1_error_pct"],
            entry["sd_top1_error_pct"],
            len(entry["draws"]),
        ]
        for entry in record["reordered"]
    ]
    return [
        (["block dropped", "test error %", "loss"], one),
        (["random blocks dropped", "test error %, mean", "sd", "draws"], some),
        (["random swaps", "Kendall's tau, mean", "test error %, mean", "sd", "draws"], swapped),
    ]


def _paths(record: dict[str, Any]) -> list[Rows]:
    columns = (
        "paths_pct",
        "mean_gradient_norm",
        "sd_gradient_norm",
        "contribution_pct",
        "num_draws",
    )
    lengths = [
        [f"{entry['length']}", *(entry[column] for column in columns)]
        for entry in record["lengths"]
    ]
    whole = [
        ["mean length of all paths, blocks", record["mean_length"]],
        ["effective length, blocks", record["effective_length"]],
        ["95 % of the contribution: from, blocks", record["low"]],
        ["95 % of the contribution: to, blocks", record["high"]],
        ["paths that are so long, %", record["within_pct"]],
        ["contribution of paths below half of the blocks, %", record["short_pct"]],
        ["norm of the whole gradient", record["gradient_norm"]],
    ]
    headings = [
        "path length, blocks",
        "paths %",
        "gradient norm, mean",
        "sd",
        "contribution %",
        "draws",
    ]
    return [(headings, lengths), (["", "over all lengths"], whole)]


def _landscape(record: dict[str, Any]) -> list[Rows]:
    line, distances = record["line"], (record["grid"] or {}).get("distances", [])
    along = [
        [f"{point['at']:.3g}", point["loss"], point["top1_error_pct"]] for point in line["points"]
    ]
    along.append(["barrier", line["barrier_loss"], line["barrier_top1_error_pct"]])
    across = [
        [f"{point['at']:.3g}", point["loss"], point["top1_error_pct"]] for point in record["across"]
    ]
    measured = ["loss", "error %"]
    tables: list[Rows] = [
        ([f"t from {record['start']} to {record['end']}", *measured], along),
        (["distance across", *measured], across),
    ]
    if distances:
        rows = [
            [f"{up:.2g}", *values]
            for up, values in zip(distances, record["grid"]["loss"], strict=True)
        ]
        tables.append(
            (["loss over two directions", *(f"{right:.2g}" for right in distances)], rows)
        )
    return tables


_TABLES = {
    What.responses: _responses,
    What.gradients: _gradients,
    What.probes: _probes,
    What.lesion: _lesion,
    What.paths: _paths,
    What.landscape: _landscape,
}


def _print(tables: list[Rows], note: str) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console(soft_wrap=True, highlight=False)
    for headings, rows in tables:
        if not rows:
            continue
        table = Table(box=None, header_style="bold", pad_edge=False)
        table.add_column(headings[0])
        for heading in headings[1:]:
            table.add_column(heading, justify="right")
        for name, *numbers in rows:
            table.add_row(name, *("-" if number is None else f"{number:.4g}" for number in numbers))
        console.print(table)
        console.print()
    console.print(note)
