"""Digests that bind the files of a run to each other, so that damage and edits are noticed."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

# The line that ends a checkpoint: "sha256", 64 hex digits, newline.
CHECKPOINT_END_BYTES = 72


def digest(*parts: Any) -> str:
    """Return 16 hex digits over JSON values, independent of their spacing.

    The last part is an object whose "checksum" is ignored.
    """
    *first_parts, last_part = parts
    fields = {key: value for key, value in last_part.items() if key != "checksum"}
    text = json.dumps([*first_parts, fields], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def checkpoint_end(content: bytes | memoryview) -> bytes:
    """Return the line that follows the content of a checkpoint."""
    return f"sha256 {hashlib.sha256(content).hexdigest()}\n".encode()


def as_read(value: Mapping[str, Any]) -> dict[str, Any]:
    """Return `value` as it will be read from JSON: tuples become lists, keys become texts."""
    copy: dict[str, Any] = json.loads(json.dumps(value))
    return copy
