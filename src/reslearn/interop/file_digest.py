"""The digest inside a safetensors file that reslearn writes. One changed bit is noticed.

The metadata hold the SHA-256 of the whole file, in which the digest itself is replaced by zeros.
So a file keeps its digest wherever it is copied.
"""

import hashlib
import re
from pathlib import Path

DIGEST_KEY = "reslearn.sha256"
PLACEHOLDER = "0" * 64
_ENTRY = re.compile(rb'"reslearn\.sha256":"([^"]*)"')
_CHUNK_BYTES = 1 << 20


def fill_digest(content: bytes) -> bytes:
    """Return a safetensors file whose metadata map DIGEST_KEY to PLACEHOLDER, with its digest."""
    match = _ENTRY.search(content)
    assert match is not None
    begin, end = match.span(1)
    sha256 = hashlib.sha256(content).hexdigest().encode()
    return b"".join((content[:begin], sha256, content[end:]))


def is_intact(path: Path) -> bool:
    """Return whether the digest in a safetensors file fits the file. False if it has none.

    Raises:
        OSError: If the file cannot be read.
    """
    with path.open("rb") as file:
        length = file.read(8)
        header = file.read(min(int.from_bytes(length, "little"), path.stat().st_size))
        match = _ENTRY.search(header)
        if match is None:
            return False
        begin, end = match.span(1)
        sha256 = hashlib.sha256(length + header[:begin] + PLACEHOLDER.encode() + header[end:])
        while chunk := file.read(_CHUNK_BYTES):
            sha256.update(chunk)
    return match[1] == sha256.hexdigest().encode()
