"""Start runs as forks of one process that has already imported torch.

Importing torch, its optimizers and scikit-learn takes three to four seconds of one core. A small
network trains on digits in the same time. A study of many short runs pays for the imports once. The
fork server is the one of the standard library, and each run executes the usual command line.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import multiprocessing.process
import os
import signal
import sys
import threading
import time
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from multiprocessing import forkserver, resource_tracker
from pathlib import Path

from reslearn.runs import RunError, RunFolder
from reslearn.study.engine import POLL_SECONDS
from reslearn.study.grid import Job

_WAIT_FOR_LOCK_SECONDS = 60.0
_SERVER_DIED = 255  # exit code that multiprocessing reports for all children of a dead fork server
_STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class WarmStart:
    """Start runs as forks: `LocalEngine(launch=WarmStart(entry, preload=...))`.

    The fork server belongs to the calling process and is shared by all instances, so an instance
    can be pickled and used in other processes.

    Args:
        entry: Runs a command line that it reads from `sys.argv`.
        preload: Names of the modules that the fork server imports.
    """

    def __init__(self, entry: Callable[[], object], *, preload: Sequence[str]) -> None:
        self._entry, self._preload = entry, tuple(preload)

    def __call__(self, job: Job, environment: dict[str, str]) -> ForkedProcess:
        """Start a run. Its output is appended to train.log in its folder.

        Raises:
            OSError: If no process can be started.
        """
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(list(self._preload))
        _start_server(environment)
        arguments = self._entry, job.arguments, job.folder, os.getcwd(), environment
        process = context.Process(target=_run, args=arguments, name=job.name)
        try:
            with _without_main(self._entry):
                process.start()
        except EOFError:
            raise OSError("the fork server has ended") from None
        return ForkedProcess(process)


class ForkedProcess:
    """One run, with the methods of `subprocess.Popen` that the engine needs."""

    def __init__(self, process: multiprocessing.process.BaseProcess) -> None:
        assert process.pid is not None
        self._process, self.pid = process, process.pid

    @property
    def returncode(self) -> int | None:
        """Exit status, minus the number of the signal that ended the run, or None if it runs."""
        status = self._process.exitcode
        # If the fork server dies, its runs continue. Then only the process table and the folder
        # show whether a run has ended.
        return None if status == _SERVER_DIED and _is_running(self.pid) else status

    def poll(self) -> int | None:
        """Return `returncode`; exists because the engine calls it."""
        return self.returncode

    def terminate(self) -> None:
        """Send SIGTERM to the run, if it still runs."""
        if self.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGTERM)

    def wait(self) -> int:
        """Wait for the end of the run, and return its exit status."""
        self._process.join()
        while self.returncode is None:
            time.sleep(POLL_SECONDS)
        return self.returncode or 0


def wait_for_lock(folder: RunFolder) -> None:
    """Wait until no process locks `folder`, for at most 60 seconds.

    A killed study or a lost machine leaves runs that are still writing their checkpoints.
    """
    deadline = time.monotonic() + _WAIT_FOR_LOCK_SECONDS
    while True:
        try:
            with folder.lock():
                return
        except OSError:
            return  # the run itself reports that the disk is full, for example
        except RunError:
            if time.monotonic() > deadline:
                return  # the run itself reports who locks its folder
            time.sleep(0.2)


def _start_server(environment: dict[str, str]) -> None:
    """Start the fork server, unless it runs, with the environment of a run.

    The server inherits blocked signals. Ctrl-C must reach the engine, which stops the runs in
    order; it must not end the server.
    """
    # The fork server would start the resource tracker itself, and unblock the signals by that.
    resource_tracker.ensure_running()
    saved = dict(os.environ)
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, _STOP_SIGNALS)
    os.environ.update(environment)
    try:
        # Returns at once: the server imports its modules while the first run waits for it.
        forkserver.ensure_running()
    finally:
        os.environ.clear()
        os.environ.update(saved)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


@contextlib.contextmanager
def _without_main(entry: Callable[[], object]) -> Iterator[None]:
    """Hide the main module of this process from the fork.

    A fork would import it again, because `entry` may be defined in it. Under Ray this costs a
    second of imports. It is needed only if `entry` comes from the main module.
    """
    main = sys.modules["__main__"]
    if entry.__module__ != "__main__":
        sys.modules["__main__"] = types.ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


def _run(
    entry: Callable[[], object],
    arguments: Sequence[str],
    folder: Path,
    directory: str,
    environment: Mapping[str, str],
) -> None:
    """Run a command line in the fork, as if it had been started in a new process."""
    os.chdir(directory)  # a fork starts in the directory of the server
    os.setsid()  # the signals of a terminal reach the engine only, which passes them on
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _STOP_SIGNALS)
    os.environ.clear()
    os.environ.update(environment)  # the server has the environment, and the GPU, of the first run
    threading.Thread(target=_stop_with_study, daemon=True).start()
    log = os.open(folder / "train.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    for stream in (1, 2):
        os.dup2(log, stream)
    os.close(log)
    wait_for_lock(RunFolder(folder))
    sys.argv = ["reslearn", *arguments]
    entry()


def _stop_with_study() -> None:
    """Send SIGTERM to this run when the study ends: the fork server outlives a killed study."""
    study = multiprocessing.parent_process()
    assert study is not None
    study.join()
    os.kill(os.getpid(), signal.SIGTERM)


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except ProcessLookupError:
        return False
    except OSError:  # no /proc: the process exists, and that is all we know
        return True
    # A zombie has ended. In a container, process 1 may never reap an orphan.
    return state != "Z"
