"""Run the jobs of a study as tasks of a Ray cluster, on many machines that may get lost.

Ray starts each run where its cores and its share of a GPU are free. If the machine of a run is
lost, Ray starts the run again on another machine, where it resumes from its folder. All machines
must therefore share the file system of the study. Needs the extra `ray`.
"""

from __future__ import annotations

import contextlib
import os
import socket
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, TextIO

from reslearn.runs import RunFolder, make_folder
from reslearn.study.engine import (
    POLL_SECONDS,
    JobStatus,
    Launch,
    caught_signals,
    launch_command,
    not_begun,
    run_environment,
    status_of_ended,
    why_ended,
)
from reslearn.study.grid import Job
from reslearn.study.launch import wait_for_lock
from reslearn.study.progress import StudyDisplay, study_display

_WAIT_SECONDS = 0.2  # between checks for started runs; ended runs are noticed at once
_MAX_RETRIES = 5  # after so many lost machines, the run itself may be the cause
_RAY_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_BACKEND_LOG_LEVEL": "fatal",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}


class RayEngine:
    """Run each job as a Ray task, the longest jobs first.

    Signals are handled as by `LocalEngine`. `command` and `launch` apply on the machine that runs
    the job. The program "python" is the Python of that machine. For `WarmStart`, each Ray worker
    has a fork server of its own.

    Args:
        jobs: Maximum number of concurrent runs. Default: as many as fit.
        address: Address of the cluster. Default: RAY_ADDRESS, or the cluster that `ray start`
            started here. Without a cluster, Ray runs on this machine while the study lasts.
        command: The command that gets the arguments of a job.
        launch: Another way to start a run. Replaces `command`.
    """

    def __init__(
        self,
        *,
        jobs: int | None = None,
        address: str | None = None,
        command: Sequence[str] = ("python", "-m", "reslearn"),
        launch: Launch | None = None,
    ) -> None:
        if jobs is not None and jobs < 1:
            raise ValueError(f"jobs = {jobs}: at least 1 is needed")
        self._jobs, self._address = jobs, address
        self._launch = launch or partial(launch_command, tuple(command))
        _import_ray()

    def run(self, jobs: Sequence[Job]) -> list[JobStatus]:
        """Run all jobs; return their statuses in the order in which they ended.

        Raises:
            ValueError: If no cluster answers at the address.
        """
        log = jobs[0].folder.parent / "ray.log"
        with (
            _output_to(log) as stderr,
            _cluster(self._address) as ray,
            study_display(jobs, stream=stderr) as display,
        ):
            tasks = _Tasks(ray, self._jobs or len(jobs), self._launch, display)
            return tasks.run(sorted(jobs, key=lambda job: -job.cost))


@dataclass(frozen=True, kw_only=True)
class RunExit:
    """How a run ended on some machine.

    Attributes:
        machine: Host name.
        status: Exit status of the run.
        seconds: Time of the run.
        unseen: Folder that this machine does not see, so that there was no run.
    """

    machine: str
    status: int
    seconds: float
    unseen: str = ""


class _Tasks:
    """The tasks of one study."""

    def __init__(self, ray: Any, max_tasks: int, launch: Launch, display: StudyDisplay) -> None:
        self._ray, self._max_tasks, self._launch, self._display = ray, max_tasks, launch, display
        self._submitted: dict[Any, Job] = {}
        # Size of train.log before the task. A longer log shows that the run has started; then the
        # size is replaced by -1.
        self._log_bytes: dict[Path, int] = {}
        self._outcomes: list[JobStatus] = []

    def run(self, jobs: Sequence[Job]) -> list[JobStatus]:
        waiting = list(jobs)
        with caught_signals() as signals:
            num_handled = 0
            try:
                while self._submitted or (waiting and not signals):
                    if len(signals) > num_handled:
                        kill = num_handled > 0
                        self._display.stop(num_running=len(self._running()), kill=kill)
                        self._cancel(force=kill)
                        num_handled = len(signals)
                    while waiting and not signals and len(self._submitted) < self._max_tasks:
                        self._submit(waiting.pop(0))
                    for task in self._wait():
                        self._end(task, signals)
                    self._display.refresh(self._running())
            finally:
                self._cancel(force=False)
        return self._outcomes + not_begun(waiting, signals)

    def _submit(self, job: Job) -> None:
        try:
            job.folder.mkdir(parents=True, exist_ok=True)
            log = job.folder / "train.log"
            self._log_bytes[job.folder] = log.stat().st_size if log.exists() else 0
        except OSError as error:
            self._show(JobStatus(job=job, status="failed", reason=str(error)))
            return
        resources = [node["Resources"] for node in self._ray.nodes() if node["Alive"]]
        max_cores = max((node.get("CPU", 0) for node in resources), default=job.cores)
        max_gpus = max((node.get("GPU", 0) for node in resources), default=0)
        remote = self._ray.remote(run_here).options(
            name=job.name,
            # A run that is too large for every machine would wait forever. It gets the largest
            # machine for itself instead, as with the local engine.
            num_cpus=min(job.cores, max_cores),
            num_gpus=min(job.gpus, max_gpus),
            max_retries=_MAX_RETRIES,
        )
        task = remote.remote(replace(job, folder=job.folder.resolve()), self._launch, os.getcwd())
        self._submitted[task] = job

    def _wait(self) -> list[Any]:
        """Wait for the next ended task, for a short time."""
        if not self._submitted:
            return []
        tasks, _ = self._ray.wait(list(self._submitted), num_returns=1, timeout=_WAIT_SECONDS)
        return list(tasks)

    def _running(self) -> list[Job]:
        """Return the jobs whose log has grown, and show the ones that are new among them."""
        running = []
        for job in self._submitted.values():
            log_bytes = self._log_bytes[job.folder]
            with contextlib.suppress(OSError):
                if log_bytes < 0:
                    running.append(job)
                elif (job.folder / "train.log").stat().st_size > log_bytes:
                    running.append(job)
                    self._display.begin(job)
                    self._log_bytes[job.folder] = -1
        return running

    def _end(self, task: Any, signals: Sequence[int]) -> None:
        job = self._submitted[task]
        self._running()
        del self._submitted[task]
        seconds = 0.0
        try:
            run_exit: RunExit | None = self._ray.get(task)
        except self._ray.exceptions.RayError as error:
            lines = str(error).strip().splitlines() or ["the cause is unknown"]
            reason = f"lost on the cluster ({type(error).__name__}: {lines[-1].strip()}); "
            reason += f"see {job.folder / 'train.log'}"
        else:
            reason = "" if run_exit is None else _why(job, run_exit)
            seconds = 0.0 if run_exit is None else run_exit.seconds
        self._show(status_of_ended(job, seconds, lambda: reason, signals))

    def _show(self, outcome: JobStatus) -> None:
        self._outcomes.append(outcome)
        self._display.end(outcome)

    def _cancel(self, *, force: bool) -> None:
        for task in self._submitted:
            self._ray.cancel(task, force=force)


