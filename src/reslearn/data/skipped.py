"""Images that cannot be read: left out, counted and listed. They never end a training.

If more than half of a set cannot be read, something else is wrong, and the set is refused.
"""

import threading
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reslearn.data.errors import DataError

MAX_SKIPPED_IN_A_ROW = 100  # by chance only if nearly all images are broken
_MAX_LISTED = 20  # in the record of a run


@dataclass(frozen=True, order=True)
class SkippedImage:
    """An image that was left out, and why."""

    path: Path
    reason: str


class SkipLog:
    """The images of a data set that could not be read so far. All its subsets share one log."""

    def __init__(self, images: Sequence[SkippedImage] = ()) -> None:
        self._lock = threading.Lock()
        self._reasons: dict[Path, str] = {}
        for image in images:
            self.add(image)

    def __getstate__(self) -> dict[Path, str]:
        return dict(self._reasons)

    def __setstate__(self, state: dict[Path, str]) -> None:
        self._lock = threading.Lock()
        self._reasons = state

    def __len__(self) -> int:
        return len(self._reasons)

    def add(self, image: SkippedImage) -> None:
        """Add an image that could not be read. Only its first reason is kept."""
        with self._lock:
            self._reasons.setdefault(image.path, image.reason)

    def __contains__(self, path: Path) -> bool:
        return path in self._reasons

    def images(self) -> tuple[SkippedImage, ...]:
        """Return all of them, sorted by path."""
        with self._lock:
            return tuple(sorted(SkippedImage(*item) for item in self._reasons.items()))

    def record(self) -> dict[str, Any]:
        """Return the number and the first 20 as a JSON value."""
        images = self.images()
        first = [
            {"path": str(image.path), "reason": image.reason} for image in images[:_MAX_LISTED]
        ]
        return {"count": len(images), "first": first}


def too_many_skipped(first: SkippedImage) -> str:
    """Return the message for a training that finds no readable image among many in a row."""
    return (
        f"{MAX_SKIPPED_IN_A_ROW} images in a row, or all of them, cannot be read; the first is "
        f"{first.path} ({first.reason}): replace them, or remove the set"
    )


def report_skipped(skipped: Sequence[SkippedImage], num_images: int, *, of: str) -> None:
    """Warn in one line that images were left out.

    Args:
        skipped: The images that could not be read.
        num_images: Number of all images, including these.
        of: Their name, as in "test images".

    Raises:
        DataError: If they are more than half of all, or all.
    """
    if not skipped:
        return
    first = min(skipped)
    line = f"{len(skipped):,} of {num_images:,} {of} cannot be read"
    details = f"the first is {first.path} ({first.reason})"
    if 2 * len(skipped) > num_images:
        raise DataError(f"{line}, more than half of them; {details}: replace them, or the set")
    warnings.warn(f"{line} and are left out; {details}", stacklevel=2)
