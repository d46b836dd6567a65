"""Processes that work side by side, forked from one that has imported torch."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from concurrent.futures import Executor


def one_thread_each(number: int) -> "Executor":
    """`number` processes of one thread, which Ctrl-C ends, and the end of this process, whatever it is, too."""
    import multiprocessing
    from concurrent.futures import ProcessPoolExecutor

    return ProcessPoolExecutor(
        number, mp_context=multiprocessing.get_context("forkserver"), initializer=_begin
    )


def _begin() -> None:
    """The process that it was forked from does not hear Ctrl-C; this one does."""
    import signal
    import threading

    import torch

    threading.Thread(target=_end_with_parent, daemon=True).start()
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    torch.set_num_threads(1)


def _end_with_parent() -> None:
    """What it is at may take minutes, and nobody would take the result."""
    import multiprocessing
    import os

    parent = multiprocessing.parent_process()
    assert parent is not None, "it was started by a pool"
    parent.join()
    os._exit(1)
