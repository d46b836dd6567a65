"""Processes that start at once, because everything that a training imports is imported already."""

import multiprocessing
import os
import sys
import warnings
from multiprocessing import forkserver
from multiprocessing.context import BaseContext, ForkContext, ForkProcess
from pathlib import Path
from unittest import mock

import torch

_SERVER = forkserver._forkserver  # type: ignore[attr-defined]
_pids: set[int] = set()


class _Process(ForkProcess):
    """A fork of the process that runs the tests."""

    def start(self) -> None:
        with warnings.catch_warnings():
            # Python 3.12 and later warn of forking with threads, such as those of pytest-xdist.
            # They sleep, and the fork uses none of them.
            warnings.simplefilter("ignore", DeprecationWarning)
            super().start()


class _Context(ForkContext):
    Process = _Process


def quick_processes() -> BaseContext:
    """Return a context whose processes have imported torch when they start.

    They are forks of this process. On a machine where it cannot be forked, since it may use the GPU
    or system libraries that do not survive a fork, they are forks of a server.
    """
    if sys.platform == "linux" and not torch.cuda.is_available():
        return _Context()
    return _fork_server()


def _fork_server() -> BaseContext:
    """Return a context whose processes are forks of a server with the modules of tests/train."""
    if _SERVER._forkserver_pid not in _pids:
        _SERVER._stop()  # other tests start servers that import less
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["torchrun_processes", "preloaded"])
    # The server of Python 3.11 does not get our sys.path, and ignores modules that it cannot find.
    here = Path(__file__).parent
    folders = [str(here), str(here / "train"), *filter(None, [os.environ.get("PYTHONPATH")])]
    with mock.patch.dict(os.environ, {"PYTHONPATH": os.pathsep.join(folders)}):
        forkserver.ensure_running()
    _pids.add(_SERVER._forkserver_pid)
    return context
