"""Run a study: lock its folder, skip complete runs, give the others to an engine, report."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shlex
import signal
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from reslearn.runs import make_folder, open_lock_file, removed_on_error
from reslearn.study.engine import Engine, JobStatus, LocalEngine
from reslearn.study.grid import Job

_LOCK = ".study.lock"


class StudyInUseError(ValueError):
    """Another study uses the folder."""


@dataclass(frozen=True, kw_only=True)
class StudyReport:
    """Status of each job after a study.

    Attributes:
        outcomes: One status per job, in the order of the grid.
        continue_command: The command that continues an incomplete study.
    """

    outcomes: tuple[JobStatus, ...]
    continue_command: str

    @property
    def failed(self) -> tuple[JobStatus, ...]:
        """Runs that ended without a result. Diverged runs are not among them."""
        return self._with_status("failed")

    @property
    def diverged(self) -> tuple[JobStatus, ...]:
        """Runs whose loss or a weight was not finite. They are not trained again."""
        return self._with_status("diverged")

    @property
    def is_interrupted(self) -> bool:
        """Whether a signal stopped the study."""
        return any(outcome.status == "interrupted" for outcome in self.outcomes)

    @property
    def exit_status(self) -> int:
        """The status of a process that ran the study.

        0 if every run is complete, 1 if a run diverged or failed. After a signal it is the status
        that a shell reports: 130 for Ctrl-C, 143 for SIGTERM.
        """
        if self.is_interrupted:
            numbers = [outcome.signal_number for outcome in self.outcomes]
            return 128 + (max(numbers) or signal.SIGINT)
        return 0 if self.is_complete else 1

    @property
    def is_complete(self) -> bool:
        """Whether every run has its result."""
        return all(outcome.status in ("complete", "skipped") for outcome in self.outcomes)

    def lines(self) -> list[str]:
        """Describe the end of the study: counts, reasons, and how to continue if that helps."""
        lines = self.result_lines()
        if self.diverged:
            lines.append(
                "diverged runs are not trained again: change the recipe and choose another --out"
            )
        if self.failed or self.is_interrupted:
            lines.append(f"continue with: {self.continue_command}")
        return lines

    def result_lines(self) -> list[str]:
        """Return the counts of runs, and why runs diverged or failed."""
        counts = Counter(outcome.status for outcome in self.outcomes)
        num_complete = counts["complete"] + counts["skipped"]
        parts = [f"{num_complete} of {len(self.outcomes)} runs complete"]
        if counts["skipped"]:
            parts.append(f"{counts['skipped']} of them before")
        for status in ("diverged", "failed", "interrupted"):
            if counts[status]:
                parts.append(f"{counts[status]} {status}")
        lines = [", ".join(parts)]
        for outcome in (*self.diverged, *self.failed):
            lines.append(f"{outcome.job.name}: {outcome.status}: {outcome.reason}")
        return lines

    def _with_status(self, status: str) -> tuple[JobStatus, ...]:
        return tuple(outcome for outcome in self.outcomes if outcome.status == status)


def run_study(
    jobs: Sequence[Job],
    folder: Path | str,
    *,
    engine: Engine | None = None,
    continue_command: str | None = None,
) -> StudyReport:
    """Run every job that is not complete. Another call continues an interrupted study.

    A diverged run is not run again. A failed run does not raise: see `StudyReport.failed`.

    Args:
        jobs: Jobs with different folders.
        folder: The folder of the study, locked during the call.
        engine: Runs the jobs. Default: `LocalEngine()`.
        continue_command: Shown if the study is not complete. Default: the current command.

    Raises:
        StudyInUseError: If another process uses the folder.
        RunError: If the folder of a job holds a run of another recipe, or cannot be read.
    """
    folder = Path(folder)
    for job_folder, number in Counter(job.folder for job in jobs).items():
        if number > 1:
            raise ValueError(f"{job_folder} is the folder of {number} jobs: each needs its own")
    # A study that is refused before its first run, by its engine for example, leaves no folder.
    with removed_on_error(folder) as own_files, _lock(folder):
        own_files += [_LOCK, "ray.log"]
        for job in jobs:
            job.check()
        outcomes = [outcome for job in jobs if (outcome := _earlier_outcome(job)) is not None]
        ended_folders = {outcome.job.folder for outcome in outcomes}
        remaining = [job for job in jobs if job.folder not in ended_folders]
        if remaining:
            outcomes += (engine or LocalEngine()).run(remaining)
    by_folder = {outcome.job.folder: outcome for outcome in outcomes}
    return StudyReport(
        outcomes=tuple(by_folder[job.folder] for job in jobs),
        continue_command=continue_command or _current_command(),
    )


def _earlier_outcome(job: Job) -> JobStatus | None:
    """Return the status of a job that ended in an earlier study, or None if it is to be run."""
    if job.is_complete:
        return JobStatus(job=job, status="skipped")
    if (reason := job.divergence) is not None:
        return JobStatus(job=job, status="diverged", reason=reason)
    return None


def _current_command() -> str:
    """Return the command line of this process: `reslearn ...`, or a script of the user."""
    is_ours = Path(sys.argv[0]).name in ("reslearn", "__main__.py")
    program = ["reslearn"] if is_ours else [Path(sys.executable).name, sys.argv[0]]
    return shlex.join([*program, *sys.argv[1:]])


@contextlib.contextmanager
def _lock(folder: Path) -> Iterator[None]:
    make_folder(folder)
    with os.fdopen(open_lock_file(folder / _LOCK), "r+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            owner = file.read().strip() or "unknown"
            raise StudyInUseError(
                f"{folder} is in use by another study (process {owner}, or its runs that are "
                "writing their checkpoints): wait until it has ended, or choose another folder"
            ) from None
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        # The runs inherit the open file, and the lock with it. If the study is killed, the folder
        # stays locked until its runs have written their checkpoints.
        os.set_inheritable(file.fileno(), True)
        yield
