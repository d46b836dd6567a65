"""`reslearn demo`: the claims of the paper's first page, tested on real images in minutes."""

from pathlib import Path
from typing import Annotated

import typer

from reslearn.cli.options import JobsOption, JsonOption

EXAMPLES = ("reslearn demo", "reslearn demo --out /tmp/demo --json")


def demo(
    out: Annotated[
        Path, typer.Option(help="Write the page, its figures and the runs here.")
    ] = Path("demo"),
    jobs: JobsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show on digits that depth hurts plain networks, but not residual ones.

    Both families are trained at several depths, which takes about five minutes on two cores and
    downloads nothing. Each claim is judged by a rule that was written before the data were seen.
    The verdicts are written to a page. If the command was stopped, call it again to resume.
    """
    from reslearn import paper
    from reslearn.cli.paper import run_claims

    run_claims(paper.demo(), (), out=out, jobs=jobs, as_json=as_json)
