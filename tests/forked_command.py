"""`reslearn` in a process of its own that starts at once: a fork of this one, which has torch.

tests/cli/test_interrupted_start.py and others start `python -m reslearn` as a user does, which
imports torch in seconds.
"""

import logging
import os
import sys
import time
from collections.abc import Mapping
from multiprocessing.process import BaseProcess
from pathlib import Path

from quick_processes import quick_processes
from reslearn.cli import commands


def start_command(
    *arguments: object,
    streams: Mapping[int, Path | str],
    folder: Path | None = None,
    environment: Mapping[str, str] | None = None,
) -> BaseProcess:
    """Start `reslearn ARGUMENTS`.

    Args:
        arguments: The words of the command line.
        streams: The files that replace standard streams, by their numbers: 2 is standard error.
        folder: Where to run. By default here.
        environment: The variables of the process. By default those of this process.
    """
    words = [str(argument) for argument in arguments]
    options = (dict(streams), folder or Path.cwd(), dict(environment or os.environ))
    process: BaseProcess = quick_processes().Process(target=_run, args=(words, *options))
    process.start()
    return process


def served_address(server: BaseProcess, messages: Path) -> str:
    """Wait for the line with which a server says that it is ready; return its address."""
    while not (messages.exists() and messages.read_text().endswith("\n")):
        assert server.is_alive()
        time.sleep(0.02)
    line = messages.read_text()
    assert line.startswith("serving "), line
    return line.split()[-1]


def _run(
    words: list[str], streams: dict[int, Path | str], folder: Path, environment: dict[str, str]
) -> None:
    for number, path in streams.items():
        os.dup2(os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOCTTY), number)
    # pytest has replaced the streams, and receives messages of libraries.
    sys.stdout, sys.stderr = (os.fdopen(number, "w", closefd=False) for number in (1, 2))
    logging.getLogger().handlers.clear()
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = ["reslearn", *words]
    commands.main()
