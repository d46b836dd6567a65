"""What a person sees of a study: one display on a terminal, plain lines where there is none, nothing under RESLEARN_PROGRESS=off.

It reads the metrics.jsonl that the runs append to; the runs know nothing of it.
"""

import contextlib
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TextIO

from reslearn.progress import ProgressDisplay
from reslearn.recipes import Recipe
from reslearn.runs import RunFolder
from reslearn.study.grid import Job

if TYPE_CHECKING:
    from rich.progress import TaskID

_REFRESH_SECONDS = 0.5
_LINE_EVERY_SECONDS = 60.0


class StudyDisplay(Protocol):
    """What an engine tells while it works. `refresh` may be called as often as one likes."""

    def begun(self, job: Job) -> None: ...
    def complete(self, job: Job, seconds: float) -> None: ...
    def failed(self, job: Job, reason: str) -> None: ...
    def stopping(self, *, running: int, again: bool) -> None: ...
    def refresh(self, running: Sequence[Job]) -> None: ...


@contextlib.contextmanager
def display_for(jobs: Sequence[Job], *, to: TextIO | None = None) -> Iterator[StudyDisplay]:
    """The display that suits the place: by RESLEARN_PROGRESS, and by whether `to` (default: stderr) is a terminal."""
    # We draw when we poll; a second thread that draws has no place beside one that starts processes.
    with ProgressDisplay(
        stream=to, with_time_left=False, bar_width=20, transient=True, draws_in_thread=False
    ) as progress:
        if progress.is_silent:
            yield _Silent()
        elif progress.has_bars:
            yield _Bars(jobs, progress)
        else:
            yield _Lines(jobs, progress)


def fraction_done(recipe: Recipe, record: Mapping[str, Any] | None) -> float:
    """How far a run is, 0 to 1, in the unit in which its recipe gives the duration."""
    if record is None:
        return 0.0
    duration = recipe.schedule.duration
    return min(
        1.0, float(record["step" if duration.unit == "steps" else "epoch"]) / duration.amount
    )


class _Account:
    """Work done and left, in the unit of the jobs' cost. What was done before a run was resumed says nothing about its speed."""

    def __init__(self, jobs: Sequence[Job]) -> None:
        self.total = sum(job.cost for job in jobs) or 1.0
        self.num_jobs, self.num_ended = len(jobs), 0
        self.ended = 0.0
        self._before: dict[Path, float] = {}
        self._worked = 0.0
        self._started = time.monotonic()

    def begin(self, job: Job) -> None:
        """Remember how far the run was."""
        self._before[job.folder] = self.fraction(job)

    def end(self, job: Job) -> None:
        """The run has ended, one way or another."""
        self.num_ended += 1
        self.ended += job.cost
        self._worked += job.cost * (1 - self._before.get(job.folder, 0.0))

    @staticmethod
    def fraction(job: Job) -> float:
        """How far one run is."""
        return fraction_done(job.recipe, RunFolder(job.folder).newest_metrics("train"))

    def overall(self, running: Sequence[Job]) -> tuple[float, str]:
        """The study's fraction, and the time left in words (empty while it cannot be told)."""
        fractions = {job.folder: self.fraction(job) for job in running}
        done = self.ended + sum(job.cost * fractions[job.folder] for job in running)
        worked = self._worked + sum(
            job.cost * max(0.0, fractions[job.folder] - self._before.get(job.folder, 0.0))
            for job in running
        )
        elapsed = time.monotonic() - self._started
        left = (
            _duration((self.total - done) * elapsed / worked) + " left"
            if worked > 0 and elapsed > 5
            else ""
        )
        return done / self.total, left


class _Silent:
    def begun(self, job: Job) -> None: ...
    def complete(self, job: Job, seconds: float) -> None: ...
    def failed(self, job: Job, reason: str) -> None: ...
    def stopping(self, *, running: int, again: bool) -> None: ...
    def refresh(self, running: Sequence[Job]) -> None: ...


