"""`reslearn paper`: the claims, tables and figures of the paper as experiments."""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from reslearn.cli.options import (
    OUTPUT,
    DataDirOption,
    EngineOption,
    JobsOption,
    JsonOption,
    hidden,
)
from reslearn.cli.output import print_json, process_pool, write_json
from reslearn.terminal import print_lines

if TYPE_CHECKING:
    from concurrent.futures import Executor

    from reslearn.paper import Budget, Experiment, Report
    from reslearn.paper.experiment import ExperimentModule

LIST_EXAMPLES = ("reslearn paper list", "reslearn paper list --json")
CLAIMS_EXAMPLES = (
    "reslearn paper claims --data cifar10 --budget smoke",
    "reslearn paper claims --data cifar10 --budget short --only C1,C8",
)
# Names and help of the tables and figures. The modules in paper/exhibits are not imported for
# --help.
EXHIBITS = {
    "table1": "Table 1: architectures for ImageNet, with exact parameter counts.",
    "table2": "Table 2: plain and residual networks on ImageNet, ten crops.",
    "table3": "Table 3: shortcut options and depth on ImageNet, ten crops.",
    "table4": "Table 4: single models on ImageNet, whole images at five scales.",
    "table5": "Table 5: an ensemble of six networks on ImageNet.",
    "table6": "Table 6: test error of residual networks on CIFAR-10.",
    "fig1": "Figure 1: plain networks of 20 and 56 layers, training and test error.",
    "fig4": "Figure 4: training of plain and residual networks on ImageNet.",
    "fig6": "Figure 6: plain and residual networks of all depths over iterations.",
    "fig7": "Figure 7: standard deviations of layer responses.",
    "ambiguities": "How much each choice that the paper leaves open changes the error.",
}
_IMAGENET = ("table2", "table3", "table4", "table5", "fig4")
# Parameters that have no effect in an experiment. Its --help does not list them.
_WITHOUT_EFFECT = {
    "table1": ("data", "budget", "seeds", "depths", "jobs", "engine", "data_dir"),
    "table5": ("seeds", "depths"),
    **dict.fromkeys(("table2", "table3", "table4", "fig4", "ambiguities"), ("depths",)),
}

_EXPERIMENT = "Experiment"
Seeds = Annotated[
    int | None,
    typer.Option(
        min=1,
        rich_help_panel=_EXPERIMENT,
        help="Train this many seeds per network. Default: 2, 3 or 5, by budget.",
    ),
]
Depths = Annotated[
    str | None,
    typer.Option(
        rich_help_panel=_EXPERIMENT,
        help="Compare these numbers of layers, such as 20,56. "
        "Default: the paper's, fewer by budget.",
    ),
]
ExhibitFolder = Annotated[
    Path | None,
    typer.Option(
        rich_help_panel=OUTPUT,
        help="Write all tables, figures and runs here. Default: paper/DATA-BUDGET.",
    ),
]
Check = Annotated[
    bool,
    typer.Option(
        "--check",
        rich_help_panel=OUTPUT,
        help="Exit with 1 if a verdict is 'not shown' or 'not reproduced'. "
        "Questions that the paper leaves open do not count.",
    ),
]


def claims(
    data: Annotated[
        str,
        typer.Option(
            rich_help_panel=_EXPERIMENT,
            help="Train on cifar10, cifar100, digits or a folder of images.",
        ),
    ] = "cifar10",
    budget: Annotated[
        str,
        typer.Option(
            rich_help_panel=_EXPERIMENT,
            help="Use a smoke (does it run), short (hours on two cores) or full budget "
            "(the paper's 64k steps). Only the tables and figures of CIFAR have a medium budget.",
        ),
    ] = "short",
    seeds: Seeds = None,
    only: Annotated[
        str | None,
        typer.Option(
            rich_help_panel=_EXPERIMENT,
            help="Judge only these claims, such as C1,C8. Default: all.",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            rich_help_panel=OUTPUT,
            help="Write the page and the runs here. Default: claims/DATA-BUDGET.",
        ),
    ] = None,
    jobs: JobsOption = None,
    engine: EngineOption = "local",
    data_dir: DataDirOption = None,
    check: Check = False,
    as_json: JsonOption = False,
) -> None:
    """Train the networks behind the claims, and judge each by its rule.

    The verdicts are shown, not shown, undecided, and not testable here. If the command was stopped,
    call it again with the same --out to resume.
    """
    from reslearn import paper

    names = () if only is None else _names_of_claims(only)
    run_claims(
        paper.claims_budget(budget, data, seeds=seeds),
        names,
        out=out or Path("claims") / f"{Path(data).name}-{budget}",
        jobs=jobs,
        engine=engine,
        data_dir=data_dir,
        check=check,
        as_json=as_json,
    )


