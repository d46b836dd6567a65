"""`reslearn study`: a grid of models, seeds and settings, trained side by side, with a table, a page and a verdict at the end."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from reslearn.recipes import Recipe
    from reslearn.study import Collection, DegradationVerdict

EXAMPLES = (
    "reslearn study --models plain20,plain56,resnet20,resnet56 --seeds 3 --data digits --recipe digits",
    "reslearn study my-study.toml --jobs 2",
)


def study(
    file: Annotated[Path | None, typer.Argument(help="A study file (.toml) in place of --models, --seeds and --recipe.")] = None,
    models: Annotated[str | None, typer.Option("--models", "--model", help="Names of `reslearn list models`, with commas.")] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Seeds a model, counted from 0.")] = 3,
    recipe: Annotated[str | None, typer.Option(help="A name of `reslearn list recipes`, or a .toml file.")] = None,
    data: Annotated[str | None, typer.Option(help="digits, cifar10, cifar100 or a folder; default: the recipe's.")] = None,
    set_: Annotated[list[str] | None, typer.Option("--set", help="A value of the recipe for all runs; may be repeated.")] = None,
    out: Annotated[Path | None, typer.Option(help="The study's folder, one run folder a run in it; default: studies/NAME.")] = None,
    jobs: Annotated[int | None, typer.Option(min=1, help="Runs at once; default: one a core.")] = None,
    data_dir: Annotated[Path | None, typer.Option(help="Where data sets lie; default: RESLEARN_DATA, then the cache.")] = None,
    check: Annotated[bool, typer.Option("--check", help="Exit with 1 where training error degrades with depth.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the table and the verdicts as JSON.")] = False,
) -> None:
    """Train every model with every seed and compare them: mean, spread, 95 % interval, and whether training degrades with depth.

    A study that was stopped goes on when it is called again: what is complete stays, what was begun is resumed.
    """
    from reslearn.data import load
    from reslearn.study import LocalEngine, collect, load_study, run_study, study_from

    if (file is None) == (models is None):
        raise ValueError("give either a study file or --models, as in: reslearn study --models plain20,resnet20 --recipe digits")
    if file is not None:
        plan = load_study(file)
        name = file.stem
    else:
        assert models is not None
        names = tuple(model.strip() for model in models.split(",") if model.strip())
        chosen = recipe or ("digits" if data == "digits" else "cifar-short")
        values = {"models": names, "seeds": seeds, "recipe": chosen, "data": data, "set": set_ or ()}
        plan = study_from(values, source="reslearn study")
        name = f"{Path(data or chosen).name}-{'-'.join(names)}"
    out = out or Path("studies") / name
    arguments = [] if data_dir is None else ["--data-dir", str(data_dir)]
    planned = plan.jobs(out, cost=_cost, arguments=arguments)
    # What is not there is told once, not by every run.
    needed = {(job.recipe.data.name, job.recipe.data.size_px, job.recipe.data.jitter is not None) for job in planned if not job.is_complete}
    for name_of_data, size_px, stream in needed:
        load(name_of_data, data_dir=data_dir, size_px=size_px, stream=stream)
    report = run_study(planned, out, engine=LocalEngine(jobs=jobs))
    if not as_json or not report.is_complete:
        typer.echo("\n".join(report.lines()), err=as_json)
    found = collect(out)
    if found.rows:
        _tell(found, out, as_json=as_json)
    if report.is_interrupted:
        raise typer.Exit(130)
    if not report.is_complete or (check and any(verdict.answer == "yes" for verdict in _verdicts(found).values())):
        raise typer.Exit(1)


def _cost(recipe: "Recipe") -> float:
    """Multiply-adds of a run, near enough to start the longest first."""
    import torch

    from reslearn.models import build, complexity

    with torch.device("meta"):
        net = build(
            **{**recipe.model.model_dump(), "num_classes": recipe.model.num_classes or 10, "in_channels": recipe.model.in_channels or 3}
        )
    size_px = recipe.data.size_px or 32
    macs = complexity(net, (recipe.model.in_channels or 3, size_px, size_px)).macs
    return float(macs * recipe.schedule.duration.steps(num_images=50_000, batch_size=recipe.train.batch_size) * recipe.train.batch_size)


def _tell(found: "Collection", out: Path, *, as_json: bool) -> None:
    """Table, verdicts and page of what is there."""
    import json
    from dataclasses import asdict

    from reslearn.report import study_page, write_page
    from reslearn.study import table

    conditions, verdicts = table(found.rows, incomplete=found.incomplete), _verdicts(found)
    page = write_page(study_page(found, title=f"Study {out.name}"), out)
    if as_json:
        typer.echo(json.dumps({"table": asdict(conditions), "verdicts": {k: asdict(v) for k, v in verdicts.items()}, "page": str(page)}))
        return
    from rich.console import Console
    from rich.table import Table

    fields = {"train_recomputed_top1_error_pct": "training error %", "test_top1_error_pct": "test error %"}
    shown = Table("model", "runs", *fields.values(), title="mean ± standard deviation [95 % interval]", title_justify="left")
    for group in conditions.groups:
        cells = []
        for field in fields:
            numbers = group.summaries.get(field)
            cells.append("-" if numbers is None else _cell(numbers.mean, numbers.standard_deviation, numbers.interval))
        shown.add_row(group.model, str(len(group.seeds)), *cells)
    console = Console()
    console.print(shown)
    for note in conditions.notes:
        console.print(note, highlight=False, markup=False)
    for kind, verdict in verdicts.items():
        console.print(f"degradation of {kind} nets: {verdict.answer}. {verdict.reason}", highlight=False, markup=False)
    console.print(f"page: {page}", highlight=False, markup=False)


def _cell(mean: float | None, deviation: float | None, interval: tuple[float, float] | None) -> str:
    if mean is None:
        return "diverged"
    text = f"{mean:.2f}" if deviation is None else f"{mean:.2f} ± {deviation:.2f}"
    return text if interval is None else f"{text} [{interval[0]:.2f}, {interval[1]:.2f}]"


def _verdicts(found: "Collection") -> "dict[str, DegradationVerdict]":
    """The degradation verdict of each kind of which there are two depths."""
    from reslearn.report.study import MARGIN_PCT
    from reslearn.study import degradation_verdict, depth_rows

    verdicts: dict[str, DegradationVerdict] = {}
    for kind in ("plain", "residual"):
        rows = [row for row in found.rows if row.kind == kind]
        if len({row.depth for row in rows}) > 1:
            try:
                verdicts[kind] = degradation_verdict(depth_rows(rows, kind=kind), margin_pct=MARGIN_PCT)
            except ValueError as error:  # two recipes at one depth, say: the table stands, the verdict does not
                typer.echo(f"no verdict on {kind} nets: {error}", err=True)
    return verdicts
