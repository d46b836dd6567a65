"""Engines run the jobs of a study. The local engine runs them in processes of this machine.

Each run gets a process and cores of its own: on a small network, two processes with one thread each
are faster than one process with two threads. The output of a run goes to train.log in its folder.
The folder alone holds the result of a run, so nothing is lost if the engine dies.
"""

from __future__ import annotations

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

from reslearn.runs import RunError, disk_state, removed_on_error
from reslearn.study.collect import last_line
from reslearn.study.grid import Job
from reslearn.study.progress import StudyDisplay, study_display

POLL_SECONDS = 0.02  # when a run ends, its core is idle for half of this time on average
_DIE_WITH_PARENT = Path(__file__).with_name("die_with_parent.py")
_ROUNDING = 1e-6  # ten shares of 0.1 fill a GPU, although their binary sum differs from 1


@dataclass(frozen=True, kw_only=True)
class JobStatus:
    """Result of the attempt to run a job.

    Attributes:
        job: The job.
        status: "skipped" if it was complete before. "diverged" if its loss or a weight was not
            finite, now or before. "interrupted" if it was stopped on request, or not started
            because of a request to stop.
        seconds: Time of this attempt.
        reason: Why the job is not complete.
        signal_number: The signal that asked an interrupted job to stop; 0 if it is unknown.
    """

    job: Job
    status: Literal["complete", "skipped", "diverged", "failed", "interrupted"]
    seconds: float = 0.0
    reason: str = ""
    signal_number: int = 0


class Engine(Protocol):
    """An object that can run jobs."""

    def run(self, jobs: Sequence[Job]) -> list[JobStatus]:
        """Run the jobs in any order, and return one status per job. Failed runs do not raise."""
        ...


class Process(Protocol):
    """The part of `subprocess.Popen` that the engine needs."""

    @property
    def pid(self) -> int: ...
    @property
    def returncode(self) -> int | None: ...
    def poll(self) -> int | None: ...
    def terminate(self) -> None: ...
    def wait(self) -> int: ...


Launch = Callable[[Job, dict[str, str]], Process]
"""Starts a job with an environment."""


