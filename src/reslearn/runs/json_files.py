"""Atomic writes, digests, and JSON files whose errors name the file, the key and the value."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from reslearn.runs.shape import problems


class RunError(ValueError):
    """A folder is not a run, is in use, or has unreadable content. The message says what to do."""


def make_folder(path: Path) -> None:
    """Create the folder of some results, and its parents.

    Raises:
        RunError: If a file is in the way, or the folder cannot be written.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise RunError(
            f"{path} cannot be created (a file is in the way): choose another --out"
        ) from None
    except OSError as error:
        reason = f"{str(error.strerror).lower()}{disk_state(error, path)}"
        raise RunError(f"{path} cannot be created ({reason}): choose another --out") from None


@contextlib.contextmanager
def removed_on_error(folder: Path) -> Iterator[list[str]]:
    """Remove what the body created, if it raises: a refused command leaves no empty folder.

    A folder that existed before, or that holds other files, stays.

    Args:
        folder: The folder that the body creates, with its parents.

    Yields:
        Names of files in the folder that may be removed. The body adds them once it owns them.
    """
    new_folders = [path for path in (folder, *folder.parents) if not path.exists()]
    own_files: list[str] = []
    try:
        yield own_files
    except BaseException:
        with contextlib.suppress(OSError):
            content = {path.name for path in folder.iterdir()} if new_folders else set()
            if content <= set(own_files):
                for name in content:
                    (folder / name).unlink()
                for path in new_folders:
                    path.rmdir()
        raise


def disk_state(error: OSError, path: Path) -> str:
    """Return the free space and inodes of the file system of `path`, if the error is about them."""
    if error.errno not in (errno.ENOSPC, errno.EDQUOT):
        return ""
    existing_path = next(parent for parent in (path, *path.absolute().parents) if parent.exists())
    try:
        disk = os.statvfs(existing_path)
    except OSError:
        return ""
    free, size = disk.f_bavail * disk.f_frsize / 1e6, disk.f_blocks * disk.f_frsize / 1e6
    state = f"{free:,.1f} of {size:,.1f} MB free"
    if disk.f_files:
        state += f" and {disk.f_favail:,} of {disk.f_files:,} inodes"
    return f" ({state} in {existing_path})"


def write_atomically(path: Path, write: Callable[[IO[bytes]], object]) -> None:
    """Write a file so that `path` always has either its old or its new content, never a part.

    Args:
        write: Writes the content to a temporary file beside `path`, which is synced and renamed.

    Raises:
        OSError: For example if the disk is full. It names `path`, which is unchanged then.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with temporary.open("wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise OSError(error.errno, error.strerror, str(path)) from error
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    # Sync the folder too, so that the new name survives a power failure.
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def to_json_value(value: Any) -> Any:
    """Convert tuples to lists and numbers that are not finite to None, as JSON requires."""
    if isinstance(value, Mapping):
        return {str(key): to_json_value(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [to_json_value(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def digest(*parts: Any) -> str:
    """Return 16 hex digits over JSON values, independent of their spacing.

    The last part is an object whose "checksum" is ignored.
    """
    *first_parts, last_part = parts
    fields = {key: value for key, value in last_part.items() if key != "checksum"}
    text = json.dumps([*first_parts, fields], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def file_digests(paths: Iterable[Path], folder: Path) -> dict[str, str]:
    """Return the SHA-256 of files by their path within `folder`."""
    digests = {}
    for path in paths:
        with path.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256")
        digests[path.relative_to(folder).as_posix()] = sha256.hexdigest()
    return digests


def as_read(value: Mapping[str, Any]) -> dict[str, Any]:
    """Return `value` as it will be read from JSON: tuples become lists, keys become texts."""
    copy: dict[str, Any] = json.loads(json.dumps(value))
    return copy


class _JsonObject(dict[str, Any]):
    """A JSON object of a run. A missing key raises a RunError that names the key and the file."""

    path: Path

    def __missing__(self, key: str) -> Any:
        raise RunError(
            f"{self.path} lacks {key!r}: it was changed by hand, or is of another program"
        )


def parse_object(path: Path, text: bytes, *, location: str = "") -> dict[str, Any]:
    """Parse and validate a JSON object.

    Args:
        text: The content of `path`, or one of its lines.
        location: Which line, for the error message.
    """

    def with_path(value: dict[str, Any]) -> _JsonObject:
        json_object = _JsonObject(value)
        json_object.path = path
        return json_object

    try:
        value = json.loads(text, object_hook=with_path)
    except (ValueError, RecursionError) as error:
        raise RunError(f"{path}{location}: truncated, or not JSON ({error})") from None
    if not isinstance(value, dict):
        raise RunError(f"{path}{location}: a JSON object is expected")
    if messages := problems(path.name, text):
        raise RunError(f"{path}{location}: {'; '.join(messages)}")
    return value