def run_here(job: Job, launch: Launch, directory: str) -> RunExit:
    """Run a job in a process of this machine; this function is the Ray task.

    The run is stopped when the task is canceled or its worker dies.
    """
    machine, start = socket.gethostname(), time.monotonic()
    for folder in (job.folder, directory):
        if not Path(folder).is_dir():
            return RunExit(machine=machine, status=2, seconds=0.0, unseen=str(folder))
    wait_for_lock(RunFolder(job.folder))
    with (job.folder / "train.log").open("ab") as log:
        log.write(f"$ {job.command}\n".encode())
    with contextlib.chdir(directory):
        process = launch(job, run_environment(os.environ, job.cores))
    try:
        # Ray cancels a task by an exception between two Python instructions, not by a signal. A
        # blocking wait would not notice it, so the process is polled.
        while (status := process.poll()) is None:
            time.sleep(POLL_SECONDS)
    except BaseException:
        process.terminate()
        process.wait()  # until the run has written its checkpoint
        raise
    return RunExit(machine=machine, status=status, seconds=time.monotonic() - start)


def _why(job: Job, run_exit: RunExit) -> str:
    advice = "all machines must share the file system of the study"
    if run_exit.unseen:
        return f"machine {run_exit.machine} does not see {run_exit.unseen}: {advice}"
    if run_exit.status == 0 and not job.is_complete:
        return f"ended on {run_exit.machine} without a result here: {advice}"
    return why_ended(job, run_exit.status)


def _import_ray() -> Any:
    for name, value in _RAY_ENVIRONMENT.items():
        os.environ.setdefault(name, value)  # Ray reads these variables when it is imported
    try:
        import ray
    except ImportError:
        raise ValueError(
            "--engine ray needs an extra that is not installed: pip install 'reslearn[ray]'"
        ) from None
    return ray


@contextlib.contextmanager
def _cluster(address: str | None) -> Iterator[Any]:
    """Join a Ray cluster or start one; leave or stop it at the end."""
    ray = _import_ray()
    try:
        ray.init(
            address=address, include_dashboard=False, log_to_driver=False, logging_level="critical"
        )
    except Exception as error:  # Ray raises ConnectionError, RuntimeError and plain Exception
        ray.shutdown()
        cluster = address or os.environ.get("RAY_ADDRESS") or "this machine"
        raise ValueError(
            f"no Ray cluster available at {cluster}: {' '.join(str(error).split())}"
        ) from None
    try:
        yield ray
    finally:
        ray.shutdown()


@contextlib.contextmanager
def _output_to(log: Path) -> Iterator[TextIO]:
    """Redirect the output of Ray's processes and threads to `log`.

    Yields:
        The original stderr, for the display of the study.
    """
    make_folder(log.parent)
    streams = sys.stdout, sys.stderr
    for stream in streams:
        stream.flush()
    # Ray's processes write to the file descriptors 1 and 2, its threads to sys.stdout and
    # sys.stderr. Both are replaced, and the original descriptors are restored from copies.
    copies = [os.dup(number) for number in (1, 2)]
    try:
        with (
            log.open("a", buffering=1) as file,
            os.fdopen(os.dup(copies[1]), "w", buffering=1) as stderr,
        ):
            for number in (1, 2):
                os.dup2(file.fileno(), number)
            sys.stdout = sys.stderr = file
            try:
                yield stderr
            finally:
                sys.stdout, sys.stderr = streams
    finally:
        for number, copy in zip((1, 2), copies, strict=True):
            os.dup2(copy, number)
            os.close(copy)
