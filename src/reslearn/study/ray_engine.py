"""Runs the jobs of a study as tasks of a Ray cluster: many machines, of which some may be lost in mid-study.

Ray places each run where its cores and its share of a GPU are free, and begins it again elsewhere when its machine is lost; the run then
goes on from its folder, so the study's folder must be on a file system that all machines share. Needs the extra `ray`.
"""

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
    launch_command,
    run_environment,
    signals,
    why_ended,
)
from reslearn.study.grid import Job
from reslearn.study.launch import wait_for_lock
from reslearn.study.progress import StudyDisplay, display_for

_WAIT_SECONDS = 0.2  # between looks at what is begun; what ends is told at once
_MAX_RETRIES = 5  # after so many lost machines it may be the run that brings them down
_QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_BACKEND_LOG_LEVEL": "fatal",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}


@dataclass(frozen=True, kw_only=True)
class Ended:
    """What a task says of its run: the exit status, on which machine, after how long; or which folder is not to be seen there."""

    machine: str
    status: int
    seconds: float
    unseen: str = ""


class RayEngine:
    """One Ray task a run, at most `jobs` at once (default: as many as fit), longest first.

    Joins the cluster at `address` (default: RAY_ADDRESS, or the one that `ray start` began here); where there is none, Ray is started on
    this machine for as long as the study lasts. Ctrl-C and SIGTERM are passed on, and `command` and `launch` meant, as by `LocalEngine`,
    on the machine that runs the job: "python" is the Python there, and of `WarmStart` each of Ray's workers keeps a process to fork from.
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
        self._jobs, self._address, self._launch = (
            jobs,
            address,
            launch or partial(launch_command, tuple(command)),
        )
        _import_ray()

    def run(self, jobs: Sequence[Job]) -> list[JobStatus]:
        """Run them all; outcomes in the order in which they ended. ValueError where no cluster answers at the address."""
        log = jobs[0].folder.parent / "ray.log"
        with (
            _quiet(log) as terminal,
            _cluster(self._address) as ray,
            display_for(jobs, to=terminal) as display,
        ):
            return _Study(ray, self._jobs or len(jobs), self._launch, display).run(
                sorted(jobs, key=lambda job: -job.cost)
            )


class _Study:
    """The tasks of one study: those waiting, those handed to Ray, what became of the rest."""

    def __init__(self, ray: Any, at_once: int, launch: Launch, display: StudyDisplay) -> None:
        self._ray, self._at_once, self._launch, self._display = ray, at_once, launch, display
        self._submitted: dict[Any, Job] = {}
        self._log_bytes: dict[
            Path, int
        ] = {}  # of train.log before the task; a longer one tells that the run has begun
        self._outcomes: list[JobStatus] = []

    def run(self, jobs: Sequence[Job]) -> list[JobStatus]:
        waiting = list(jobs)
        with signals() as received:
            passed_on = 0
            try:
                while self._submitted or (waiting and not received):
                    if len(received) > passed_on:
                        self._display.stopping(running=len(self._begun()), again=passed_on > 0)
                        self._cancel(force=passed_on > 0)
                        passed_on = len(received)
                    while waiting and not received and len(self._submitted) < self._at_once:
                        self._submit(waiting.pop(0))
                    done, _ = (
                        self._ray.wait(list(self._submitted), num_returns=1, timeout=_WAIT_SECONDS)
                        if self._submitted
                        else ([], [])
                    )
                    for task in done:
                        self._end(task, stopping=bool(received))
                    self._display.refresh(self._begun())
            finally:
                self._cancel(force=False)
        return self._outcomes + [
            JobStatus(job=job, status="interrupted", reason="not begun") for job in waiting
        ]

    def _submit(self, job: Job) -> None:
        try:
            job.folder.mkdir(parents=True, exist_ok=True)
            log = job.folder / "train.log"
            self._log_bytes[job.folder] = log.stat().st_size if log.exists() else 0
        except OSError as error:
            self._fail(job, str(error), 0.0)
            return
        most = [node["Resources"] for node in self._ray.nodes() if node["Alive"]]
        task = self._ray.remote(run_here).options(
            name=job.name,
            # What fits on no machine runs alone on the largest, as with the local engine, instead of waiting for ever.
            num_cpus=min(
                job.cores, max((resources.get("CPU", 0) for resources in most), default=job.cores)
            ),
            num_gpus=min(job.gpus, max((resources.get("GPU", 0) for resources in most), default=0)),
            max_retries=_MAX_RETRIES,
        )
        self._submitted[
            task.remote(replace(job, folder=job.folder.resolve()), self._launch, os.getcwd())
        ] = job

    def _begun(self) -> list[Job]:
        """Tell the display of runs whose log has begun; returns all that run."""
        running = []
        for job in self._submitted.values():
            with contextlib.suppress(OSError):
                before = self._log_bytes[job.folder]
                if before < 0 or (job.folder / "train.log").stat().st_size > before:
                    running.append(job)
                    if before >= 0:
                        self._display.begun(job)
                    self._log_bytes[job.folder] = -1
        return running

    def _end(self, task: Any, *, stopping: bool) -> None:
        job = self._submitted[task]
        self._begun()
        del self._submitted[task]
        try:
            ended: Ended | None = self._ray.get(task)
            reason = "" if ended is None else _why(job, ended)
        except self._ray.exceptions.RayError as error:
            told = str(error).strip().splitlines() or ["nothing is known of why"]
            ended, reason = (
                None,
                f"lost on the cluster ({type(error).__name__}: {told[-1].strip()}); see {job.folder / 'train.log'}",
            )
        seconds = 0.0 if ended is None else ended.seconds
        if job.is_complete:
            self._outcomes.append(JobStatus(job=job, status="complete", seconds=seconds))
            self._display.complete(job, seconds)
        elif stopping:
            self._outcomes.append(
                JobStatus(
                    job=job, status="interrupted", seconds=seconds, reason="stopped on request"
                )
            )
        else:
            self._fail(job, reason, seconds)

    def _fail(self, job: Job, reason: str, seconds: float) -> None:
        self._outcomes.append(JobStatus(job=job, status="failed", seconds=seconds, reason=reason))
        self._display.failed(job, reason)

    def _cancel(self, *, force: bool) -> None:
        for task in self._submitted:
            self._ray.cancel(task, force=force)


def run_here(job: Job, launch: Launch, directory: str) -> Ended:
    """The task, on whatever machine: a run in a process of its own, stopped when the task is canceled or its worker dies."""
    machine, started = socket.gethostname(), time.monotonic()
    for needed in (job.folder, directory):
        if not Path(needed).is_dir():
            return Ended(machine=machine, status=2, seconds=0.0, unseen=str(needed))
    wait_for_lock(RunFolder(job.folder))
    with (job.folder / "train.log").open("ab") as log:
        log.write(f"$ {job.command}\n".encode())
    with contextlib.chdir(directory):
        process = launch(job, run_environment(os.environ, job.cores))
    try:
        while (
            status := process.poll()
        ) is None:  # a wait would not hear that the task is canceled, which is no signal
            time.sleep(POLL_SECONDS)
    except BaseException:  # canceled: the run writes its checkpoint
        process.terminate()
        process.wait()
        raise
    return Ended(machine=machine, status=status, seconds=time.monotonic() - started)


def _why(job: Job, ended: Ended) -> str:
    shared = "all machines must share the file system of the study"
    if ended.unseen:
        return f"machine {ended.machine} does not see {ended.unseen}: {shared}"
    if ended.status == 0 and not job.is_complete:
        return f"ended on {ended.machine} without a result here: {shared}"
    return why_ended(job, ended.status)


def _import_ray() -> Any:
    os.environ.update(
        {key: value for key, value in _QUIET.items() if key not in os.environ}
    )  # it reads them when it is imported
    try:
        import ray
    except ImportError:
        raise ValueError(
            "--engine ray needs an extra that is not installed: pip install 'reslearn[ray]'"
        ) from None
    return ray


@contextlib.contextmanager
def _cluster(address: str | None) -> Iterator[Any]:
    """Ray, joined or started; left or stopped at the end."""
    ray = _import_ray()
    try:
        ray.init(
            address=address, include_dashboard=False, log_to_driver=False, logging_level="critical"
        )
    except (
        Exception
    ) as error:  # ConnectionError, RuntimeError, plain Exception: whatever its parts run into
        ray.shutdown()
        where = address or os.environ.get("RAY_ADDRESS") or "this machine"
        raise ValueError(
            f"no Ray cluster to be had at {where}: {' '.join(str(error).split())}"
        ) from None
    try:
        yield ray
    finally:
        ray.shutdown()


@contextlib.contextmanager
def _quiet(log: Path) -> Iterator[TextIO]:
    """What Ray's processes and threads write to our stdout and stderr goes to `log`; yields what stderr was, for our own display."""
    make_folder(log.parent)
    streams = sys.stdout, sys.stderr
    for stream in streams:
        stream.flush()
    kept = [os.dup(number) for number in (1, 2)]
    try:
        with (
            log.open("a", buffering=1) as file,
            os.fdopen(os.dup(kept[1]), "w", buffering=1) as terminal,
        ):
            for number in (1, 2):
                os.dup2(file.fileno(), number)
            sys.stdout = sys.stderr = file
            try:
                yield terminal
            finally:
                sys.stdout, sys.stderr = streams
    finally:
        for number, copy in zip((1, 2), kept, strict=True):
            os.dup2(copy, number)
            os.close(copy)
