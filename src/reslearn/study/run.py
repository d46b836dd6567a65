"""A study from beginning to end: its folder held, what is complete skipped, the rest handed to an engine, and what remains said."""

import contextlib
import fcntl
import os
import shlex
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from reslearn.runs import make_folder
from reslearn.study.engine import Engine, JobStatus, LocalEngine
from reslearn.study.grid import Job


class StudyInUseError(ValueError):
    """Another study works in the folder."""


@dataclass(frozen=True, kw_only=True)
class StudyReport:
    """What became of each job, in the order of the grid, and the command that goes on where something remains."""

    outcomes: tuple[JobStatus, ...]
    continue_command: str

    @property
    def failed(self) -> tuple[JobStatus, ...]:
        """Runs that ended without a result."""
        return tuple(outcome for outcome in self.outcomes if outcome.status == "failed")

    @property
    def is_interrupted(self) -> bool:
        """Whether the study was stopped by a signal."""
        return any(outcome.status == "interrupted" for outcome in self.outcomes)

    @property
    def is_complete(self) -> bool:
        """Whether every run has its result."""
        return all(outcome.status in ("complete", "skipped") for outcome in self.outcomes)

    def lines(self) -> list[str]:
        """The end of a study in words: counts, failures with their reasons, and how to go on."""
        count = Counter(outcome.status for outcome in self.outcomes)
        counts = [f"{count['complete'] + count['skipped']} of {len(self.outcomes)} runs complete"]
        counts += [f"{count['skipped']} of them before"] if count["skipped"] else []
        counts += [
            f"{count[status]} {status}" for status in ("failed", "interrupted") if count[status]
        ]
        lines = [
            ", ".join(counts),
            *(f"{outcome.job.name}: failed: {outcome.reason}" for outcome in self.failed),
        ]
        return lines if self.is_complete else [*lines, f"go on with: {self.continue_command}"]


def run_study(
    jobs: Sequence[Job],
    folder: Path | str,
    *,
    engine: Engine | None = None,
    continue_command: str | None = None,
) -> StudyReport:
    """Bring every job to its end, as far as that goes; called again, it does what is left.

    `continue_command` defaults to the command that is running. Raises StudyInUseError, in one line, where another process has the
    folder, and RunError where the folder of a job holds another run. A failed run is no exception: see `StudyReport.failed`.
    """
    folder = Path(folder)
    for place, number in Counter(job.folder for job in jobs).items():
        if number > 1:
            raise ValueError(f"{place} is the folder of {number} jobs: each needs its own")
    with _lock(folder):
        for job in jobs:
            job.check()
        done = [job for job in jobs if job.is_complete]
        left = [job for job in jobs if job not in done]
        outcomes = [JobStatus(job=job, status="skipped") for job in done]
        if left:
            outcomes += (engine or LocalEngine()).run(left)
    by_folder = {outcome.job.folder: outcome for outcome in outcomes}
    return StudyReport(
        outcomes=tuple(by_folder[job.folder] for job in jobs),
        continue_command=continue_command or _this_command(),
    )


def _this_command() -> str:
    """What was typed to get here: `reslearn ...`, or a script of the user's own."""
    is_ours = Path(sys.argv[0]).name in ("reslearn", "__main__.py")
    return shlex.join(
        ["reslearn", *sys.argv[1:]] if is_ours else [Path(sys.executable).name, *sys.argv]
    )


@contextlib.contextmanager
def _lock(folder: Path) -> Iterator[None]:
    """Hold the folder. The runs inherit the lock, so that a study that was killed holds it until they have written their checkpoints."""
    make_folder(folder)
    with (folder / ".study.lock").open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            file.seek(0)
            owner = file.read().strip() or "unknown"
            raise StudyInUseError(
                f"{folder} is in use by another study (process {owner}, or runs of it that are writing their checkpoints)"
            ) from None
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        os.set_inheritable(file.fileno(), True)
        yield
