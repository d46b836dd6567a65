"""`reslearn demo`: the claims of the paper's first page, tested on real images in minutes."""

from pathlib import Path
from typing import Annotated

import typer

EXAMPLES = ("reslearn demo", "reslearn demo --out /tmp/demo --json")


def demo(
    out: Annotated[Path, typer.Option(help="Folder of the page, its figures and the runs.")] = Path(
        "demo"
    ),
    jobs: Annotated[
        int | None,
        typer.Option(min=1, help="Number of simultaneous runs. By default one per core."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the results as JSON.")] = False,
) -> None:
    """Test on digits whether depth makes plain networks harder to train, but not residual ones.

    Both families are trained at several depths, which takes about five minutes on two cores and
    downloads nothing. Each claim is judged by a rule that was written before the data were seen.
    The verdicts are written to a page. If the command was stopped, call it again to resume.
    """
    from reslearn import paper
    from reslearn.cli.paper import run_claims

    run_claims(paper.demo(), (), out=out, jobs=jobs, as_json=as_json)
