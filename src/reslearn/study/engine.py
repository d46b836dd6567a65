"""Runs the jobs of a study. An engine has one method, so that another (a cluster's) can take this one's place.

The local engine gives each run a process and its own cores: on a small net two processes of one thread do more than one of two. What
a run says goes to train.log in its folder; what becomes of it is told by its folder, so that nothing is lost with the engine.
"""

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any, Literal, Protocol

from reslearn.study.collect import last_line
from reslearn.study.grid import Job
from reslearn.study.progress import StudyDisplay, display_for

POLL_SECONDS = 0.02  # a core is idle for half of it when a run ends
_TINY = 1e-6  # ten tenths fill a GPU, whatever their sum is in binary
TETHER = Path(__file__).with_name("die_with_parent.py")


@dataclass(frozen=True, kw_only=True)
class JobStatus:
    """What became of a job. "skipped": complete before; "interrupted": stopped on request, or not begun because of one."""

    job: Job
    status: Literal["complete", "skipped", "failed", "interrupted"]
    seconds: float = 0.0
    reason: str = ""


class Engine(Protocol):
    """Whatever can bring jobs to an end."""

    def run(self, jobs: Sequence[Job]) -> list[JobStatus]:
        """Run the jobs, in any order; returns one outcome a job. A run that fails is an outcome, no exception."""
        ...


