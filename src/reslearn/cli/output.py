"""Write the results of commands as JSON files, and run their work in worker processes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reslearn.terminal import make_streams_safe

if TYPE_CHECKING:
    from concurrent.futures import Executor


def write_json(record: dict[str, Any], path: Path) -> None:
    """Write `record` to `path` atomically."""
    from reslearn.runs import write_atomically

    text = json.dumps(record, indent=1, allow_nan=False)
    write_atomically(path, lambda file: file.write(text.encode()))


def print_json(value: Any, *, indent: int | None = None) -> None:
    """Print `value` as JSON. Numbers that are not finite become null, because JSON has none."""
    from reslearn.runs import to_json_value

    print(json.dumps(to_json_value(value), indent=indent, allow_nan=False, default=str))


def process_pool(num_workers: int, preload: Sequence[str] = ()) -> Executor:
    """Return a pool of single-threaded processes, forked from a server that has imported torch.

    The workers end with this process, even if it is killed, and each of them obeys Ctrl-C.

    Args:
        preload: Modules that the server imports, if this process has not started one before.
    """
    import multiprocessing
    from concurrent.futures import ProcessPoolExecutor

    context = multiprocessing.get_context("forkserver")
    if preload:
        context.set_forkserver_preload(list(preload))
    return ProcessPoolExecutor(num_workers, mp_context=context, initializer=_initialize_worker)


def _initialize_worker() -> None:
    import signal
    import threading

    import torch

    threading.Thread(target=_exit_with_parent, daemon=True).start()
    # The fork server ignores Ctrl-C, and its children inherit that.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    make_streams_safe()
    torch.set_num_threads(1)


def _exit_with_parent() -> None:
    """Exit at once when the parent ends: a task may take minutes, and its result would be lost."""
    import multiprocessing
    import os

    parent = multiprocessing.parent_process()
    assert parent is not None, "only a pool starts workers"
    parent.join()
    os._exit(1)
