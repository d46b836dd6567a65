"""Starts runs as forks of one process that has imported what they need: a study of many short runs then pays for its imports once.

Importing torch, its optimizers and scikit-learn takes three to four seconds of a core, as much as a small net takes to train on
digits. The forking is the standard library's fork server; the run itself is the same command line as everywhere.
"""

import contextlib
import multiprocessing
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
_LOST = 255
_STOPPING = (signal.SIGINT, signal.SIGTERM)


class ForkedProcess:
    """One run, seen as the engine sees any process (`subprocess.Popen`'s names)."""

    def __init__(self, process: "multiprocessing.process.BaseProcess") -> None:
        assert process.pid is not None
        self._process, self.pid = process, process.pid

    @property
    def returncode(self) -> int | None:
        """Exit status, minus the number of a signal that ended it, or None while it runs."""
        status = self._process.exitcode
        # What multiprocessing says of a run whose server has died, which is no reason for the run to end: then only its folder tells how.
        return None if status == _LOST and _is_there(self.pid) else status

    def poll(self) -> int | None:
        """The same."""
        return self.returncode

    def terminate(self) -> None:
        """Ask it to stop."""
        if self.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGTERM)

    def wait(self) -> int:
        """Wait until it has ended."""
        self._process.join()
        while self.returncode is None:
            time.sleep(POLL_SECONDS)
        return self.returncode or 0


def _is_there(pid: int) -> bool:
    try:
        os.kill(pid, 0)
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except ProcessLookupError:
        return False
    except OSError:  # no Linux, whose process 1 may never bury an orphan
        return True
    return state != "Z"


class WarmStart:
    """`LocalEngine(launch=WarmStart(entry, preload=...))`: `entry` reads `sys.argv` as a command line does; `preload` are modules.

    The process that runs are forked from is the calling process's own, one however many of these there are; so it can be sent to others.
    """

    def __init__(self, entry: Callable[[], object], *, preload: Sequence[str]) -> None:
        self._entry, self._preload = entry, tuple(preload)

    def __call__(self, job: Job, environment: dict[str, str]) -> ForkedProcess:
        """Begin a run; its words are appended to train.log in its folder. OSError where no process can be had."""
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(list(self._preload))
        _start_server(environment)
        run = self._entry, job.arguments, job.folder, os.getcwd(), environment
        process = context.Process(target=_run, args=run, name=job.name)
        try:
            with _without_main(self._entry):
                process.start()
        except EOFError:
            raise OSError("the process that runs are forked from has ended") from None
        return ForkedProcess(process)


@contextlib.contextmanager
def _without_main(entry: Callable[[], object]) -> Iterator[None]:
    """A fork would run this process's main module again, for what may be defined in it: under Ray a second of imports, here of no use."""
    main = sys.modules["__main__"]
    if entry.__module__ != "__main__":
        sys.modules["__main__"] = types.ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


def _start_server(environment: dict[str, str]) -> None:
    """Where it does not run yet: with the environment that all runs get, and deaf to what stops a study, which the engine is to hear."""
    resource_tracker.ensure_running()  # which the fork server starts otherwise, and which unblocks these signals
    before, mask = dict(os.environ), signal.pthread_sigmask(signal.SIG_BLOCK, _STOPPING)
    os.environ.update(environment)
    try:
        forkserver.ensure_running()  # returns at once; the server imports while the first run waits for it
    finally:
        os.environ.clear()
        os.environ.update(before)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _run(
    entry: Callable[[], object],
    arguments: Sequence[str],
    folder: Path,
    directory: str,
    environment: Mapping[str, str],
) -> None:
    """In the fork: a session, ears, a place, an environment, a log and a command line of its own."""
    os.chdir(directory)  # a fork begins where its parent began
    os.setsid()
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _STOPPING)
    os.environ.clear()
    os.environ.update(
        environment
    )  # the server's is that of the first run; the GPU set aside is another for each
    threading.Thread(target=_stop_with_the_study, daemon=True).start()
    log = os.open(folder / "train.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    for stream in (1, 2):
        os.dup2(log, stream)
    os.close(log)
    wait_for_lock(RunFolder(folder))
    sys.argv = ["reslearn", *arguments]
    entry()


def _stop_with_the_study() -> None:
    """The fork server outlives a study that is killed outright; its runs shall not go on unseen."""
    study = multiprocessing.parent_process()
    assert study is not None
    study.join()
    os.kill(os.getpid(), signal.SIGTERM)


def wait_for_lock(folder: RunFolder) -> None:
    """A study that was killed outright, or a machine that was lost, leaves runs that are still writing their checkpoints."""
    until = time.monotonic() + _WAIT_FOR_LOCK_SECONDS
    while True:
        try:
            with folder.lock():
                return
        except RunError:
            if time.monotonic() > until:
                return  # the run itself says whose folder it is
            time.sleep(0.2)
