"""Processes that work side by side, forked from one that has imported torch."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from concurrent.futures import Executor


def one_thread_each(number: int) -> "Executor":
    """`number` processes of one thread, which Ctrl-C ends."""
    import multiprocessing
    from concurrent.futures import ProcessPoolExecutor

    return ProcessPoolExecutor(number, mp_context=multiprocessing.get_context("forkserver"), initializer=_begin)


def _begin() -> None:
    """The process that it was forked from does not hear Ctrl-C; this one does."""
    import signal

    import torch

    signal.signal(signal.SIGINT, signal.SIG_DFL)
    torch.set_num_threads(1)