def run_claims(
    budget: "Budget",
    names: Sequence[str],
    *,
    out: Path,
    jobs: int | None,
    engine: str = "local",
    data_dir: Path | None = None,
    check: bool = False,
    as_json: bool = False,
) -> None:
    """Run the claims, write the page and claims.json, and print the table or JSON."""
    from reslearn import paper
    from reslearn.cli import paper_output
    from reslearn.report import write_page
    from reslearn.study import available_cores

    modules = paper.load_claims(names)
    _check_recipes(modules, budget, out, data_dir)
    with process_pool(jobs or available_cores()) as judges:
        report = _run(
            modules, budget, out, jobs=jobs, engine=engine, data_dir=data_dir, judges=judges
        )
    page = write_page(paper.claims_page(report, command=_command()), out)
    record = paper.claims_json(report)
    write_json(record, out / "claims.json")
    if as_json:
        _print_json(record, page)
    else:
        paper_output.print_claims(report, page)
    _finish(report, check=check)


def exhibit_command(name: str) -> Callable[..., None]:
    """Return the command of a table or figure."""
    data_help = "Train on cifar10, cifar100, digits or a folder of images. Default: cifar10."
    medium = "" if name in _IMAGENET else ", medium (minutes of a GPU)"
    if name in _IMAGENET:
        data_help = "Train on ILSVRC2012 as class folders, or on a stand-in without verdicts."
    budget_help = (
        f"Use a smoke (does it run), short (hours on two cores){medium} or full budget "
        "(the paper's own). Default: short."
    )

    def command(
        data: Annotated[
            str | None, typer.Option(rich_help_panel=_EXPERIMENT, help=data_help)
        ] = None,
        budget: Annotated[
            str | None, typer.Option(rich_help_panel=_EXPERIMENT, help=budget_help)
        ] = None,
        seeds: Seeds = None,
        depths: Depths = None,
        out: ExhibitFolder = None,
        jobs: JobsOption = None,
        engine: EngineOption = "local",
        data_dir: DataDirOption = None,
        check: Check = False,
        as_json: JsonOption = False,
    ) -> None:
        from reslearn import paper
        from reslearn.cli import paper_output
        from reslearn.report import write_page

        module = paper.load_exhibit(name)
        if budget is not None and module.EXPERIMENT.data == "none":
            raise ValueError(f"--budget has no effect in {name}: leave it out")
        chosen = paper.exhibit_budget(
            module.EXPERIMENT, budget or "short", data, seeds=seeds, depths=_depths(depths)
        )
        out = out or _default_folder(module.EXPERIMENT, chosen)
        _check_recipes([module], chosen, out, data_dir)
        report = _run([module], chosen, out, jobs=jobs, engine=engine, data_dir=data_dir)
        page = write_page(paper.exhibit_page(report, command=_command()), out / name)
        record = paper.exhibit_json(report)
        write_json(record, out / name / f"{name}.json")
        if as_json:
            _print_json(record, page)
        else:
            paper_output.print_exhibit(report, page)
        _finish(report, check=check)

    for parameter in _WITHOUT_EFFECT.get(name, ()):
        command.__annotations__[parameter] = hidden(command.__annotations__[parameter])
    command.__doc__ = (
        f"{EXHIBITS[name]}\n\nPrints the paper's numbers beside ours, with verdicts. "
        "If the command was stopped, call it again to resume."
    )
    return command


def exhibit_examples(name: str) -> tuple[str, ...]:
    """Return the examples at the end of the help of a table or figure."""
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


