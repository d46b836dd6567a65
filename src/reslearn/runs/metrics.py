"""metrics.jsonl: one JSON object per line, appended while a run trains."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from reslearn.runs.json_files import RunError, parse_object

_END_BYTES = 8192


def append_record(path: Path, record: Mapping[str, Any]) -> None:
    """Append one line.

    Raises:
        ValueError: If a number is not finite, since JSON has no such numbers.
    """
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(record, allow_nan=False) + "\n")


def read_records(path: Path, kind: str | None) -> list[dict[str, Any]]:
    """Return the lines, except a last line that is incomplete. `kind` selects some of them."""
    if not path.exists():
        return []
    records = []
    with path.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            if not line.endswith(b"\n"):
                break
            record = parse_object(path, line, location=f", line {number}")
            if kind is None or record["kind"] == kind:
                records.append(record)
    return records


def newest_record(path: Path, kind: str) -> dict[str, Any] | None:
    """Return the newest complete line of a kind, or None. Only the end of the file is read."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - _END_BYTES))
            lines = file.read().split(b"\n")
    except OSError:
        return None
    complete_lines = lines[:-1]
    for line in reversed(complete_lines):
        # The first line may be the end of a longer one.
        with contextlib.suppress(RunError):
            record = parse_object(path, line)
            if record["kind"] == kind:
                return record
    return None


def sync_and_measure(path: Path) -> tuple[int, str]:
    """Sync the file. Return its size in bytes and the digest of its content."""
    if not path.exists():
        return 0, _sha256(b"")
    with path.open("rb") as file:
        os.fsync(file.fileno())
        content = file.read()
    return len(content), _sha256(content)


def truncate(path: Path, num_bytes: int, sha256: str) -> None:
    """Cut the file to the size at a checkpoint; the run will write the rest again.

    Raises:
        RunError: If the file is shorter than that, or its beginning was changed.
    """
    content = b""
    if path.exists():
        with path.open("rb") as file:
            content = file.read(num_bytes)
    if len(content) < num_bytes or _sha256(content) != sha256:
        raise RunError(
            f"{path} is shorter than at the last checkpoint, or was changed since: "
            "train again in another folder"
        )
    if path.exists():
        os.truncate(path, num_bytes)


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
