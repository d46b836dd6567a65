"""Download archives from their published address, verify them, and unpack them.

A download resumes after the connection was cut. An archive is verified by its digest and unpacked
into a temporary folder that is renamed at the end, so an existing folder is always complete.
"""

import fcntl
import hashlib
import http.client
import os
import tarfile
import tempfile
import time
import urllib.error
import urllib.request
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from reslearn.data.errors import DataError
from reslearn.progress import progress_bar

_LOCK = ".lock"
_CHUNK_BYTES = 1 << 18
_MAX_FRUITLESS_ATTEMPTS = 4  # consecutive attempts without a new byte
_TIMEOUT_SECONDS = 30.0
_NETWORK_ERRORS = (
    urllib.error.URLError,
    http.client.HTTPException,
    ConnectionError,
    TimeoutError,
)
# HTTP status codes after which another attempt is pointless.
_PERMANENT_REFUSALS = (400, 401, 403, 404, 410, 451)


def fetch(
    address: str,
    archive: Path,
    *,
    md5: str | None = None,
    sha256: str | None = None,
    pause_seconds: float = 1.0,
) -> None:
    """Download `address` to `archive`, with longer pauses while nothing arrives.

    Received bytes are stored in `archive`.part. They stay for the next attempt unless their digest
    is wrong.

    Args:
        md5: The published digest, or its first digits.
        sha256: The published digest, or its first digits.

    Raises:
        DataError: Without a network, on a full disk, or if a digest is wrong.
    """
    part = archive.with_name(archive.name + ".part")
    num_fruitless = 0
    while True:
        size_before = _size(part)
        try:
            if _append(address, part):
                break
            reason = "the connection was cut"
        except urllib.error.HTTPError as error:
            error.close()  # the answer holds the connection open
            reason = f"{error.code} {error.reason}"
            if error.code in _PERMANENT_REFUSALS:
                raise _failure(address, archive, reason) from None
        except _NETWORK_ERRORS as error:
            reason = str(getattr(error, "reason", "") or error) or type(error).__name__
        num_fruitless = 0 if _size(part) > size_before else num_fruitless + 1
        if num_fruitless == _MAX_FRUITLESS_ATTEMPTS:
            raise _failure(address, archive, reason)
        time.sleep(pause_seconds * num_fruitless)
    if md5 is not None:
        verify(part, md5, discard=True)
    if sha256 is not None:
        verify(part, sha256, discard=True, algorithm="sha256")
    part.rename(archive)


def _failure(address: str, archive: Path, reason: str) -> DataError:
    return DataError(
        f"cannot download {address} ({reason}): download it yourself and save it as {archive}"
    )


def _append(address: str, part: Path) -> bool:
    """Request the missing bytes in one connection and append them to `part`.

    Returns:
        Whether `part` is complete.
    """
    num_bytes = _size(part)
    headers = {"Range": f"bytes={num_bytes}-"} if num_bytes else {}
    request = urllib.request.Request(address, headers=headers)
    try:
        response = urllib.request.urlopen(request, timeout=_TIMEOUT_SECONDS)
    except urllib.error.HTTPError as error:
        if error.code == 416 and num_bytes:
            # The server has no more bytes: `part` is complete, or foreign, which the digest shows.
            error.close()
            return True
        raise
    with response:
        content_range = response.headers.get("Content-Range", "")
        resumes = response.status == 206 and content_range.startswith(f"bytes {num_bytes}-")
        if not resumes:  # a server without ranges sends everything again
            num_bytes = 0
        length = response.headers.get("Content-Length")
        total = num_bytes + int(length) if length else None
        with (
            part.open("ab" if resumes else "wb") as file,
            progress_bar(part.stem, total, in_bytes=True) as advance,
        ):
            advance(num_bytes)
            while chunk := response.read(_CHUNK_BYTES):
                file.write(chunk)
                advance(len(chunk))
    return total is None or _size(part) == total


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def verify(archive: Path, published: str, *, discard: bool = False, algorithm: str = "md5") -> None:
    """Raise DataError unless the digest of `archive` begins with `published`.

    Args:
        published: The published digest, or its first digits.
        discard: Remove an archive with another digest, so that the next attempt starts over.
    """
    with archive.open("rb") as file:
        digest = hashlib.file_digest(
            file, lambda: hashlib.new(algorithm, usedforsecurity=False)
        ).hexdigest()
    if published and digest.startswith(published):
        return
    if discard:
        archive.unlink()
    removed = "; it was removed, try again" if discard else ""
    raise DataError(
        f"{archive} is not the published archive: "
        f"{algorithm} {digest}, published {published}{removed}"
    )


def unpack(archive: Path, folder: str) -> None:
    """Unpack the top folder `folder` of a tar archive beside it, completely or not at all.

    Nothing is written outside.

    Raises:
        DataError: If the archive is truncated or unsafe, or has no such folder.
    """
    with tempfile.TemporaryDirectory(dir=archive.parent, prefix=".unpacking-") as temporary:
        try:
            with tarfile.open(archive) as tar:
                tar.extractall(temporary, filter="data")
        except (tarfile.TarError, EOFError, zlib.error) as error:
            raise DataError(f"{archive} cannot be unpacked: {error}") from None
        inner = Path(temporary) / folder
        if not inner.is_dir():
            raise DataError(f"{archive} has no folder {folder}")
        inner.rename(archive.parent / folder)


@contextmanager
def locked_folder(folder: Path) -> Iterator[None]:
    """Lock a data folder, creating it if needed, so that concurrent runs download only once.

    A folder that was created for nothing, because nothing could be downloaded, is removed again.

    Raises:
        DataError: If the folder cannot be created or written, or the disk is full.
    """
    new_folders = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        descriptor = _lock(folder)
        try:
            yield
        finally:
            if new_folders and [path.name for path in folder.iterdir()] == [_LOCK]:
                (folder / _LOCK).unlink()
                _remove_empty(new_folders)
            os.close(descriptor)
    except OSError as error:
        _remove_empty(new_folders)
        raise DataError(f"cannot write into {folder}: {error.strerror or error}") from None


def _remove_empty(folders: Sequence[Path]) -> None:
    """Remove the folders, the innermost first, until one is missing or holds something."""
    with suppress(OSError):
        for path in folders:
            if path.exists():
                path.rmdir()


def _lock(folder: Path) -> int:
    """Return the descriptor of the locked file. The lock ends when the descriptor is closed."""
    while True:
        folder.mkdir(parents=True, exist_ok=True)
        try:
            descriptor = os.open(folder / _LOCK, os.O_CREAT | os.O_RDWR, 0o644)
        except FileNotFoundError:  # another process has just removed its empty folder
            continue
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        # The owner before may have removed the file while this process waited for it.
        if os.fstat(descriptor).st_nlink:
            return descriptor
        os.close(descriptor)


def search_folders(data_dir: Path | None = None) -> list[Path]:
    """Return the folders that may hold data sets, in the order of the search.

    These are `data_dir`, RESLEARN_DATA and ~/.cache/reslearn/data. A download goes to the first.
    """
    folders = [Path.home() / ".cache" / "reslearn" / "data"]
    for folder in (os.environ.get("RESLEARN_DATA"), data_dir):
        if folder:
            folders.insert(0, Path(folder).expanduser())
    return folders
