"""What a user types as pictures: files, folders, globs, http(s) addresses, and - for stdin.

`expand` yields one `PictureSource` per picture. A source that cannot be read yields an
`UnreadableSource` instead, or raises DataError when its `content` is read, so that one broken
picture does not stop the others.

Standard input holds one picture, or names of pictures, one per line. Text is names: pictures hold
bytes that are no UTF-8 text.
"""

from __future__ import annotations

import glob
import io
import re
import time
import urllib.error
import urllib.request
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

from reslearn.data import DataError
from reslearn.data.walk import Omissions, folder_identity, pictures_below

STDIN = "-"
MAX_BYTES = 128 * 2**20
"""Largest number of bytes of a picture from an address or from standard input."""
TIMEOUT_SECONDS = 30.0
"""A download may take so long as a whole."""
_ADDRESS = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+)://")
_CHUNK_BYTES = 2**16
_PEEKED_BYTES = 2**12


@dataclass(frozen=True)
class PictureSource:
    """One picture that can be read.

    Attributes:
        name: The path or address as the user wrote it, or as the folder lists it.
    """

    name: str
    _bytes: bytes | None = None

    def content(self) -> Path | bytes:
        """Return the path of the file, or the bytes of a download.

        Raises:
            DataError: If an address cannot be read.
        """
        if self._bytes is not None:
            return self._bytes
        return download(self.name) if _ADDRESS.match(self.name) else Path(self.name)


@dataclass(frozen=True)
class UnreadableSource:
    """A text of the user that leads to no picture, and why."""

    name: str
    reason: str

    @property
    def message(self) -> str:
        """Return one line that names the source."""
        return f"{self.name} cannot be read ({self.reason})"


Source = PictureSource | UnreadableSource


def expand(texts: Iterable[str], stdin: BinaryIO | None = None) -> Iterator[Source]:
    """Yield the pictures of each text, in order. Pictures of a folder are sorted by name.

    Args:
        texts: Paths, globs, http(s) addresses, or "-".
        stdin: Where "-" reads.
    """
    for text in texts:
        if text == STDIN:
            yield from _of_stdin(stdin)
        else:
            yield from _of_text(text)


def _of_text(text: str) -> Iterator[Source]:
    scheme = _ADDRESS.match(text)
    if scheme:
        if scheme[1].lower() in ("http", "https"):
            yield PictureSource(text)
        else:
            yield UnreadableSource(text, f"{scheme[1]}:// is not allowed: use http or https")
        return
    path = Path(text)
    if path.is_dir():
        yield from _of_folder(path)
    elif path.is_file():
        yield PictureSource(text)
    elif path.exists():  # a pipe or a device may never end
        yield UnreadableSource(text, "it is not a regular file")
    elif not glob.has_magic(text):
        yield UnreadableSource(text, "there is no such file")
    else:
        matches = sorted(glob.glob(text, recursive=True))
        if not matches:
            yield UnreadableSource(text, "no file matches")
        for match in matches:
            yield from _of_folder(Path(match)) if Path(match).is_dir() else [PictureSource(match)]


def _of_folder(folder: Path) -> Iterator[Source]:
    is_empty = True
    try:
        ancestors = frozenset([folder_identity(folder)])
        for entry in pictures_below(folder, "", Omissions(), ancestors):
            is_empty = False
            yield PictureSource(entry.path)
    except DataError as error:
        yield UnreadableSource(str(folder), str(error))
        return
    if is_empty:
        yield UnreadableSource(str(folder), "the folder holds no pictures")


def _of_stdin(stdin: BinaryIO | None) -> Iterator[Source]:
    if stdin is None:
        raise ValueError("- reads standard input, which is not available here")
    # Only a buffered reader can look at the first bytes without taking them.
    stream: Any = stdin if hasattr(stdin, "peek") else io.BufferedReader(cast("Any", stdin))
    start = stream.peek(_PEEKED_BYTES)[:_PEEKED_BYTES]
    if not start:
        yield UnreadableSource(STDIN, "standard input is empty")
    elif _is_text(start):
        for line in stream:
            name = line.decode("utf-8", "surrogateescape").rstrip("\r\n")
            if name:
                yield from _of_text(name)
    else:
        content = stream.read(MAX_BYTES + 1)
        if len(content) > MAX_BYTES:
            yield UnreadableSource(STDIN, f"more than {MAX_BYTES / 2**20:.0f} MiB")
        else:
            yield PictureSource(STDIN, content)


def _is_text(start: bytes) -> bool:
    """Return whether the first bytes are names. A letter may be cut at the end of them."""
    if b"\0" in start:
        return False
    try:
        start.decode("utf-8")
    except UnicodeDecodeError as error:
        return error.start > len(start) - 4 and error.reason == "unexpected end of data"
    return True


def download(
    address: str, *, max_bytes: int = MAX_BYTES, timeout_seconds: float = TIMEOUT_SECONDS
) -> bytes:
    """Download a picture.

    Redirects lead to http and https only; no other scheme is ever opened.

    Raises:
        DataError: If it takes too long, is too large, or cannot be downloaded.
    """
    end = time.monotonic() + timeout_seconds
    request = urllib.request.Request(address, headers={"User-Agent": "reslearn"})
    content = bytearray()
    try:
        with _opener().open(request, timeout=timeout_seconds) as response:
            # read1 returns after one packet, so a slow server cannot hold the deadline up.
            while chunk := response.read1(_CHUNK_BYTES):
                content += chunk
                if len(content) > max_bytes:
                    raise DataError(
                        f"{address} cannot be read (more than {max_bytes / 2**20:.0f} MiB): "
                        "download it yourself"
                    )
                if time.monotonic() > end:
                    raise TimeoutError
    except TimeoutError:
        raise DataError(
            f"{address} cannot be read (not downloaded within {timeout_seconds:.0f} seconds): "
            "try again, or download it yourself"
        ) from None
    except (OSError, ValueError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{address} cannot be read ({_reason(error)})") from None
    return bytes(content)


def _opener() -> urllib.request.OpenerDirector:
    """Return an opener without handlers for files, FTP and data addresses."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler,
        urllib.request.UnknownHandler,
        urllib.request.HTTPHandler,
        urllib.request.HTTPSHandler,
        urllib.request.HTTPDefaultErrorHandler,
        urllib.request.HTTPRedirectHandler,
        urllib.request.HTTPErrorProcessor,
    ):
        opener.add_handler(handler())
    return opener


def _reason(error: Exception) -> str:
    if isinstance(error, urllib.error.HTTPError):
        return f"the server answered {error.code}"
    reason = getattr(error, "reason", None) or error
    if isinstance(reason, OSError) and reason.strerror:
        return reason.strerror
    return str(reason).splitlines()[0] if str(reason) else type(error).__name__
