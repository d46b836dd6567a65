"""`reslearn demo`: the claims of the paper's first page on real images, measured in minutes on the machine at hand."""

from pathlib import Path
from typing import Annotated

import typer

EXAMPLES = ("reslearn demo", "reslearn demo --out /tmp/demo --json")


def demo(
    out: Annotated[Path, typer.Option(help="Where the page, its figures and the runs go.")] = Path(
        "demo"
    ),
    jobs: Annotated[
        int | None, typer.Option(min=1, help="Runs at once; default: one a core.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the findings as JSON.")] = False,
) -> None:
    """Show on handwritten digits what the paper claims: plain networks get harder to train with depth, residual ones do not.

    Trains both families at several depths (about five minutes on two cores, no download), applies to each claim a rule that was
    written before the data were seen, and writes a page. Stopped, it goes on when it is called again.
    """
    from reslearn import paper
    from reslearn.cli.paper import run_and_tell

    run_and_tell(paper.demo(), (), out=out, jobs=jobs, data_dir=None, check=False, as_json=as_json)