def available_cores() -> int:
    """Cores that this process may use, which on a shared machine are fewer than there are."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Process(Protocol):
    """What the engine needs of a process, under the names of `subprocess.Popen`."""

    @property
    def pid(self) -> int: ...
    @property
    def returncode(self) -> int | None: ...
    def poll(self) -> int | None: ...
    def terminate(self) -> None: ...
    def wait(self) -> int: ...


Launch = Callable[[Job, dict[str, str]], Process]


@dataclass
class _Child:
    job: Job
    process: Process
    started: float
    gpu: str | None

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.started


class LocalEngine:
    """One process a run, at most `jobs` at once (default: one a core), longest first; cores and GPUs are shared out as recipes say.

    Ctrl-C and SIGTERM are passed to the runs as SIGTERM, their checkpoints are waited for, and the rest is not begun; a second one
    kills. `command` is what the arguments of a job are given to; `launch` starts a run in another way (`WarmStart`).
    """

    def __init__(
        self,
        *,
        jobs: int | None = None,
        command: Sequence[str] = (sys.executable, "-m", "reslearn"),
        launch: Launch | None = None,
    ) -> None:
        if jobs is not None and jobs < 1:
            raise ValueError(f"jobs = {jobs}: at least 1 is needed")
        self._jobs = jobs or available_cores()
        self._cores = max(self._jobs, available_cores())
        self._gpus = Gpus.here()
        self._launch = launch or partial(launch_command, tuple(command))

    def run(self, jobs: Sequence[Job]) -> list[JobStatus]:
        """Run them all; outcomes in the order in which they ended."""
        waiting = sorted(jobs, key=lambda job: -job.cost)
        running: list[_Child] = []
        outcomes: list[JobStatus] = []
        with signals() as received, display_for(jobs) as display:
            passed_on = 0
            try:
                while running or (waiting and not received):
                    if len(received) > passed_on:
                        _pass_on(running, again=passed_on > 0)
                        display.stopping(running=len(running), again=passed_on > 0)
                        passed_on = len(received)
                    for child in _reap(running, outcomes, display, stopping=bool(received)):
                        self._gpus.give_back(child.gpu, child.job.gpus)
                    while not received and (job := self._next(waiting, running)) is not None:
                        waiting.remove(job)
                        self._begin(job, running, outcomes, display)
                    if running:
                        display.refresh([child.job for child in running])
                        time.sleep(POLL_SECONDS)
            finally:
                _end(running)
        return outcomes + [
            JobStatus(job=job, status="interrupted", reason="not begun") for job in waiting
        ]

    def _next(self, waiting: Sequence[Job], running: Sequence[_Child]) -> Job | None:
        """The longest job that fits beside those that run; one that never fits runs alone."""
        if not running:
            return waiting[0] if waiting else None
        free = (
            self._cores - sum(child.job.cores for child in running)
            if len(running) < self._jobs
            else 0
        )
        return next(
            (job for job in waiting if job.cores <= free and self._gpus.has(job.gpus)), None
        )

    def _begin(
        self, job: Job, running: list[_Child], outcomes: list[JobStatus], display: StudyDisplay
    ) -> None:
        try:
            running.append(self._start(job))
            display.begun(job)
        except OSError as error:  # a folder that cannot be made, a full disk, no process left: the rest may still run
            outcomes.append(JobStatus(job=job, status="failed", reason=str(error)))
            display.failed(job, str(error))

    def _start(self, job: Job) -> _Child:
        job.folder.mkdir(parents=True, exist_ok=True)
        with (job.folder / "train.log").open("ab") as log:
            log.write(f"$ {job.command}\n".encode())
        gpu = self._gpus.take(job.gpus)
        try:
            process = self._launch(
                job,
                run_environment(os.environ, job.cores)
                | ({} if gpu is None else {"CUDA_VISIBLE_DEVICES": gpu}),
            )
        except OSError:
            self._gpus.give_back(gpu, job.gpus)
            raise
        return _Child(job, process, time.monotonic(), gpu)


class Gpus:
    """How much of each GPU is free. Without GPUs every share is to be had, and is none: the run trains on cores."""

    def __init__(self, names: Sequence[str]) -> None:
        self._free = dict.fromkeys(names, 1.0)

    @classmethod
    def here(
        cls, environment: Mapping[str, str] = os.environ, devices: Path = Path("/dev")
    ) -> "Gpus":
        """Those that CUDA_VISIBLE_DEVICES names, or else all NVIDIA devices there are."""
        visible = environment.get("CUDA_VISIBLE_DEVICES")
        if visible is not None:
            return cls([name for name in visible.split(",") if name.strip() not in ("", "-1")])
        numbers = [
            int(match[1])
            for path in devices.glob("nvidia*")
            if (match := re.fullmatch(r"nvidia(\d+)", path.name))
        ]
        return cls([str(place) for place, _ in enumerate(sorted(numbers))])

    def has(self, share: float) -> bool:
        """Whether one GPU has so much left."""
        return not share or not self._free or max(self._free.values()) >= share - _TINY

    def take(self, share: float) -> str | None:
        """Set aside a share of the fullest GPU that has it left; its name for CUDA_VISIBLE_DEVICES, or None where none is needed.

        A share that is not left (a run that must run alone) is taken of the emptiest.
        """
        if not share or not self._free:
            return None
        fitting = [name for name, free in self._free.items() if free >= share - _TINY]
        name = (
            min(fitting, key=self._free.__getitem__)
            if fitting
            else max(self._free, key=self._free.__getitem__)
        )
        self._free[name] -= share
        return name

    def give_back(self, name: str | None, share: float) -> None:
        """What `take` gave is free again."""
        if name is not None:
            self._free[name] += share


def launch_command(
    command: Sequence[str], job: Job, environment: dict[str, str]
) -> subprocess.Popen[bytes]:
    """Begin `command` with the arguments of a job, its words appended to train.log; "python" is the one that runs this."""
    program = [sys.executable if command[0] == "python" else command[0], *command[1:]]
    with (job.folder / "train.log").open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-I", "-S", str(TETHER), str(os.getpid()), *program, *job.arguments],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=environment,
            # A terminal sends Ctrl-C to its whole group; runs are told by us alone, once.
            start_new_session=True,
            # The one inheritable file is the study's lock: it stays held until the last run has ended, however we end.
            close_fds=False,
        )


def run_environment(given: Mapping[str, str], cores: int) -> dict[str, str]:
    """One thread a core; blocks of memory in huge pages, which the allocator otherwise faults in again at every step; and a log in the
    order in which things were said, so that its last line is what went wrong.
    """
    tunables = given.get("GLIBC_TUNABLES", "")
    if "glibc.malloc.hugetlb" not in tunables:
        tunables = ":".join(filter(None, (tunables, "glibc.malloc.hugetlb=1")))
    return {
        **given,
        "OMP_NUM_THREADS": str(cores),
        "GLIBC_TUNABLES": tunables,
        "PYTHONUNBUFFERED": "1",
    }


def _reap(
    running: list[_Child], outcomes: list[JobStatus], display: StudyDisplay, *, stopping: bool
) -> list[_Child]:
    """Take the runs that have ended out of `running`, say what became of them, and return them."""
    ended = [child for child in running if child.process.poll() is not None]
    for child in ended:
        running.remove(child)
        if child.job.is_complete:
            outcomes.append(JobStatus(job=child.job, status="complete", seconds=child.seconds))
            display.complete(child.job, child.seconds)
        elif stopping:
            outcomes.append(
                JobStatus(
                    job=child.job,
                    status="interrupted",
                    seconds=child.seconds,
                    reason="stopped on request",
                )
            )
        else:
            reason = why_ended(child.job, child.process.returncode or 0)
            outcomes.append(
                JobStatus(job=child.job, status="failed", seconds=child.seconds, reason=reason)
            )
            display.failed(child.job, reason)
    return ended


def why_ended(job: Job, status: int) -> str:
    """Why a run has no result: the last line of its log, or how its process ended."""
    if status < 0:
        try:
            name = signal.Signals(-status).name
        except ValueError:
            name = f"signal {-status}"
        hint = " (out of memory?)" if name == "SIGKILL" else ""
        return f"ended by {name}{hint}; see {job.folder / 'train.log'}"
    if status == 0:
        return f"ended without a result; see {job.folder / 'train.log'}"
    return last_line(job.folder / "train.log") or f"ended with status {status} and said nothing"


def _pass_on(running: Sequence[_Child], *, again: bool) -> None:
    for child in running:
        with contextlib.suppress(ProcessLookupError):
            if again:
                os.killpg(child.process.pid, signal.SIGKILL)
            else:
                child.process.terminate()


def _end(running: Sequence[_Child]) -> None:
    """Whatever broke the loop, no run stays behind."""
    _pass_on(running, again=False)
    for child in running:
        child.process.wait()


@contextlib.contextmanager
def signals() -> Iterator[list[int]]:
    """Collect SIGINT and SIGTERM instead of dying of them. Elsewhere than in the main thread they are somebody else's."""
    received: list[int] = []
    before: dict[signal.Signals, Any] = {}

    def note(number: int, frame: FrameType | None) -> None:
        received.append(number)

    try:
        for number in (signal.SIGINT, signal.SIGTERM):
            before[number] = signal.signal(number, note)
    except ValueError:
        pass
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
