"""`reslearn study`: a grid of models, seeds and settings, trained side by side, with a table, a page and a verdict at the end."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from collections.abc import Mapping

    from reslearn.study import Collection, DegradationVerdict, Difference, Engine, Summary
    from reslearn.study.collect import Kind

EXAMPLES = (
    "reslearn study --models plain20,plain56,resnet20,resnet56 --seeds 3 --data digits --recipe digits",
    "reslearn study my-study.toml --jobs 2",
    "reslearn study my-study.toml --engine ray --out /shared/my-study",
)
# What every run imports; the fork server imports it once.
_PRELOAD = ("reslearn.cli", "reslearn.train", "torch._dynamo", "sklearn.datasets")


def study(
    file: Annotated[
        Path | None,
        typer.Argument(help="A study file (.toml) in place of --models, --seeds and --recipe."),
    ] = None,
    models: Annotated[
        str | None,
        typer.Option("--models", "--model", help="Names of `reslearn list models`, with commas."),
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Seeds a model, counted from 0.")] = 3,
    recipe: Annotated[
        str | None, typer.Option(help="A name of `reslearn list recipes`, or a .toml file.")
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(help="digits, cifar10, cifar100 or a folder; default: the recipe's."),
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", help="A value of the recipe for all runs; may be repeated."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="The study's folder, one run folder a run in it; default: studies/NAME."),
    ] = None,
    jobs: Annotated[
        int | None, typer.Option(min=1, help="Runs at once; default: one a core.")
    ] = None,
    engine: Annotated[
        str,
        typer.Option(
            help="local: this machine; ray: a Ray cluster that shares the study's folder."
        ),
    ] = "local",
    data_dir: Annotated[
        Path | None,
        typer.Option(help="Where data sets lie; default: RESLEARN_DATA, then the cache."),
    ] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Exit with 1 where training error degrades with depth.")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the table and the verdicts as JSON.")
    ] = False,
) -> None:
    """Train every model with every seed and compare them: mean, spread, 95 % interval, and whether training degrades with depth.

    A study that was stopped goes on when it is called again: what is complete stays, what was begun is resumed.
    """
    from reslearn.study import (
        collect,
        degradation_verdicts,
        load_study,
        run_study,
        study_from,
        training_macs,
    )
    from reslearn.train import Machine, check_recipes

    runner = engine_named(engine, jobs=jobs)
    if (file is None) == (models is None):
        raise ValueError(
            "give either a study file or --models, as in: reslearn study --models plain20,resnet20 --recipe digits"
        )
    if file is not None:
        plan = load_study(file)
        name = file.stem
    else:
        assert models is not None
        names = tuple(model.strip() for model in models.split(",") if model.strip())
        chosen = recipe or ("digits" if data == "digits" else "cifar-short")
        values = {
            "models": names,
            "seeds": seeds,
            "recipe": chosen,
            "data": data,
            "set": set_ or (),
        }
        plan = study_from(values, source="reslearn study")
        name = f"{Path(data or chosen).name}-{'-'.join(names)}"
    out = out or Path("studies") / name
    arguments = [] if data_dir is None else ["--data-dir", str(data_dir)]
    planned = plan.jobs(out, cost=training_macs, arguments=arguments)
    # What cannot be trained is told once, before anything is, not by every run.
    to_train = (job.recipe for job in planned if not job.is_complete)
    check_recipes(to_train, Machine(data_dir=data_dir))
    report = run_study(planned, out, engine=runner)
    if not as_json or not report.is_complete:
        typer.echo("\n".join(report.lines()), err=as_json)
    found = collect(out)
    verdicts = degradation_verdicts(found.rows)
    if found.rows:
        _tell(found, verdicts, out, as_json=as_json)
    if report.is_interrupted:
        raise typer.Exit(130)
    complete = {job.folder for job in planned if job.is_complete}
    for run in found.incomplete:
        if run.folder in complete:  # it has a result that cannot be read
            raise ValueError(run.reason)
    if not report.is_complete or (
        check and any(not isinstance(one, str) and one.answer == "yes" for one in verdicts.values())
    ):
        raise typer.Exit(1)


def engine_named(name: str, *, jobs: int | None) -> "Engine":
    """The engine of `--engine`. ValueError for another name, and where its extra is not installed."""
    from reslearn.cli.commands import main
    from reslearn.study import LocalEngine, RayEngine, WarmStart

    if name == "local":
        return LocalEngine(jobs=jobs, launch=WarmStart(main, preload=_PRELOAD))
    if name == "ray":
        return RayEngine(jobs=jobs, launch=WarmStart(main, preload=_PRELOAD))
    raise ValueError(f"--engine {name}: local or ray is needed")


def _tell(
    found: "Collection",
    verdicts: "Mapping[Kind, DegradationVerdict | str]",
    out: Path,
    *,
    as_json: bool,
) -> None:
    """Table, verdicts and page of what is there."""
    import json
    from dataclasses import asdict

    from reslearn.report import study_page, write_page
    from reslearn.study import differences, names_of, table, training_field

    training = training_field(found.rows)
    fields = {training: "training error %", "test_top1_error_pct": "test error %"}
    conditions = table(found.rows, incomplete=found.incomplete)
    moved = {said: differences(found.rows, field=field) for field, said in fields.items()}
    page = write_page(study_page(found, title=f"Study {out.name}"), out)
    if as_json:
        made = {
            kind: verdict if isinstance(verdict, str) else asdict(verdict)
            for kind, verdict in verdicts.items()
        }
        changes = {said: [asdict(one) for one in each] for said, each in moved.items()}
        typer.echo(
            json.dumps(
                {
                    "table": asdict(conditions),
                    "differences": changes,
                    "verdicts": made,
                    "page": str(page),
                }
            )
        )
        return
    from rich.console import Console
    from rich.table import Table

    shown = Table(
        "model",
        "runs",
        *fields.values(),
        title="mean ± standard deviation [95 % interval]",
        title_justify="left",
    )
    names = names_of(conditions.groups)
    if "recomputed" in training:
        shown.caption = "batch-norm statistics: of the training error recomputed, of the test error those that are saved"
    for group in conditions.groups:
        shown.add_row(
            names[group.model, group.protocol],
            str(len(group.seeds)),
            *(_cell(group.summaries.get(field)) for field in fields),
        )
    console = Console()
    console.print(shown)
    if any(one.p is not None for each in moved.values() for one in each):
        console.print(
            "p is corrected for all lines of a kind (Holm), intervals are not", highlight=False
        )
    for said, each in moved.items():
        for one in each:
            console.print(
                f"{said}, {one.what}: {_moved(one)}", highlight=False, markup=False, soft_wrap=True
            )
    for kind, verdict in verdicts.items():
        told = (
            f"no verdict, {verdict}"
            if isinstance(verdict, str)
            else f"{verdict.answer}. {verdict.reason}"
        )
        console.print(f"degradation of {kind} nets: {told}", highlight=False, markup=False)
    for line in (*conditions.notes, f"page: {page}"):
        console.print(line, highlight=False, markup=False)


def _moved(one: "Difference") -> str:
    found = one.comparison
    around = (
        ""
        if found.interval is None
        else f" [{found.interval.low:+.2f}, {found.interval.high:+.2f}]"
    )
    p = "" if one.p is None else f", p {one.p:.3f}"
    return f"{found.difference:+.2f}{around}{p} ({found.n_a} pair{'s' * (found.n_a != 1)})"


def _cell(numbers: "Summary | None") -> str:
    if numbers is None:
        return "-"
    text = (
        f"{numbers.mean:.2f}"
        if numbers.standard_deviation is None
        else f"{numbers.mean:.2f} ± {numbers.standard_deviation:.2f}"
    )
    return (
        text
        if numbers.interval is None
        else f"{text} [{numbers.interval.low:.2f}, {numbers.interval.high:.2f}]"
    )
