"""Images that stay on disk: class folders are listed, a picture is read when it is asked for (ImageNet: 1.28 million of them).

The names of all pictures are one text with the places where they end: with row and label some 55 bytes a picture (no million `Path`s).
"""

import hashlib
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Bool, Int64
from torch import Tensor

from reslearn.data.counter import permutation
from reslearn.data.errors import DataError
from reslearn.data.images import check_range, evenly_spread
from reslearn.data.pictures import Pixels, open_picture

SUFFIXES = frozenset(
    (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm")
)
Given = TypeVar("Given")
Made = TypeVar("Made")


@dataclass(frozen=True, kw_only=True, eq=False)
class Files:
    """Labeled picture files; their pixels may have any size. `size_px` is the side of what a network is to see of them.

    Image i is the `rows[i]`-th name of the listing, and of class `labels[i]`. Parts of a set share its names.
    """

    folder: Path
    names: bytes
    ends: npt.NDArray[np.int64]
    rows: Int64[Tensor, "n"]
    labels: Int64[Tensor, "n"]
    size_px: int
    channels: int = 3

    def __len__(self) -> int:
        return len(self.rows)

    def path(self, index: int) -> Path:
        """The file of image `index`."""
        row = int(self.rows[index])
        start = int(self.ends[row - 1]) if row else 0
        return self.folder / os.fsdecode(self.names[start : int(self.ends[row])])

    def __getitem__(self, index: int) -> tuple[Pixels, int]:
        """One image [H, W, 3], whole, and its label. DataError, naming the file, where it cannot be read."""
        return np.asarray(open_picture(self.path(index))), int(self.labels[index])

    def subset(self, start: int, stop: int) -> "Files":
        """Images start to stop - 1, in order."""
        check_range(start, stop, len(self))
        return self.at(torch.arange(start, stop))

    def spread(self, num_images: int) -> "Files":
        """`num_images` of these (all, where there are no more), evenly spaced."""
        return self if num_images >= len(self) else self.at(evenly_spread(num_images, len(self)))

    def at(self, index: Int64[Tensor, "m"] | Bool[Tensor, "n"]) -> "Files":
        """The images that a tensor of indices, or a mask, chooses."""
        return replace(self, rows=self.rows[index], labels=self.labels[index])


def classes_of(folder: Path) -> list[str]:
    """The class folders that hold pictures, in alphabetical order. DataError where there are fewer than two."""
    classes = sorted(
        entry.name for entry in _visible(folder) if entry.is_dir() and _has_pictures(entry.path)
    )
    if len(classes) < 2:
        found = f"only {classes[0]!r}" if classes else "none"
        raise DataError(
            f"{folder} has {found}: two or more class folders with images ({', '.join(sorted(SUFFIXES))}) are needed"
        )
    return classes


def list_files(
    folder: Path, classes: Sequence[str], *, size_px: int, digest: "hashlib._Hash"
) -> Files:
    """All pictures below the class folders, in drawn order; feeds `digest` each name and size in bytes.

    Raises:
        DataError: for a class of its own, no picture at all, a folder that cannot be read, or empty files (their number and the first).
    """
    foreign = sorted(
        entry.name
        for entry in _visible(folder)
        if entry.name not in classes and entry.is_dir() and _has_pictures(entry.path)
    )
    if foreign:
        raise DataError(
            f"{folder} has class {foreign[0]!r}, which is not among the training classes {', '.join(classes)}"
        )
    names, empty = bytearray(), []
    ends: list[int] = []
    counts = []
    for label in classes:
        before = len(ends)
        for entry in _pictures(folder / label) if (folder / label).is_dir() else ():
            name = os.fsencode(os.path.relpath(entry.path, folder))
            size = entry.stat().st_size
            digest.update(name + b"\0%d\n" % size)
            names += name
            ends.append(len(names))
            if size == 0:
                empty.append(entry.path)
        counts.append(len(ends) - before)
    if not ends:
        raise DataError(f"{folder} has no images of {', '.join(classes)}")
    if empty:
        raise DataError(
            f"{len(empty)} of {len(ends)} images are empty files, the first is {empty[0]}: remove or replace them"
        )
    order = permutation(0, 0, len(ends))
    labels = torch.arange(len(classes)).repeat_interleave(torch.tensor(counts))
    return Files(
        folder=folder,
        names=bytes(names),
        ends=np.array(ends),
        rows=order,
        labels=labels[order],
        size_px=size_px,
    )


def in_order(
    make: Callable[[Given], Made], given: Iterable[Given], *, ahead: int
) -> Iterator[Made]:
    """`make` of each, in order, by a thread a core, up to `ahead` before they are asked for: Pillow lets threads run side by side."""
    waiting: deque[Callable[[], Made]] = deque()
    pool = ThreadPoolExecutor(os.cpu_count() or 1)
    try:
        for one in given:
            waiting.append(pool.submit(make, one).result)
            if len(waiting) > ahead:
                yield waiting.popleft()()
        while waiting:
            yield waiting.popleft()()
    finally:
        pool.shutdown(cancel_futures=True)


def _visible(folder: Path | str) -> list["os.DirEntry[str]"]:
    try:
        with os.scandir(folder) as entries:
            return sorted(
                (entry for entry in entries if not entry.name.startswith(".")),
                key=lambda entry: entry.name,
            )
    except OSError as error:
        raise DataError(f"cannot read {folder}: {error.strerror}") from None


def _pictures(folder: Path | str) -> Iterator["os.DirEntry[str]"]:
    for entry in _visible(folder):
        if entry.is_dir():
            yield from _pictures(entry.path)
        elif os.path.splitext(entry.name)[1].lower() in SUFFIXES:
            yield entry


def _has_pictures(folder: str) -> bool:
    return next(_pictures(folder), None) is not None
