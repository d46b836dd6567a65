"""`reslearn study`: train a grid of models and seeds, compare them, and print a verdict."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from reslearn.cli.options import (
    OUTPUT,
    DataDirOption,
    EngineOption,
    JobsOption,
    JsonOption,
)
from reslearn.cli.output import print_json
from reslearn.terminal import print_lines, safe_console

if TYPE_CHECKING:
    from reslearn.study import (
        Collection,
        DegradationVerdict,
        Difference,
        Engine,
        StudyFile,
        StudyTable,
        Summary,
    )
    from reslearn.study.collect import Kind

    Verdicts = Mapping[Kind, DegradationVerdict | str]

GRID, DEPTH = "Runs", "Depth"
EXAMPLES = (
    "reslearn study --models plain20,plain56,resnet20,resnet56 --seeds 3 --data digits "
    "--recipe digits",
    "reslearn study photos --depth auto --minutes 120",
    "reslearn study my-study.toml --jobs 2",
    "reslearn study my-study.toml --engine ray --out /shared/my-study",
)
_PRELOAD = ("reslearn.cli", "reslearn.train", "torch._dynamo", "sklearn.datasets")
"""Modules that every run imports. The fork server imports them once."""


FileArgument = Annotated[
    Path | None,
    typer.Argument(
        help="Study file (.toml), which replaces --models, --seeds and --recipe. With --depth: "
        "the data, a name or a folder of images."
    ),
]
ModelsOption = Annotated[
    str | None,
    typer.Option(
        "--models",
        "--model",
        rich_help_panel=GRID,
        help="Train these models, separated by commas. See `reslearn list models`.",
    ),
]
SeedsOption = Annotated[
    int,
    typer.Option(min=1, rich_help_panel=GRID, help="Train this many seeds of each model."),
]
RecipeOption = Annotated[
    str | None,
    typer.Option(
        rich_help_panel=GRID,
        help="Follow this recipe: a name from `reslearn list recipes`, or a .toml file.",
    ),
]
DepthOption = Annotated[
    str | None,
    typer.Option(
        rich_help_panel=DEPTH,
        help="Find the smallest sufficient depth for the data. Give numbers of layers, as in "
        "8,20,56, or auto: 8 to 56 layers of CIFAR networks, or 18 to 101 layers of ImageNet "
        "networks. --set model.name chooses the family.",
    ),
]
MinutesOption = Annotated[
    float | None,
    typer.Option(
        rich_help_panel=DEPTH,
        help="Choose the epochs so that the whole study takes this long. Default: 60 for a folder "
        "of photos; for other data the recipe decides.",
    ),
]
MarginOption = Annotated[
    float,
    typer.Option(
        min=0,
        rich_help_panel=DEPTH,
        help="The smallest difference that matters, in percentage points of validation error.",
    ),
]
DataOption = Annotated[
    str | None,
    typer.Option(
        rich_help_panel=GRID,
        help="Train on digits, cifar10, cifar100 or a folder. Default: the recipe decides.",
    ),
]
SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        rich_help_panel=GRID,
        help="Override a value of the recipe for all runs. Can be repeated.",
    ),
]
OutOption = Annotated[
    Path | None,
    typer.Option(
        rich_help_panel=OUTPUT,
        help="Write the run folders and the page to this folder. Default: studies/NAME.",
    ),
]
CheckOption = Annotated[
    bool,
    typer.Option(
        "--check",
        rich_help_panel=OUTPUT,
        help="Exit with status 1 if training error increases with depth.",
    ),
]


def study(
    file: FileArgument = None,
    models: ModelsOption = None,
    seeds: SeedsOption = 3,
    recipe: RecipeOption = None,
    data: DataOption = None,
    depth: DepthOption = None,
    minutes: MinutesOption = None,
    margin: MarginOption = 2.0,
    set_: SetOption = None,
    data_dir: DataDirOption = None,
    jobs: JobsOption = None,
    engine: EngineOption = "local",
    out: OutOption = None,
    check: CheckOption = False,
    as_json: JsonOption = False,
) -> None:
    """Train several models with several seeds, and compare them.

    The comparison shows mean, standard deviation and 95 % interval of the errors. A verdict says
    whether training error increases with depth. To continue a study that was stopped, repeat the
    command: complete runs are kept, and unfinished runs are resumed. Runs that diverged are counted
    and not trained again. The exit status is 1 if a run diverged or failed.

    With --depth, networks of several depths train on equal budgets. Networks that are clearly worse
    get no further seeds. The result is the smallest network that is not worse than the best.
    """
    runner = engine_named(engine, jobs=jobs)
    if depth is not None:
        from reslearn.cli.depth_plan import DepthRequest
        from reslearn.cli.depth_study import depth_study

        request = DepthRequest(
            data=_depth_data(file, data),
            depth=depth,
            seeds=seeds,
            recipe=recipe,
            minutes=minutes,
            margin_pct=margin,
            overrides=tuple(set_ or ()),
            data_dir=data_dir,
            jobs=jobs,
        )
        depth_study(request, runner, out, as_json=as_json)
        return
    if (file is None) == (models is None):
        raise ValueError(
            "give either a study file or --models, for example: "
            "reslearn study --models plain20,resnet20 --recipe digits"
        )
    plan, name = _plan(file, models, seeds, recipe, data, set_ or ())
    out = out or Path("studies") / name
    _study_grid(plan, out, runner, data_dir=data_dir, check=check, as_json=as_json)


def _study_grid(
    plan: StudyFile,
    out: Path,
    engine: Engine,
    *,
    data_dir: Path | None,
    check: bool,
    as_json: bool,
) -> None:
    """Train the runs of a grid that are not complete, and report all."""
    from reslearn.study import collect, degradation_verdicts, run_study, training_macs
    from reslearn.train import Machine, check_recipes

    arguments = [] if data_dir is None else ["--data-dir", str(data_dir)]
    planned = plan.jobs(out, cost=training_macs, arguments=arguments)
    # An impossible recipe is reported once, before any training, and not by every run.
    to_train = (job.recipe for job in planned if not job.has_ended)
    check_recipes(to_train, Machine(data_dir=data_dir))
    report = run_study(planned, out, engine=engine)
    if not as_json or not report.is_complete:
        print_lines(*report.lines(), file=sys.stderr if as_json else sys.stdout)
    collection = collect(out)
    verdicts = degradation_verdicts(collection.rows, diverged=collection.diverged)
    if collection.rows:
        _report(collection, verdicts, out, as_json=as_json)
    if report.is_interrupted:
        raise typer.Exit(report.exit_status)
    complete = {job.folder for job in planned if job.is_complete}
    for run in collection.incomplete:
        if run.folder in complete:  # its result cannot be read
            raise ValueError(run.reason)
    if not report.is_complete or (check and _degrades(verdicts)):
        raise typer.Exit(report.exit_status or 1)


def _depth_data(file: Path | None, data: str | None) -> str:
    """Return the data of a depth study: the argument, or --data."""
    if (file is None) == (data is None):
        raise ValueError("--depth needs the data, for example: reslearn study photos --depth auto")
    return data if data is not None else str(file)


def engine_named(name: str, *, jobs: int | None) -> Engine:
    """Return the engine for the value of --engine.

    Raises:
        ValueError: If the name is unknown, or the extra of the engine is not installed.
    """
    from reslearn.cli.commands import main
    from reslearn.study import LocalEngine, RayEngine, WarmStart

    if name == "local":
        return LocalEngine(jobs=jobs, launch=WarmStart(main, preload=_PRELOAD))
    if name == "ray":
        return RayEngine(jobs=jobs, launch=WarmStart(main, preload=_PRELOAD))
    raise ValueError(f"--engine {name}: local or ray is needed")


def _plan(
    file: Path | None,
    models: str | None,
    seeds: int,
    recipe: str | None,
    data: str | None,
    overrides: Sequence[str],
) -> tuple[StudyFile, str]:
    """Return the study of a file or of the options, and its name."""
    from reslearn.study import load_study, study_from

    if file is not None:
        return load_study(file), file.stem
    names = tuple(model.strip() for model in (models or "").split(",") if model.strip())
    recipe = recipe or ("digits" if data == "digits" else "cifar-short")
    values = {"models": names, "seeds": seeds, "recipe": recipe, "data": data, "set": overrides}
    plan = study_from(values, source="reslearn study")
    return plan, f"{Path(data or recipe).name}-{'-'.join(names)}"


def _degrades(verdicts: Verdicts) -> bool:
    return any(
        not isinstance(verdict, str) and verdict.answer == "yes" for verdict in verdicts.values()
    )


def _report(collection: Collection, verdicts: Verdicts, out: Path, *, as_json: bool) -> None:
    """Write the page of the study, and print its table, differences and verdicts."""
    from reslearn.report import study_page, write_page
    from reslearn.study import differences, table, training_field

    training = training_field(collection.rows)
    fields = {training: "training error %", "test_top1_error_pct": "test error %"}
    study_table = table(collection.rows, incomplete=collection.incomplete)
    changes = {
        heading: differences(collection.rows, field=field) for field, heading in fields.items()
    }
    page = write_page(study_page(collection, title=f"Study {out.name}"), out)
    if as_json:
        _print_json(study_table, changes, verdicts, page)
        return
    console = safe_console()
    _print_table(study_table, fields)
    all_changes = [difference for column in changes.values() for difference in column]
    if any(difference.p is not None for difference in all_changes):
        console.print("p values are Holm-corrected within each table; intervals are not corrected.")
    for heading, column in changes.items():
        for difference in column:
            line = f"{heading}, {difference.what}: {_difference_text(difference)}"
            console.print(line, soft_wrap=True)
    for kind, verdict in verdicts.items():
        if isinstance(verdict, str):
            text = f"no verdict, {verdict}"
        else:
            text = f"{verdict.answer}. {verdict.reason}"
        console.print(f"degradation of {kind} networks: {text}")
    for line in (*study_table.notes, f"page: {page}"):
        console.print(line)


def _print_json(
    study_table: StudyTable,
    changes: Mapping[str, Sequence[Difference]],
    verdicts: Verdicts,
    page: Path,
) -> None:
    from dataclasses import asdict

    change_values: dict[str, list[dict[str, Any]]] = {}
    for heading, column in changes.items():
        change_values[heading] = [asdict(difference) for difference in column]
    content = {
        "table": asdict(study_table),
        "differences": change_values,
        "verdicts": {
            kind: verdict if isinstance(verdict, str) else asdict(verdict)
            for kind, verdict in verdicts.items()
        },
        "page": str(page),
    }
    print_json(content)


def _print_table(study_table: StudyTable, fields: Mapping[str, str]) -> None:
    from rich.table import Table

    from reslearn.study import names_of

    names = names_of(study_table.groups)
    rich_table = Table("model", "runs", *fields.values(), title_justify="left")
    rich_table.title = "mean ± standard deviation [95 % interval]"
    if any("recomputed" in field for field in fields):
        rich_table.caption = (
            "Training errors have recomputed batch-norm statistics, test errors the saved ones."
        )
    for group in study_table.groups:
        cells = [_summary_text(group.summaries.get(field)) for field in fields]
        runs = str(len(group.seeds))
        if group.num_diverged:
            runs += f", {group.num_diverged} diverged"
        rich_table.add_row(names[group.model, group.protocol], runs, *cells)
    for model, number in study_table.all_diverged:
        rich_table.add_row(model, f"0, {number} diverged", *["-"] * len(fields))
    safe_console().print(rich_table)


def _difference_text(difference: Difference) -> str:
    from reslearn.study import count_text, number_text

    comparison = difference.comparison
    text = number_text(comparison.difference, signed=True, interval=comparison.interval)
    p = "" if difference.p is None else f", p {difference.p:.3f}"
    return f"{text}{p} ({count_text(comparison.n_a, noun='pair')})"


def _summary_text(numbers: Summary | None) -> str:
    from reslearn.study import number_text

    if numbers is None:
        return "-"
    return number_text(
        numbers.mean, deviation=numbers.standard_deviation, interval=numbers.interval
    )
