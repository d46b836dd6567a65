"""The lock of a folder: one process owns a run, and notices if the folder is no longer its own."""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from reslearn.runs.json_files import RunError, make_folder

_NAME = ".lock"


class FolderLostError(RunError):
    """The folder was removed or replaced while this process worked in it."""


class FolderLock:
    """The lock that this process holds on a folder, as `lock_folder` returns it."""

    def __init__(self, folder: Path, descriptor: int) -> None:
        self._folder = folder
        self._descriptor = descriptor

    def check(self) -> None:
        """Raise FolderLostError unless the folder at this path is the one that was locked.

        The folder may have been removed, and another process may have begun a run in its place.
        """
        if not self.is_in_place():
            raise FolderLostError(
                f"{self._folder} was removed or replaced while this process used it: "
                "it stops and writes nothing more; train again in another --out"
            )

    def is_in_place(self) -> bool:
        """Return whether the locked file still has its path."""
        try:
            file = os.stat(self._folder / _NAME, follow_symlinks=False)
        except OSError:
            return False
        return os.path.samestat(file, os.fstat(self._descriptor))


@contextlib.contextmanager
def lock_folder(folder: Path) -> Iterator[FolderLock]:
    """Create `folder` if it is missing, and hold it for this process.

    The lock ends with the process, even if the process is killed. The lock file is never emptied,
    and a symbolic link in its place is not followed.

    Raises:
        RunError: If another process holds the folder, or the lock file is no regular file.
    """
    make_folder(folder)
    descriptor = open_lock_file(folder / _NAME)
    try:
        lock = FolderLock(folder, descriptor)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            is_held = lock.is_in_place()  # another process may have replaced the folder just now
        except BlockingIOError:
            is_held = False
        if not is_held:
            raise RunError(f"{folder} is in use by another process: two runs cannot share a folder")
        yield lock
    finally:
        os.close(descriptor)


def open_lock_file(path: Path) -> int:
    """Open or create a lock file, and return its descriptor. Its content is not changed.

    Raises:
        RunError: If the file is a link, a pipe or anything else that is not regular.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        descriptor = os.open(path, flags, 0o666)
    except OSError:
        if path.is_symlink() or path.is_dir():
            raise _no_lock_file(path) from None
        raise
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise _no_lock_file(path)
    return descriptor


def _no_lock_file(path: Path) -> RunError:
    return RunError(f"{path} is no regular file: remove it, or choose another --out")
