"""Progress of a study, on the error stream: bars on a terminal, plain lines elsewhere.

The display reads the metrics.jsonl that the runs append to. The runs know nothing of it.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from reslearn.progress import ProgressDisplay
from reslearn.recipes import Recipe
from reslearn.runs import RunFolder
from reslearn.study.grid import Job

if TYPE_CHECKING:
    from rich.progress import TaskID

    from reslearn.study.engine import JobStatus

_REFRESH_BARS_SECONDS = 0.5
_REFRESH_LINES_SECONDS = 60.0
_ESTIMATE_AFTER_SECONDS = 5.0
_METRICS = (("loss", "loss", ""), ("error", "top1_error_pct", " %"))


@contextlib.contextmanager
def study_display(jobs: Sequence[Job], *, stream: TextIO | None = None) -> Iterator[StudyDisplay]:
    """Show the progress of `jobs` on `stream` (default: stderr) while the context lasts."""
    # The engine draws whenever it polls. A drawing thread would be unsafe beside the code that
    # starts processes.
    with ProgressDisplay(
        stream=stream, bar_width=20, transient=True, draws_in_thread=False
    ) as progress:
        yield StudyDisplay(jobs, progress)


class StudyDisplay:
    """Display of the events of a study.

    A terminal shows a bar for the study and one for each running job, and a line for each ended
    job. Elsewhere, there is a line when a job begins or ends, and one per minute.
    """

    def __init__(self, jobs: Sequence[Job], progress: ProgressDisplay) -> None:
        self._progress = progress
        self._work = _Work(jobs)
        self._study_bar = progress.add_bar("study", total=1.0)
        self._job_bars: dict[Path, TaskID] = {}
        self._line_at, self._refresh_at = time.monotonic(), 0.0

    def begin(self, job: Job) -> None:
        """Show that a job runs now."""
        if self._progress.is_silent:
            return
        self._work.begin(job)
        self._job_bars[job.folder] = self._progress.add_bar(job.name, total=1.0)
        if not self._progress.has_bars:
            fraction = _fraction(job)
            self._print(f"{job.name}: {f'resumed at {fraction:.0%}' if fraction > 0 else 'begun'}")

    def end(self, outcome: JobStatus) -> None:
        """Show how a job ended. An interrupted job is not over, so it stays in the display."""
        job = outcome.job
        if outcome.status == "complete":
            if not self._progress.is_silent:
                state = f"complete after {_duration(outcome.seconds)}, {_state(job)}"
                self._end(job, f"{job.name}: {state}")
        elif outcome.status != "interrupted":
            self._end(job, f"{job.name}: {outcome.status}: {outcome.reason}")

    def stop(self, *, num_running: int, kill: bool) -> None:
        """Show that the study ends early, because the user stopped or killed it."""
        if kill:
            self._print("killed")
        else:
            self._print(
                f"stopping: {num_running} run(s) write their checkpoints; stop again to kill them"
            )

    def refresh(self, running: Sequence[Job]) -> None:
        """Show how far the running jobs are. Cheap to call often."""
        if self._progress.is_silent:
            return
        now = time.monotonic()
        if not self._progress.has_bars:
            if now - self._line_at >= _REFRESH_LINES_SECONDS:
                fraction, time_left = self._work.overall(running)
                states = [f"{job.name} {_state(job)}" for job in running]
                self._print("; ".join([f"{fraction:.0%} {time_left}".strip(), *states]))
        elif now - self._refresh_at >= _REFRESH_BARS_SECONDS:
            self._refresh_at = now
            fraction, time_left = self._work.overall(running)
            counts = f"{self._work.num_ended}/{self._work.num_jobs} runs  {time_left}"
            self._progress.update(self._study_bar, fraction, counts)
            for job in running:
                self._progress.update(self._job_bars[job.folder], _fraction(job), _state(job))
            self._progress.draw()

    def _end(self, job: Job, text: str) -> None:
        self._work.end(job)
        if job.folder in self._job_bars:
            self._progress.remove(self._job_bars.pop(job.folder))
        self._print(text)

    def _print(self, text: str) -> None:
        self._line_at = time.monotonic()
        if not self._progress.has_bars:
            text = f"[{self._work.num_ended}/{self._work.num_jobs}] {text}"
        self._progress.print(text)


class _Work:
    """Amount of work, in the unit of the jobs' cost.

    The speed of the study is measured without the part of a run that was complete before the run
    was resumed.
    """

    def __init__(self, jobs: Sequence[Job]) -> None:
        self.num_jobs, self.num_ended = len(jobs), 0
        self._total = sum(job.cost for job in jobs) or 1.0
        self._ended_cost = 0.0
        self._ended_work = 0.0
        self._fraction_at_start: dict[Path, float] = {}
        self._start = time.monotonic()

    def begin(self, job: Job) -> None:
        self._fraction_at_start[job.folder] = _fraction(job)

    def end(self, job: Job) -> None:
        self.num_ended += 1
        self._ended_cost += job.cost
        self._ended_work += job.cost * (1 - self._fraction_at_start.get(job.folder, 0.0))

    def overall(self, running: Sequence[Job]) -> tuple[float, str]:
        """Return the fraction of the study, and the time left as text ("" if it is unknown)."""
        complete, work = self._ended_cost, self._ended_work
        for job in running:
            fraction = _fraction(job)
            complete += job.cost * fraction
            work += job.cost * max(0.0, fraction - self._fraction_at_start.get(job.folder, 0.0))
        elapsed = time.monotonic() - self._start
        if work <= 0 or elapsed <= _ESTIMATE_AFTER_SECONDS:
            return complete / self._total, ""
        time_left = _duration((self._total - complete) * elapsed / work)
        return complete / self._total, f"{time_left} left"


def fraction_done(recipe: Recipe, record: Mapping[str, Any] | None) -> float:
    """Return the progress of a run, 0 to 1, from its newest record of metrics."""
    if record is None:
        return 0.0
    duration = recipe.schedule.duration
    position = record["step" if duration.unit == "steps" else "epoch"]
    return min(1.0, float(position) / duration.amount)


def _fraction(job: Job) -> float:
    return fraction_done(job.recipe, RunFolder(job.folder).newest_metrics("train"))


def _state(job: Job) -> str:
    """Return, for example, "step 1200 of 64000, loss 0.53, error 18.2 %"."""
    run, duration = RunFolder(job.folder), job.recipe.schedule.duration
    record = run.newest_metrics("train")
    if record is None:
        # The first step writes the learning rate.
        return "starting" if run.newest_metrics("lr") is None else "training, no reading yet"
    if duration.unit == "steps":
        parts = [f"step {record['step']} of {duration.amount:g}"]
    else:
        epoch = f"epoch {record['epoch']:.1f} of {duration.amount:g}"
        parts = [f"step {record['step']}", epoch]
    for name, key, unit in _METRICS:
        if record.get(key) is not None:
            parts.append(f"{name} {record[key]:.4g}{unit}")
    return ", ".join(parts)


def _duration(seconds: float) -> str:
    """Return a time as hours, minutes and seconds, for example 1:02:03."""
    minutes, seconds = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{seconds:02}"