def list_paper(
    results: Annotated[
        Path | None,
        typer.Option(
            help="Read committed runs from here. Default: results/ of the source tree, or here."
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """List tables, figures and claims, and the runs that each needs.

    Hours are the training time of the paper's own budget: 64k steps and five seeds for CIFAR, 60 x
    10^4 steps and one seed for ImageNet. One column is for two CPU cores with bf16; cores without
    bf16 take three times as long. The other is for one GPU of 2024 with five trainings at once.
    Hours with ~ are estimates for ImageNet from the rate of networks for CIFAR. Wider layers use a
    GPU better, so the true hours are fewer.
    """
    from dataclasses import asdict

    from reslearn import paper
    from reslearn.cli import paper_output

    if results is not None and not results.is_dir():
        raise ValueError(f"--results {results}: there is no such folder")
    folders = (Path(__file__).parents[3] / "results", Path("results"))
    results = results or next((folder for folder in folders if folder.is_dir()), None)
    items, claims_item = paper.inventory(results), paper.claims_inventory(results)
    experiments = [module.EXPERIMENT for module in paper.load_claims()]
    if as_json:
        record = {
            "exhibits": [asdict(item) for item in items],
            "claims": [
                {"claim": claim.name, "text": claim.text, "section": claim.section}
                for claim in experiments
            ],
            "claims_need": asdict(claims_item),
        }
        print_json(record)
        return
    paper_output.print_inventory(items, claims_item, experiments)


def fit(*arguments: Any, **options: Any) -> Any:
    """Call `reslearn.train.fit`, which is imported only when a claim trains small networks."""
    from reslearn.train import fit

    return fit(*arguments, **options)


def evaluate(source: Sequence[Path], *, protocol: Any, data_dir: Path | None) -> Any:
    """Call `reslearn.train.evaluate_bundle`, which is imported only for experiments on ImageNet."""
    from reslearn.train import Machine, evaluate_bundle

    return evaluate_bundle(source, machine=Machine(data_dir=data_dir), protocol=protocol)


def _names_of_claims(text: str) -> tuple[str, ...]:
    names = tuple(name.strip().upper() for name in text.split(",") if name.strip())
    if not names:
        raise ValueError(f"--only {text!r}: names of claims are needed, for example --only C1,C8")
    return names


def _depths(text: str | None) -> tuple[int, ...]:
    if text is None:
        return ()
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdigit() for part in parts):
        raise ValueError(
            f"--depths {text}: numbers of layers are needed, for example --depths 20,56"
        )
    return tuple(map(int, parts))


def _default_folder(experiment: "Experiment", budget: "Budget") -> Path:
    if budget.data:
        return Path("paper") / f"{Path(budget.data).name}-{budget.name}"
    return Path("paper") if experiment.data == "none" else Path("paper") / "without-data"


def _check_recipes(
    modules: "Sequence[ExperimentModule]", budget: "Budget", out: Path, data_dir: Path | None
) -> None:
    """Raise an error for a recipe that cannot be trained: once, before any run starts."""
    from reslearn import paper
    from reslearn.train import Machine, check_recipes

    specs: list[paper.RunSpec] = []
    for module in modules:
        specs += paper.first_specs(module.EXPERIMENT, budget)
    jobs = paper.jobs_of(specs, budget, out / "runs")
    to_train = (job.recipe for job in jobs if not job.has_ended)
    check_recipes(to_train, Machine(data_dir=data_dir))


def _run(
    modules: "Sequence[ExperimentModule]",
    budget: "Budget",
    out: Path,
    *,
    jobs: int | None,
    engine: str,
    data_dir: Path | None,
    judges: "Executor | None" = None,
) -> "Report":
    """Run experiments; exit with 130 or 143 if a signal stopped them."""
    from reslearn import paper
    from reslearn.cli.study import engine_named

    try:
        return paper.run_experiments(
            modules,
            budget,
            out,
            engine=engine_named(engine, jobs=jobs),
            fit=fit,
            evaluate=evaluate,
            data_dir=data_dir,
            judges=judges,
        )
    except paper.StudyStopped as stopped:
        print_lines(stopped, file=sys.stderr)
        raise typer.Exit(stopped.exit_status) from None


def _command() -> list[str]:
    return ["reslearn", *sys.argv[1:]]


def _finish(report: "Report", *, check: bool) -> None:
    """Print failed runs. Exit with 1 if there are any, or if --check finds a contradiction."""
    for failure in report.failures:
        print_lines(f"reslearn: failed: {failure}", file=sys.stderr)
    if report.failures or (check and report.contradicts_paper):
        raise typer.Exit(1)


def _print_json(record: dict[str, Any], page: Path) -> None:
    print_json({**record, "page": str(page)})
