"""Run a command that gets SIGTERM when its parent process dies.

    python -I die_with_parent.py PARENT_PID COMMAND...

A study that is killed with SIGKILL cannot stop its runs. Without this file they would continue
unseen, on cores that the next study expects to be free. The file is run by its path and imports
nothing of the package, so it starts fast. On other systems than Linux it only runs the command.
"""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1  # <sys/prctl.h>; the setting survives execve


def end_with(parent: int, number: int) -> bool:
    """Ask the kernel to send this process a signal when its parent ends.

    Does nothing on other systems than Linux.

    Args:
        parent: Process id of the expected parent.
        number: Number of the signal.

    Returns:
        False if the parent had already ended, so that no signal will come.
    """
    if sys.platform != "linux":
        return True
    # Python has no function for prctl, so it is called in the C library. The kernel watches the
    # current parent: if the expected one has died, this process has another parent by now.
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, number)
    return os.getppid() == parent


def main(parent: int, command: list[str]) -> None:
    """Replace this process by `command`. Returns only if `parent` has already ended."""
    if end_with(parent, signal.SIGTERM):
        # exec keeps the process id and the death signal, so the engine watches and signals the
        # command itself; a child process would need its signals passed on.
        os.execvp(command[0], command)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])
