"""A progress bar on the error stream for what takes long: downloads, decoding of folders.

It shows only on a terminal, only after a while, and never with RESLEARN_PROGRESS=off.
"""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)


@contextmanager
def progress(
    description: str, total: int | None, *, in_bytes: bool = False, after_seconds: float = 0.0
) -> Iterator[Callable[[int], None]]:
    """Hands out `advance(by)`; the bar appears at the first advance after `after_seconds`. `total` None: unknown."""
    console = Console(stderr=True)
    if os.environ.get("RESLEARN_PROGRESS") == "off" or not console.is_terminal:
        yield lambda by: None
        return
    counts = (DownloadColumn(), TransferSpeedColumn()) if in_bytes else (MofNCompleteColumn(),)
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        *counts,
        TimeRemainingColumn(),
        console=console,
        transient=True,
    )
    task = bar.add_task(description, total=total)
    started = time.monotonic()
    with ExitStack() as shown:

        def advance(by: int) -> None:
            bar.advance(task, by)
            if not bar.live.is_started and time.monotonic() - started >= after_seconds:
                shown.enter_context(bar)

        yield advance