class LocalEngine:
    """Run each job in a process of this machine, the longest jobs first.

    Cores and GPUs are shared out as the recipes request. Ctrl-C and SIGTERM are passed on to the
    runs as SIGTERM. The engine then waits for their checkpoints and starts no further runs. A
    second signal kills the runs.

    Args:
        jobs: Maximum number of concurrent runs. Default: one per core.
        command: The command that gets the arguments of a job.
        launch: Another way to start a run, see `WarmStart`. Replaces `command`.
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
        """Run all jobs; return their statuses in the order in which they ended."""
        waiting = sorted(jobs, key=lambda job: -job.cost)
        running: list[_Child] = []
        outcomes: list[JobStatus] = []
        with caught_signals() as signals, study_display(jobs) as display:
            num_handled = 0
            try:
                while running or (waiting and not signals):
                    if len(signals) > num_handled:
                        kill = num_handled > 0
                        _stop_all(running, kill=kill)
                        display.stop(num_running=len(running), kill=kill)
                        num_handled = len(signals)
                    for child in _reap(running, outcomes, display, signals):
                        self._gpus.give_back(child.gpu, child.job.gpus)
                    while not signals and (job := self._next(waiting, running)) is not None:
                        waiting.remove(job)
                        self._begin(job, running, outcomes, display)
                    if running:
                        display.refresh([child.job for child in running])
                        time.sleep(POLL_SECONDS)
            finally:
                # If the loop ends by an exception, no run stays behind.
                _stop_all(running, kill=False)
                for child in running:
                    child.process.wait()
        return outcomes + not_begun(waiting, signals)

    def _next(self, waiting: Sequence[Job], running: Sequence[_Child]) -> Job | None:
        """Return the longest job that fits beside the running ones. An oversized job runs alone."""
        if not running:
            return waiting[0] if waiting else None
        if len(running) >= self._jobs:
            return None
        free_cores = self._cores - sum(child.job.cores for child in running)
        for job in waiting:
            if job.cores <= free_cores and self._gpus.has(job.gpus):
                return job
        return None

    def _begin(
        self,
        job: Job,
        running: list[_Child],
        outcomes: list[JobStatus],
        display: StudyDisplay,
    ) -> None:
        try:
            running.append(self._start(job))
            display.begin(job)
        except OSError as error:
            path = Path(error.filename or job.folder)
            reason = f"{error.strerror or error}: {path}{disk_state(error, path)}"
            outcomes.append(JobStatus(job=job, status="failed", reason=reason))
            display.end(outcomes[-1])

    def _start(self, job: Job) -> _Child:
        with removed_on_error(job.folder) as own_files:
            job.folder.mkdir(parents=True, exist_ok=True)
            own_files.append("train.log")
            with (job.folder / "train.log").open("ab") as log:
                log.write(f"$ {job.command}\n".encode())
        gpu = self._gpus.take(job.gpus)
        environment = run_environment(os.environ, job.cores)
        if gpu is not None:
            environment["CUDA_VISIBLE_DEVICES"] = gpu
        try:
            process = self._launch(job, environment)
        except OSError:
            self._gpus.give_back(gpu, job.gpus)
            raise
        return _Child(job, process, time.monotonic(), gpu)


@dataclass
class _Child:
    job: Job
    process: Process
    start: float
    gpu: str | None

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.start


class Gpus:
    """Free shares of the GPUs of this machine.

    Several small runs use one GPU better than each of them alone. Shares are counted, not enforced:
    each run sees its GPU as a whole. Without GPUs every share is available and takes nothing: the
    run trains on cores. GPUs are found without torch, which a study does not import.

    Args:
        names: Names for CUDA_VISIBLE_DEVICES.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self._free = dict.fromkeys(names, 1.0)

    @classmethod
    def here(
        cls, environment: Mapping[str, str] = os.environ, devices: Path = Path("/dev")
    ) -> Gpus:
        """Return the GPUs of CUDA_VISIBLE_DEVICES, or all NVIDIA devices if it is not set."""
        visible = environment.get("CUDA_VISIBLE_DEVICES")
        if visible is not None:
            return cls([name for name in visible.split(",") if name.strip() not in ("", "-1")])
        names = [path.name for path in devices.glob("nvidia*")]
        num_gpus = sum(re.fullmatch(r"nvidia\d+", name) is not None for name in names)
        # CUDA counts the devices of this machine from 0, whatever the numbers of their files.
        return cls([str(index) for index in range(num_gpus)])

    def has(self, share: float) -> bool:
        """Return whether one GPU has this share free."""
        return not share or not self._free or max(self._free.values()) >= share - _ROUNDING

    def take(self, share: float) -> str | None:
        """Reserve a share, and return the name of its GPU, or None if the run needs no GPU.

        The share is taken from the fullest GPU that has it. If no GPU has it, because an oversized
        run runs alone, it is taken from the emptiest one.
        """
        if not share or not self._free:
            return None
        fitting = [name for name, free in self._free.items() if free >= share - _ROUNDING]
        if fitting:
            name = min(fitting, key=self._free.__getitem__)
        else:
            name = max(self._free, key=self._free.__getitem__)
        self._free[name] -= share
        return name

    def give_back(self, name: str | None, share: float) -> None:
        """Free a share that `take` reserved."""
        if name is not None:
            self._free[name] += share


