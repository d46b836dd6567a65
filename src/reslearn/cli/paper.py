"""`reslearn paper list` and `reslearn paper claims`: the paper as an executable, on data and at a budget of one's choice."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from reslearn.cli.output import process_pool, write_json
from reslearn.progress import print_progress

if TYPE_CHECKING:
    from reslearn.paper import Budget, ClaimsReport

LIST_EXAMPLES = ("reslearn paper list", "reslearn paper list --json")
CLAIMS_EXAMPLES = (
    "reslearn paper claims --data cifar10 --budget smoke",
    "reslearn paper claims --data cifar10 --budget short --only C1,C8",
)

_STYLES = {"shown": "green", "not shown": "red", "undecided": "yellow", "not testable here": "dim"}


def list_paper(
    results: Annotated[
        Path | None,
        typer.Option(
            help="Where committed runs lie; default: results/ of the source tree, or here."
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for programs.")] = False,
) -> None:
    """List the paper's tables, figures and claims: what each needs, and which runs for it are committed.

    Hours are of training by the paper's own budget (CIFAR: 64k steps, five seeds; ImageNet: 60 x 10^4 steps, one seed): on two CPU cores
    with bf16 (of those without, three times as many), and of one GPU of 2024, five trainings at once on it. With ~, for ImageNet, that
    rate of the nets for CIFAR is only carried over: wider layers fill a GPU better, so that it is rather less.
    """
    import json
    from dataclasses import asdict

    from rich import box
    from rich.console import Console
    from rich.table import Table

    from reslearn.paper import claims_inventory, inventory, load_claims

    if results is not None and not results.is_dir():
        raise ValueError(f"--results {results}: there is no such folder")
    places = (Path(__file__).parents[3] / "results", Path("results"))
    results = results or next((place for place in places if place.is_dir()), None)
    items, of_claims = inventory(results), claims_inventory(results)
    claims = [module.CLAIM for module in load_claims()]
    if as_json:
        told = [
            {"claim": claim.identifier, "text": claim.text, "section": claim.section}
            for claim in claims
        ]
        typer.echo(
            json.dumps(
                {
                    "exhibits": [asdict(item) for item in items],
                    "claims": told,
                    "claims_need": asdict(of_claims),
                }
            )
        )
        return
    heads = ("name", "what", "needs", "hours on\n2 cores,\nbf16", "on one\nGPU", "committed\nruns")
    table = Table(
        *heads,
        title="Tables and figures",
        title_justify="left",
        box=box.HORIZONTALS,
        padding=(0, 1, 0, 0),
    )
    for item in items:
        committed = (
            "\n".join(
                f"{budget} {have} of {needed}"
                for budget, (have, needed) in item.committed.items()
                if have
            )
            or "none"
        )
        hours = (
            _hours(item.hours_two_cores),
            ("~" if item.estimated else "") + _hours(item.hours_one_gpu),
        )
        needs = "nothing" if item.data == "none" else item.data
        table.add_row(
            item.name, item.title, needs, *hours, committed if item.num_runs else "exact, no run"
        )
    console = Console(highlight=False)
    console.print(table)
    long = f"{of_claims.num_runs} runs, {of_claims.hours_two_cores:,.0f} hours on 2 cores, {of_claims.hours_one_gpu:,.0f} on one GPU"
    console.print(
        f"Claims (reslearn paper claims) need CIFAR-10; in full {long}",
        markup=False,
        soft_wrap=True,
    )
    for place, (data, shown, number) in of_claims.committed.items():
        console.print(
            f"  committed: {place}, {shown} of {number} shown on {data}",
            markup=False,
            soft_wrap=True,
        )
    for claim in claims:
        console.print(
            f"  {claim.identifier:4} {claim.text} ({claim.section})", markup=False, soft_wrap=True
        )


def _hours(number: float | None) -> str:
    return "-" if number is None else f"{number:,.0f}" if number >= 10 else f"{number:.1f}"


def claims(
    data: Annotated[
        str, typer.Option(help="cifar10, cifar100, digits or a folder of images.")
    ] = "cifar10",
    budget: Annotated[
        str,
        typer.Option(
            help="smoke (does it run), short (hours on two cores) or full (the paper's 64k steps)."
        ),
    ] = "short",
    seeds: Annotated[
        int | None, typer.Option(min=1, help="Seeds to judge on; default: 2, 3 or 5, by budget.")
    ] = None,
    only: Annotated[
        str | None, typer.Option(help="Some claims, as in C1,C8; default: all.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Where the page and the runs go; default: claims/DATA-BUDGET."),
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
            "--check", help="Exit with 1 where a claim is judged 'not shown' (undecided passes)."
        ),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the findings as JSON.")] = False,
) -> None:
    """Train what the paper's claims rest on, and judge each by its rule: shown, not shown, undecided, or not testable here.

    Stopped, it goes on when it is called again with the same --out.
    """
    from reslearn import paper
    from reslearn.train import Machine, check_recipes

    wanted = (
        tuple(name.strip().upper() for name in only.split(",") if name.strip())
        if only is not None
        else ()
    )
    if only is not None and not wanted:
        raise ValueError(f"--only {only!r}: names of claims are needed, as in --only C1,C8")
    chosen = paper.paper_budget(budget, data, seeds=seeds)
    out = out or Path("claims") / f"{Path(data).name}-{budget}"
    jobs_ = paper.jobs_of(
        (one for module in paper.load_claims(wanted) for one in module.conditions(chosen)),
        chosen,
        out / "runs",
    )
    # Wrong recipes are reported once here, not by every run.
    to_train = (job.recipe for job in jobs_ if not job.is_complete)
    check_recipes(to_train, Machine(data_dir=data_dir))
    run_and_tell(
        chosen,
        wanted,
        out=out,
        jobs=jobs,
        engine=engine,
        data_dir=data_dir,
        check=check,
        as_json=as_json,
    )


def run_and_tell(
    budget: "Budget",
    only: tuple[str, ...],
    *,
    out: Path,
    jobs: int | None,
    data_dir: Path | None,
    check: bool,
    as_json: bool,
    engine: str = "local",
) -> None:
    """Run the claims, write the page, print the table or JSON."""
    import json

    from reslearn import paper
    from reslearn.cli.study import engine_named
    from reslearn.report import write_page
    from reslearn.study import available_cores

    modules = paper.load_claims(only)
    runner = engine_named(engine, jobs=jobs)
    try:
        with process_pool(jobs or available_cores()) as judges:
            report = paper.run_claims(
                modules,
                budget,
                out,
                engine=runner,
                fit=fit,
                data_dir=data_dir,
                judges=judges,
                say=print_progress,
            )
    except paper.StudyStopped as stopped:
        print(stopped, file=sys.stderr)
        raise typer.Exit(130) from None
    page = write_page(paper.claims_page(report, command=["reslearn", *sys.argv[1:]]), out)
    findings = paper.as_json(report)
    write_json(findings, out / "claims.json")
    if as_json:
        typer.echo(json.dumps({**findings, "page": str(page)}, allow_nan=False))
    else:
        _print(report, page)
    for failure in report.failures:
        print(f"reslearn: failed: {failure}", file=sys.stderr)
    if report.failures or (
        check and any(finding.outcome == "not shown" for finding in report.findings)
    ):
        raise typer.Exit(1)


def _print(report: "ClaimsReport", page: Path) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table("", "claim", "measured", "verdict", show_lines=True)
    for finding in report.findings:
        verdict = Text(finding.outcome, style=_STYLES[finding.outcome])
        table.add_row(
            finding.claim.identifier, Text(finding.claim.text), Text(finding.measured), verdict
        )
    console = Console(highlight=False)
    console.print(table)
    console.print(f"{report.num_runs} runs, {report.seconds:.0f} s. Page: {page}", markup=False)


def fit(*arguments: Any, **named: Any) -> Any:
    """`reslearn.train.fit`, imported when a claim makes a small fit of its own."""
    from reslearn.train import fit

    return fit(*arguments, **named)


def evaluate(source: Sequence[Path], *, protocol: Any, data_dir: Path | None) -> Any:
    """Evaluate runs by `reslearn.train.evaluate_bundle`, imported when an exhibit needs it."""
    from reslearn.train import Machine, evaluate_bundle

    return evaluate_bundle(source, machine=Machine(data_dir=data_dir), protocol=protocol)
