"""Run trials in parallel: each in its own process, forked from this one, with one thread.

Small networks gain nothing from a second thread, and most trials do not depend on one another. A
forked process knows the user's functions, so they need not be importable by name. Results are
copied back.
"""

from __future__ import annotations

import multiprocessing
import signal
import sys
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from multiprocessing.connection import Connection, wait
from typing import Generic, TypeVar

import torch

from reslearn.diagnose.user_code import DiagnosisError
from reslearn.study import available_cores, end_with

T = TypeVar("T")
MAX_JOBS = 8
"""About a dozen trials are ready at the same time, and each takes memory."""


def resolve_jobs(jobs: int | None) -> int:
    """Return the number of trials to run at once: `jobs`, or by default one per core.

    Raises:
        DiagnosisError: If several jobs are asked for, but a process that trained cannot be forked.
    """
    can_fork = sys.platform == "linux" and not torch.cuda.is_available()
    if jobs is None:
        return min(MAX_JOBS, available_cores()) if can_fork else 1
    if jobs < 1:
        raise DiagnosisError(f"jobs is {jobs}: give at least 1")
    if jobs > 1 and not can_fork:
        raise DiagnosisError(
            f"jobs is {jobs}: trials run in parallel on Linux without a GPU only; use jobs 1"
        )
    return jobs


def run_parallel(tasks: Iterable[Callable[[], T]], jobs: int) -> Iterator[T]:
    """Yield the results of `tasks` in their order, while at most `jobs` of them run.

    With one job, tasks run in this process with all threads. The next task is taken from `tasks`
    only when it can start, so an iterator may decide by the results so far. An error in a task is
    raised here. Closing this generator ends the tasks that still run.
    """
    if jobs == 1:
        for task in tasks:
            yield task()
        return
    remaining = iter(tasks)
    forks: deque[_Fork[T]] = deque()
    try:
        while True:
            _start_tasks(remaining, forks, jobs)
            if not forks:
                return
            if forks[0].is_done:
                yield forks.popleft().result()
                continue
            ready = wait([fork.pipe for fork in forks if not fork.is_done])
            for fork in forks:
                if fork.pipe in ready:
                    fork.receive()
    finally:
        for fork in forks:
            fork.end()


def _start_tasks(remaining: Iterator[Callable[[], T]], forks: deque[_Fork[T]], jobs: int) -> None:
    """Start tasks until `jobs` of them run or none remains."""
    while sum(not fork.is_done for fork in forks) < jobs:
        task = next(remaining, None)
        if task is None:
            return
        forks.append(_Fork(task))


class _Fork(Generic[T]):
    """A task in its own process, and its result."""

    def __init__(self, task: Callable[[], T]) -> None:
        context = multiprocessing.get_context("fork")
        self.pipe, sender = context.Pipe(duplex=False)
        self.is_done = False
        self._value: T | None = None
        self._error: BaseException | None = None
        self._process = context.Process(target=_work, args=(task, sender), daemon=True)
        with warnings.catch_warnings():
            # Python 3.12 and later warn of forking with threads, which torch has. They sleep
            # while no operation runs, and the forked process uses none of them.
            warnings.simplefilter("ignore", DeprecationWarning)
            self._process.start()
        sender.close()

    def receive(self) -> None:
        """Take the result from the pipe, then end the process."""
        try:
            self._value, self._error = self.pipe.recv()
        except EOFError:
            self._process.join()
            reason = f"with status {self._process.exitcode}"
            if self._process.exitcode == -signal.SIGKILL:
                reason = "by a signal: is memory exhausted?"
            self._error = DiagnosisError(
                f"the process of a trial ended {reason}; fewer jobs take less memory"
            )
        self.is_done = True
        self.end()

    def result(self) -> T:
        if self._error is not None:
            raise self._error
        assert self._value is not None
        return self._value

    def end(self) -> None:
        """Kill the process if it still runs, and close the pipe."""
        self._process.kill()
        self._process.join()
        self.pipe.close()


def _work(task: Callable[[], T], sender: Connection) -> None:
    """Run a task in the forked process and send its result.

    Ctrl-C is left to the parent process. The end of the parent ends this process.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    assert parent is not None and parent.pid is not None, "this process was forked"
    if not end_with(parent.pid, signal.SIGKILL):
        return
    torch.set_num_threads(1)
    try:
        answer: tuple[T | None, BaseException | None] = (task(), None)
    except Exception as error:  # raised where the result is taken
        answer = (None, _picklable(error))
    sender.send(answer)


def _picklable(error: Exception) -> Exception:
    """Return an exception that pickle knows: classes of the user's file may be unknown to it."""
    if type(error).__module__ in ("builtins", "torch"):
        return error
    return RuntimeError(f"{type(error).__name__}: {error}")
