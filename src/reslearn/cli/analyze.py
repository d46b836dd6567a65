"""`reslearn analyze RUN WHAT`: analyze one trained network.

Sources: Fig. 7, claims C9 and C14, Veit et al. 2016, Li et al. 2018.
"""

from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from reslearn.cli.options import DataDirOption, JsonOption
from reslearn.cli.output import print_json
from reslearn.terminal import safe_console

if TYPE_CHECKING:
    from reslearn.analysis import Subject

ANALYSIS = "Analysis"
EXAMPLES = (
    "reslearn analyze runs/digits responses",
    "reslearn analyze runs/digits gradients --json",
    "reslearn analyze runs/digits probes",
    "reslearn analyze runs/digits lesion --draws 10",
    "reslearn analyze runs/digits paths --seed 1",
    "reslearn analyze runs/digits landscape --with runs/digits-seed1 --grid 0",
)


class What(StrEnum):
    """Names of the analyses, and of their files in the run folder."""

    responses = "responses"
    gradients = "gradients"
    probes = "probes"
    lesion = "lesion"
    paths = "paths"
    landscape = "landscape"


# Options of each analysis. Other options have no effect, and are refused.
_OPTIONS = {
    What.responses: ("images",),
    What.gradients: ("images",),
    What.probes: ("seed",),
    What.lesion: ("images", "draws", "seed"),
    What.paths: ("images", "draws", "seed"),
    What.landscape: ("images", "seed", "points", "grid", "with"),
}
# Names of options and of the arguments that get their values.
_ARGUMENTS = {
    "images": "num_images",
    "points": "num_points",
    "grid": "num_grid",
    "with": "second_run",
}


RunArgument = Annotated[Path, typer.Argument(help="Folder of a complete run.")]
WhatArgument = Annotated[What, typer.Argument(help="The analysis, as described above.")]
ImagesOption = Annotated[
    int | None,
    typer.Option(
        min=1,
        rich_help_panel=ANALYSIS,
        help="Use this many images, evenly spaced. Default: 10,000 (responses), "
        "512 (gradients), 1,000 (lesion), 128 (paths), 500 (landscape).",
    ),
]
DrawsOption = Annotated[
    int | None,
    typer.Option(
        min=1,
        rich_help_panel=ANALYSIS,
        help="Make this many random draws of each kind. Default: 5 (lesion), 10 (paths).",
    ),
]
SeedOption = Annotated[
    int | None,
    typer.Option(
        min=0, rich_help_panel=ANALYSIS, help="Use this seed for random draws. Default: 0."
    ),
]
SecondRunOption = Annotated[
    Path | None,
    typer.Option(
        "--with",
        rich_help_panel=ANALYSIS,
        help="Draw the line to the end of this run, which has the same recipe as RUN. "
        "Default: the line from the start of RUN to its end.",
    ),
]
PointsOption = Annotated[
    int | None,
    typer.Option(
        min=3,
        rich_help_panel=ANALYSIS,
        help="Measure this many points along the line and across the end. Default: 11.",
    ),
]
GridOption = Annotated[
    int | None,
    typer.Option(
        min=0,
        rich_help_panel=ANALYSIS,
        help="Measure a grid with this many points per side, 0 for no grid. Default: 7.",
    ),
]


def analyze(
    run: RunArgument,
    what: WhatArgument,
    images: ImagesOption = None,
    draws: DrawsOption = None,
    seed: SeedOption = None,
    second_run: SecondRunOption = None,
    points: PointsOption = None,
    grid: GridOption = None,
    data_dir: DataDirOption = None,
    as_json: JsonOption = False,
) -> None:
    """Analyze one trained network, and save the result in its run folder.

    responses: standard deviation of the output of each 3x3 layer after batch norm (Fig. 7).

    gradients: norms by layer at the start, at each snapshot and at the end. Snapshots are set by
    the recipe key evaluation.snapshots.

    probes: logistic regression on the output of each stage, trained and untrained.

    lesion: test error with blocks dropped, alone and together, and with blocks swapped.

    paths: gradient by the length of paths through a residual network.

    landscape: loss along the line from the start of the run to its end, or to the end of another
    run, and across its end in random directions.

    The result is saved as analysis/WHAT.json. `reslearn report RUN` draws all saved analyses.
    """
    from reslearn import analysis
    from reslearn.runs import to_json_value, write_analysis

    options = {
        "images": images,
        "draws": draws,
        "seed": seed,
        "points": points,
        "grid": grid,
        "with": second_run,
    }
    values: dict[str, Any] = {name: value for name, value in options.items() if value is not None}
    _check_options(what, values)
    subject = analysis.Subject.open(run, data_dir=data_dir)
    if second_run is not None:
        values["with"] = analysis.Subject.open(second_run, data_dir=data_dir)
    record = to_json_value(_record(what, subject, values))
    path = write_analysis(subject.folder, what.value, record)
    if as_json:
        print_json(record, indent=1)
        return
    _print(_TABLES[what](record), f"{record['model']}: {record['reads']}\n{path}")


def _record(what: What, subject: "Subject", values: dict[str, Any]) -> dict[str, Any]:
    from reslearn import analysis

    functions: dict[What, Callable[..., dict[str, Any]]] = {
        What.responses: analysis.responses_record,
        What.gradients: analysis.gradients_record,
        What.probes: analysis.probes_record,
        What.lesion: analysis.lesion_record,
        What.paths: analysis.paths_record,
        What.landscape: analysis.landscape_record,
    }
    arguments = {_ARGUMENTS.get(name, name): value for name, value in values.items()}
    return functions[what](subject, **arguments)


def _check_options(what: What, values: dict[str, Any]) -> None:
    for name in values:
        if name not in _OPTIONS[what]:
            options = ", ".join(f"--{option}" for option in _OPTIONS[what])
            raise ValueError(f"--{name} has no effect on {what}, which has {options}")
    if 0 < values.get("grid", 0) < 3:
        raise ValueError(
            f"--grid {values['grid']}: allowed are 0 (no grid) and 3 or more points per side"
        )


Rows = tuple[list[str], list[list[Any]]]
"""Headings and rows of one table."""


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
    single = [["none", record["intact"]["top1_error_pct"], record["intact"]["loss"]]]
    single += [
        [block["block"], block["top1_error_pct"], block["loss"]] for block in record["one_dropped"]
    ]
    single += [[f"{name} (changes the shape)", None, None] for name in record["not_droppable"]]
    several = [
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
        (["block dropped", "test error %", "loss"], single),
        (["random blocks dropped", "test error %, mean", "sd", "draws"], several),
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
    totals = [
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
    return [(headings, lengths), (["", "over all lengths"], totals)]


def _landscape(record: dict[str, Any]) -> list[Rows]:
    line, distances = record["line"], (record["grid"] or {}).get("distances", [])
    along = [
        [f"{point['at']:.3g}", point["loss"], point["top1_error_pct"]] for point in line["points"]
    ]
    along.append(["barrier", line["barrier_loss"], line["barrier_top1_error_pct"]])
    across = [
        [f"{point['at']:.3g}", point["loss"], point["top1_error_pct"]] for point in record["across"]
    ]
    columns = ["loss", "error %"]
    tables: list[Rows] = [
        ([f"t from {record['start']} to {record['end']}", *columns], along),
        (["distance across", *columns], across),
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
    from rich.table import Table

    console = safe_console(soft_wrap=True)
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
