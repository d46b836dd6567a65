"""A fork server that has imported what trainings import, so that a process starts at once."""

import multiprocessing
import os
from multiprocessing import forkserver
from multiprocessing.context import ForkServerContext
from pathlib import Path
from unittest import mock

_SERVER = forkserver._forkserver  # type: ignore[attr-defined]
_pids: set[int] = set()


def fork_server() -> ForkServerContext:
    """Return a context whose processes are forks of a server with the modules of this folder."""
    if _SERVER._forkserver_pid not in _pids:
        _SERVER._stop()  # other tests start servers that import less
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["torchrun_processes", "preloaded"])
    # The server of Python 3.11 does not get our sys.path, and ignores modules that it cannot find.
    folders = [str(Path(__file__).parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    with mock.patch.dict(os.environ, {"PYTHONPATH": os.pathsep.join(folders)}):
        forkserver.ensure_running()
    _pids.add(_SERVER._forkserver_pid)
    return context