def available_cores() -> int:
    """Return the number of cores that this process may use; a shared machine may have more."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def launch_command(
    command: Sequence[str], job: Job, environment: dict[str, str]
) -> subprocess.Popen[bytes]:
    """Start `command` with the arguments of a job. Its output is appended to train.log.

    The program "python" means the Python that runs this code.
    """
    program = [sys.executable if command[0] == "python" else command[0], *command[1:]]
    watched = [sys.executable, "-I", "-S", str(_DIE_WITH_PARENT), str(os.getpid())]
    with (job.folder / "train.log").open("ab") as log:
        return subprocess.Popen(
            [*watched, *program, *job.arguments],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=environment,
            # A terminal sends Ctrl-C to its whole process group. In a session of its own, a run
            # gets only the signal that the engine sends.
            start_new_session=True,
            # The only inheritable file is the lock of the study. The runs inherit it, so the lock
            # is held until the last run has ended, even if the study is killed.
            close_fds=False,
        )


def run_environment(base: Mapping[str, str], cores: int) -> dict[str, str]:
    """Return the environment of a run: `base` with one thread per core and unbuffered output.

    Memory is allocated in huge pages: with small pages, the allocator faults them in again at every
    step. Without buffering, the last line of the log is the last event.
    """
    tunables = base.get("GLIBC_TUNABLES", "")
    if "glibc.malloc.hugetlb" not in tunables:
        tunables = ":".join(filter(None, (tunables, "glibc.malloc.hugetlb=1")))
    return {
        **base,
        "OMP_NUM_THREADS": str(cores),
        "GLIBC_TUNABLES": tunables,
        "PYTHONUNBUFFERED": "1",
    }


def status_of_ended(
    job: Job, seconds: float, failure: Callable[[], str], signals: Sequence[int]
) -> JobStatus:
    """Return the status of a job whose process has ended.

    Args:
        job: The job.
        seconds: Time of this attempt.
        failure: Returns why the job failed, if it did.
        signals: The signals that have asked the study to stop.
    """
    if job.is_complete:
        return JobStatus(job=job, status="complete", seconds=seconds)
    try:
        divergence = job.divergence
    except RunError:  # diverged.json cannot be read
        divergence = None
    if divergence is not None:
        return JobStatus(job=job, status="diverged", seconds=seconds, reason=divergence)
    if signals:
        return JobStatus(
            job=job,
            status="interrupted",
            seconds=seconds,
            reason="stopped on request",
            signal_number=signals[0],
        )
    return JobStatus(job=job, status="failed", seconds=seconds, reason=failure())


def not_begun(jobs: Sequence[Job], signals: Sequence[int]) -> list[JobStatus]:
    """Return the statuses of jobs that were not started because of a request to stop."""
    return [
        JobStatus(job=job, status="interrupted", reason="not begun", signal_number=signals[0])
        for job in jobs
    ]


def why_ended(job: Job, status: int) -> str:
    """Return why a run has no result: the last line of its log, or how its process ended.

    Args:
        job: The job of the run.
        status: Exit status of the process, negative for a signal.
    """
    log = job.folder / "train.log"
    if status < 0:
        try:
            name = signal.Signals(-status).name
        except ValueError:
            name = f"signal {-status}"
        hint = " (out of memory?)" if name == "SIGKILL" else ""
        return f"ended by {name}{hint}; see {log}"
    if status == 0:
        return f"ended without a result; see {log}"
    return last_line(log) or f"ended with status {status} and an empty log"


@contextlib.contextmanager
def caught_signals() -> Iterator[list[int]]:
    """Collect SIGINT and SIGTERM in the yielded list, instead of ending the process.

    Only the main thread may set signal handlers. In other threads the list stays empty.
    """
    received: list[int] = []
    handlers: dict[signal.Signals, Any] = {}

    def note(number: int, frame: FrameType | None) -> None:
        received.append(number)

    try:
        for number in (signal.SIGINT, signal.SIGTERM):
            handlers[number] = signal.signal(number, note)
    except ValueError:
        pass
    try:
        yield received
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


def _reap(
    running: list[_Child],
    outcomes: list[JobStatus],
    display: StudyDisplay,
    signals: Sequence[int],
) -> list[_Child]:
    """Move the ended runs from `running` to `outcomes`, and return them."""
    children = [child for child in running if child.process.poll() is not None]
    for child in children:
        running.remove(child)
        failure = partial(why_ended, child.job, child.process.returncode or 0)
        outcomes.append(status_of_ended(child.job, child.seconds, failure, signals))
        display.end(outcomes[-1])
    return children


def _stop_all(running: Sequence[_Child], *, kill: bool) -> None:
    for child in running:
        with contextlib.suppress(ProcessLookupError):
            if kill:
                os.killpg(child.process.pid, signal.SIGKILL)
            else:
                child.process.terminate()