class _Lines:
    """A line when a run begins or ends, and one a minute in between."""

    def __init__(self, jobs: Sequence[Job], progress: ProgressDisplay) -> None:
        self._account, self._progress = _Account(jobs), progress
        self._line_at = time.monotonic()

    def begun(self, job: Job) -> None:
        self._account.begin(job)
        self._say(f"{job.name}: begun{_from(self._account.fraction(job))}")

    def complete(self, job: Job, seconds: float) -> None:
        self._account.end(job)
        self._say(f"{job.name}: complete after {_duration(seconds)}, {_state(job)}")

    def failed(self, job: Job, reason: str) -> None:
        self._account.end(job)
        self._say(f"{job.name}: failed: {reason}")

    def stopping(self, *, running: int, again: bool) -> None:
        self._say(_stopping(running, again))

    def refresh(self, running: Sequence[Job]) -> None:
        if time.monotonic() - self._line_at < _LINE_EVERY_SECONDS:
            return
        fraction, left = self._account.overall(running)
        self._say(
            "; ".join(
                [
                    f"{fraction:.0%} {left}".strip(),
                    *(f"{job.name} {_state(job)}" for job in running),
                ]
            )
        )

    def _say(self, text: str) -> None:
        self._line_at = time.monotonic()
        self._progress.print(f"[{self._account.num_ended}/{self._account.num_jobs}] {text}")


class _Bars:
    """A bar for the study and one for each run at work."""

    def __init__(self, jobs: Sequence[Job], progress: ProgressDisplay) -> None:
        self._account, self._progress = _Account(jobs), progress
        self._study = progress.add_bar("study", total=1.0)
        self._tasks: dict[Path, TaskID] = {}
        self._drawn_at = 0.0

    def begun(self, job: Job) -> None:
        self._account.begin(job)
        self._tasks[job.folder] = self._progress.add_bar(job.name, total=1.0)

    def complete(self, job: Job, seconds: float) -> None:
        self._ended(job, f"{job.name}: complete after {_duration(seconds)}, {_state(job)}")

    def failed(self, job: Job, reason: str) -> None:
        self._ended(job, f"{job.name}: failed: {reason}")

    def stopping(self, *, running: int, again: bool) -> None:
        self._progress.print(_stopping(running, again))

    def refresh(self, running: Sequence[Job]) -> None:
        if time.monotonic() - self._drawn_at < _REFRESH_SECONDS:
            return
        self._drawn_at = time.monotonic()
        fraction, left = self._account.overall(running)
        self._progress.update(
            self._study,
            fraction,
            f"{self._account.num_ended}/{self._account.num_jobs} runs  {left}",
        )
        for job in running:
            self._progress.update(self._tasks[job.folder], self._account.fraction(job), _state(job))
        self._progress.draw()

    def _ended(self, job: Job, text: str) -> None:
        self._account.end(job)
        if job.folder in self._tasks:
            self._progress.remove(self._tasks.pop(job.folder))
        self._progress.print(text)


def _state(job: Job) -> str:
    """step 1200 of 64000, loss 0.53, error 18.2 %; or what can be told yet."""
    record, duration = RunFolder(job.folder).newest_metrics("train"), job.recipe.schedule.duration
    if record is None:
        return "starting"
    total = (
        f" of {duration.amount:g}"
        if duration.unit == "steps"
        else f", epoch {record['epoch']:.1f} of {duration.amount:g}"
    )
    numbers = [
        f"{name} {record[key]:.4g}{unit}"
        for name, key, unit in _SHOWN
        if record.get(key) is not None
    ]
    return ", ".join([f"step {record['step']}{total}", *numbers])


_SHOWN = (("loss", "loss", ""), ("error", "top1_error_pct", " %"))


def _stopping(running: int, again: bool) -> str:
    return (
        "killed"
        if again
        else f"stopping: {running} run(s) write their checkpoints (once more to kill them)"
    )


def _from(fraction: float) -> str:
    return f" again at {fraction:.0%}" if fraction > 0 else ""


def _duration(seconds: float) -> str:
    """0:00:07, 1:02:03."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}"
