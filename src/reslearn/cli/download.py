"""`reslearn download`: fetch data sets without training on them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from reslearn.cli.options import DATA, JsonOption
from reslearn.cli.output import print_json
from reslearn.terminal import print_lines

if TYPE_CHECKING:
    from reslearn.data import DataStatus

EXAMPLES = (
    "reslearn download cifar10",
    "reslearn download cifar10 cifar100 --data-dir /data",
    "reslearn download all --json",
)


def download(
    names: Annotated[
        list[str],
        typer.Argument(metavar="NAME...", help="Names of `reslearn list data`, or all."),
    ],
    data_dir: Annotated[
        Path | None,
        typer.Option(
            rich_help_panel=DATA,
            help="Save to this folder. Default: RESLEARN_DATA, else the cache, ~/.cache/reslearn.",
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Download data sets, verify and unpack them, without training.

    A set that is present is not downloaded again, and an interrupted download is resumed. The
    digits are embedded and need no download.
    """
    import sys

    from reslearn import data

    if "all" in names:
        names = list(data.names())
    statuses = []
    for name in dict.fromkeys(names):
        try:
            statuses.append(data.download(name, data_dir=data_dir))
        except KeyboardInterrupt:
            print("\nreslearn: stopped; repeat the command to resume the download", file=sys.stderr)
            raise typer.Exit(130) from None
        if not as_json:
            print_lines(_line(statuses[-1]))
    if as_json:
        _print_json(statuses)


def size_text(num_bytes: int) -> str:
    """Return a size such as 178 MB."""
    return f"{num_bytes / 1e6:,.0f} MB" if num_bytes >= 1e6 else f"{num_bytes / 1e3:,.1f} kB"


def _line(status: DataStatus) -> str:
    if status.state == "embedded":
        return f"{status.name}: embedded, so there is nothing to download"
    what = "downloaded to" if status.was_downloaded else "is present in"
    return f"{status.name}: {what} {status.folder} ({size_text(status.num_bytes)})"


def _print_json(statuses: list[DataStatus]) -> None:
    from dataclasses import asdict

    print_json([asdict(status) for status in statuses])
