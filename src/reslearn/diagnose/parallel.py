"""Trials side by side: each in a process of its own, forked from this one, that computes with one thread.

Small networks gain nothing from a second thread, and trials of one diagnosis do not wait for one another. Forks know the stranger's
functions without anyone having to name or copy them; what they give back is copied.
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

from reslearn.diagnose.problem import DiagnosisError
from reslearn.study import available_cores, end_with

T = TypeVar("T")
MOST_JOBS = 8
"""Conditions and seeds that are ready at once are about a dozen, and each trial takes memory."""


def jobs_here(jobs: int | None) -> int:
    """How many at once: `jobs`, or one a core. DiagnosisError where several are asked for and a process that trained cannot be forked."""
    can_fork = sys.platform == "linux" and not torch.cuda.is_available()
    if jobs is None:
        return min(MOST_JOBS, available_cores()) if can_fork else 1
    if jobs < 1:
        raise DiagnosisError(f"jobs {jobs}: at least 1 is needed")
    if jobs > 1 and not can_fork:
        raise DiagnosisError(
            f"jobs {jobs}: trials run side by side on Linux without a GPU only; 1 runs anywhere"
        )
    return jobs


def side_by_side(tasks: Iterable[Callable[[], T]], jobs: int) -> Iterator[T]:
    """What `tasks` give, in their order, at most `jobs` at once; with one job here, with all threads.

    A task is taken from `tasks` when it can begin, so that an iterator may decide by what was given until then. What a task raises is
    raised here. Whoever stops listening ends those that still run.
    """
    if jobs == 1:
        for task in tasks:
            yield task()
        return
    left = iter(tasks)
    forks: deque[_Fork[T]] = deque()
    try:
        while True:
            while (
                sum(not fork.is_done for fork in forks) < jobs
                and (following := next(left, None)) is not None
            ):
                forks.append(_Fork(following))
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


class _Fork(Generic[T]):
    """A task in its process, and what came back."""

    def __init__(self, task: Callable[[], T]) -> None:
        context = multiprocessing.get_context("fork")
        self.pipe, far_end = context.Pipe(duplex=False)
        self.is_done = False
        self._value: T | None = None
        self._error: BaseException | None = None
        self._process = context.Process(target=_work, args=(task, far_end), daemon=True)
        with warnings.catch_warnings():
            # From 3.12 on Python warns of threads, which torch has: they sleep while no operation runs, and the fork uses none.
            warnings.simplefilter("ignore", DeprecationWarning)
            self._process.start()
        far_end.close()

    def receive(self) -> None:
        """Take what it sent, before it can end."""
        try:
            self._value, self._error = self.pipe.recv()
        except EOFError:
            self._process.join()
            why = (
                "no memory?"
                if self._process.exitcode == -signal.SIGKILL
                else f"status {self._process.exitcode}"
            )
            self._error = DiagnosisError(
                f"the process of a trial was ended ({why}); fewer jobs take less memory"
            )
        self.is_done = True
        self.end()

    def result(self) -> T:
        if self._error is not None:
            raise self._error
        assert self._value is not None
        return self._value

    def end(self) -> None:
        """Whatever it is at."""
        self._process.kill()
        self._process.join()
        self.pipe.close()


def _work(task: Callable[[], T], far_end: Connection) -> None:
    """In the fork. Ctrl-C is for the process that it was forked from to hear, whose end, however it comes, ends it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    assert parent is not None and parent.pid is not None, "it was forked"
    if not end_with(parent.pid, signal.SIGKILL):
        return
    torch.set_num_threads(1)
    try:
        answer: tuple[T | None, BaseException | None] = (task(), None)
    except Exception as error:  # whatever it is, it is raised where the result is taken
        answer = (None, _that_can_be_sent(error))
    far_end.send(answer)


def _that_can_be_sent(error: Exception) -> Exception:
    """Classes of a stranger's file may be unknown to pickle."""
    return (
        error
        if type(error).__module__ in ("builtins", "torch")
        else RuntimeError(f"{type(error).__name__}: {error}")
    )
