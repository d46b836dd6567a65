"""Archives from their published address: resumed where a connection was cut, verified by md5, unpacked aside and then renamed.

Whatever happens in the middle, a folder that is there is a whole one.
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
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from reslearn.data.errors import DataError
from reslearn.progress import progress_bar

_CHUNK_BYTES = 1 << 18
_ATTEMPTS = 4  # this many in a row that brought nothing, and we give up
_TIMEOUT_SECONDS = 30.0
_NEVER = (400, 401, 403, 404, 410, 451)  # a server that says so says it again


def fetch(
    address: str,
    archive: Path,
    *,
    md5: str | None = None,
    sha256: str | None = None,
    pause_seconds: float = 1.0,
) -> None:
    """Download `address` to `archive`, keeping what has come in `archive`.part, with longer pauses while nothing comes.

    md5 or sha256: the published digest, or the first digits of it.

    Raises:
        DataError: without network, on a full disk, or if the digest is wrong; what came stays for the next attempt unless it is wrong.
    """
    part = archive.with_name(archive.name + ".part")
    fruitless = 0
    while True:
        before = _size(part)
        try:
            if _append(address, part):
                break
            reason = "the connection was cut"
        except (
            urllib.error.URLError,
            http.client.HTTPException,
            ConnectionError,
            TimeoutError,
        ) as error:
            reason = str(getattr(error, "reason", "") or error) or type(error).__name__
            if isinstance(error, urllib.error.HTTPError) and error.code in _NEVER:
                raise DataError(
                    f"cannot download {address} ({error.code} {reason}): put what is meant at {archive}"
                ) from None
        fruitless = 0 if _size(part) > before else fruitless + 1
        if fruitless == _ATTEMPTS:
            raise DataError(f"cannot download {address} ({reason}): put what is there at {archive}")
        time.sleep(pause_seconds * fruitless)
    if md5 is not None:
        verify(part, md5, discard=True)
    if sha256 is not None:
        verify(part, sha256, discard=True, algorithm="sha256")
    part.rename(archive)


def _append(address: str, part: Path) -> bool:
    """One connection: ask for what is missing and write what comes. True when all is there."""
    have = _size(part)
    request = urllib.request.Request(address, headers={"Range": f"bytes={have}-"} if have else {})
    try:
        response = urllib.request.urlopen(request, timeout=_TIMEOUT_SECONDS)
    except urllib.error.HTTPError as error:
        if (
            error.code == 416 and have
        ):  # nothing beyond what is here: all has come, or it is not ours; the md5 tells
            return True
        raise
    with response:
        resumed = response.status == 206 and response.headers.get("Content-Range", "").startswith(
            f"bytes {have}-"
        )
        have = have if resumed else 0  # a server without ranges sends all anew
        length = response.headers.get("Content-Length")
        total = have + int(length) if length else None
        with (
            part.open("ab" if resumed else "wb") as file,
            progress_bar(part.stem, total, in_bytes=True) as advance,
        ):
            advance(have)
            while chunk := response.read(_CHUNK_BYTES):
                file.write(chunk)
                advance(len(chunk))
    return total is None or _size(part) == total


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def verify(archive: Path, published: str, *, discard: bool = False, algorithm: str = "md5") -> None:
    """Refuse an archive with another digest than the published one, or than its first digits where no more are known.

    `discard` removes it, so that the next attempt starts anew.
    """
    with archive.open("rb") as file:
        found = hashlib.file_digest(
            file, lambda: hashlib.new(algorithm, usedforsecurity=False)
        ).hexdigest()
    if not published or found[: len(published)] != published:
        if discard:
            archive.unlink()
        removed = "; it was removed, try again" if discard else ""
        raise DataError(
            f"{archive} is not the published archive: {algorithm} {found}, published {published}{removed}"
        )


def unpack(archive: Path, folder: str) -> None:
    """Unpack the top folder `folder` of a tar archive beside it, whole or not at all; nothing is written outside.

    Raises:
        DataError: where the archive is truncated, not safe, or holds no such folder.
    """
    with tempfile.TemporaryDirectory(dir=archive.parent, prefix=".unpacking-") as aside:
        try:
            with tarfile.open(archive) as tar:
                tar.extractall(aside, filter="data")
        except (tarfile.TarError, EOFError, zlib.error) as error:
            raise DataError(f"{archive} cannot be unpacked: {error}") from None
        inner = Path(aside) / folder
        if not inner.is_dir():
            raise DataError(f"{archive} holds no folder {folder}")
        inner.rename(archive.parent / folder)


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """One process at a time in a data folder: runs of a study that start together download once.

    Raises:
        DataError: where the folder cannot be made or written, or the disk is full.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder / ".lock", os.O_CREAT | os.O_RDWR, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)
    except OSError as error:
        raise DataError(f"cannot write into {folder}: {error.strerror or error}") from None
