"""Run a command that is asked to stop (SIGTERM) when the process that started it dies: `python -I die_with_parent.py PARENT_PID COMMAND...`.

A study that is killed outright cannot pass anything on; without this its runs would go on unseen, on the cores that its
successor counts on. A file to itself, run by path, so that it costs no imports. Where the kernel is not Linux it only runs the command.
"""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1  # <sys/prctl.h>; kept across execve


def end_with(parent: int, number: int) -> bool:
    """Have this process sent the signal `number` when `parent` ends; False where it had ended before it could be watched.

    Where the kernel is not Linux nothing is watched.
    """
    if sys.platform != "linux":
        return True
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, number)
    return os.getppid() == parent


def main(parent: int, command: list[str]) -> None:
    """Replace this process by `command`; returns only where `parent` is dead already."""
    if end_with(parent, signal.SIGTERM):
        os.execvp(command[0], command)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])
