"""Show the progress of long work on the error stream.

A terminal shows bars, a pipe or a file gets plain lines, and RESLEARN_PROGRESS=off silences both.
Every room may import this module: it needs no torch and imports rich only when it draws.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, TextIO, TypeVar, cast

from reslearn.terminal import print_lines, printable_line, safe_console

if TYPE_CHECKING:
    from types import TracebackType

    from rich.console import RenderableType
    from rich.progress import Progress, TaskID

Batch = TypeVar("Batch", bound=Sequence[Any])

SECONDS_PER_LINE = 10.0
"""Where there are no bars, work that goes on prints a line this often."""

_displays: list[ProgressDisplay] = []  # that are drawn now, the innermost last


def is_quiet() -> bool:
    """Return whether the user switched progress off with RESLEARN_PROGRESS=off."""
    return os.environ.get("RESLEARN_PROGRESS") == "off"


def print_progress(text: str) -> None:
    """Print one line about the current work, in bold on a terminal."""
    if is_quiet():
        return
    safe_console(sys.stderr).print(printable_line(text), style="bold", soft_wrap=True)


@contextmanager
def progress_bar(
    description: str, total: int | None, *, in_bytes: bool = False, after_seconds: float = 0.0
) -> Iterator[Callable[[int], None]]:
    """Show one bar on a terminal while the context lasts, and lines elsewhere.

    Within a ProgressDisplay it is one more bar of that display.

    Args:
        description: Text in front of the bar.
        total: Amount of work, or None if it is unknown.
        in_bytes: Show sizes and speed instead of counts.
        after_seconds: The bar appears at the first step after this time, so short work shows none.
            The first line appears after ten seconds.

    Yields:
        `advance(amount)`, which moves the bar.
    """
    display = _displays[-1] if _displays else ProgressDisplay()
    if _displays or not display.has_bars:
        with display.nested_bar(description, total, in_bytes, after_seconds) as advance:
            yield advance
        return
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    counts = (DownloadColumn(), TransferSpeedColumn()) if in_bytes else (MofNCompleteColumn(),)
    bars = Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        *counts,
        TimeRemainingColumn(),
        console=safe_console(sys.stderr),
        transient=True,
    )
    bar = bars.add_task(printable_line(description), total=total)
    start_time = time.monotonic()
    with ExitStack() as stack:

        def advance(amount: int) -> None:
            bars.advance(bar, amount)
            if not bars.live.is_started and time.monotonic() - start_time >= after_seconds:
                stack.enter_context(bars)

        yield advance


def track(batches: Iterable[Batch], description: str, total: int) -> Iterator[Batch]:
    """Yield the batches and show, after two seconds, how many of `total` images they had."""
    with progress_bar(description, total, after_seconds=2.0) as advance:
        for batch in batches:
            yield batch
            advance(len(batch[0]))


class ProgressDisplay:
    """Bars with a state text, and lines that stay above them; a context manager.

    Args:
        stream: Where to draw; default: the error stream.
        quiet: Show nothing, as with RESLEARN_PROGRESS=off.
        bar_width: Width of each bar in columns.
        transient: Remove the bars at the end.
        draws_in_thread: Redraw from a thread of its own. Pass False in a process that forks, and
            call `draw` instead: a forked child inherits the locks of a drawing thread.

    Attributes:
        has_bars: The stream is a terminal, so `update` draws. Elsewhere `update` does nothing.
        is_silent: Neither bars nor lines appear.
    """

    def __init__(
        self,
        *,
        stream: TextIO | None = None,
        quiet: bool = False,
        bar_width: int = 40,
        transient: bool = False,
        draws_in_thread: bool = True,
    ) -> None:
        self._stream = stream or sys.stderr
        self.is_silent = quiet or is_quiet()
        self.has_bars = not self.is_silent and _is_terminal(self._stream)
        self._bars: Progress | None = None
        if self.has_bars:
            self._bars = _state_bars(self._stream, bar_width, transient, draws_in_thread)

    def __enter__(self) -> ProgressDisplay:
        if self._bars is not None:
            self._bars.start()
        _displays.append(self)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        _displays.remove(self)
        if self._bars is not None:
            self._bars.stop()

    @contextmanager
    def nested_bar(
        self, description: str, total: int | None, in_bytes: bool, after_seconds: float
    ) -> Iterator[Callable[[int], None]]:
        """Show work that is part of the displayed work, as `progress_bar` does."""
        start_time = line_at = time.monotonic()
        completed, bar = 0, None

        def advance(amount: int) -> None:
            nonlocal completed, bar, line_at
            completed += amount
            state = _count(completed, total, in_bytes)
            now = time.monotonic()
            if self.has_bars and now - start_time >= after_seconds:
                bar = self.add_bar(description, total) if bar is None else bar
                self.update(bar, completed, state)
            elif not self.has_bars and now - line_at >= SECONDS_PER_LINE:
                line_at = now
                self.print(f"{description}: {state}")

        try:
            yield advance
        finally:
            if bar is not None:
                self.remove(bar)

    def add_bar(self, description: str, total: float | None) -> TaskID:
        """Add a bar that is full at `total`."""
        if self._bars is None:
            return cast("TaskID", 0)
        title = printable_line(description)
        return self._bars.add_task(title, total=total, state="", below="")

    def update(self, bar: TaskID, completed: float, state: str, below: str = "") -> None:
        """Move `bar` to `completed` and replace the text behind it and the line below all bars."""
        if self._bars is not None:
            state, below = printable_line(state), printable_line(below)
            self._bars.update(bar, completed=completed, state=state, below=below)

    def remove(self, bar: TaskID) -> None:
        """Remove `bar` from the display."""
        if self._bars is not None:
            self._bars.remove_task(bar)

    def draw(self) -> None:
        """Draw the bars now, which `draws_in_thread=False` leaves to the caller."""
        if self._bars is not None:
            self._bars.refresh()

    def print(self, text: str) -> None:
        """Print a line that stays."""
        if self._bars is not None:
            self._bars.console.print(printable_line(text))
        elif not self.is_silent:
            print_lines(text, file=self._stream)


def _state_bars(stream: TextIO, bar_width: int, transient: bool, draws_in_thread: bool) -> Progress:
    from rich.progress import (
        BarColumn,
        Progress,
        TaskProgressColumn,
        TextColumn,
        TimeElapsedColumn,
    )
    from rich.text import Text

    class StateBars(Progress):
        def get_renderables(self) -> Iterator[RenderableType]:
            yield from super().get_renderables()
            for task in self.tasks:
                if task.fields["below"]:
                    yield Text(task.fields["below"], no_wrap=True, overflow="ellipsis")

    return StateBars(
        # A folder of images may be called anything, "[red]" included.
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=bar_width),
        TaskProgressColumn(),
        # It moves while a slow step is computed.
        TimeElapsedColumn(),
        TextColumn("{task.fields[state]}", markup=False),
        console=safe_console(stream),
        auto_refresh=draws_in_thread,
        transient=transient,
    )


def _count(completed: int, total: int | None, in_bytes: bool) -> str:
    """Return, for example, "3,000 of 10,000" or "12 MB"."""
    amounts = [completed] if total is None else [completed, total]
    if in_bytes:
        return " of ".join(f"{amount / 1e6:,.0f} MB" for amount in amounts)
    return " of ".join(f"{amount:,}" for amount in amounts)


def _is_terminal(stream: TextIO) -> bool:
    """Follow rich, which also obeys FORCE_COLOR and TTY_COMPATIBLE."""
    return safe_console(stream).is_terminal
