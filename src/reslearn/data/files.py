"""Picture files that stay on disk: each is read when it is needed (ImageNet has 1.28 million).

The names of all pictures are one byte string plus the positions where they end. With row and label
this takes about 55 bytes per picture, much less than a million `Path` objects.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Bool, Int64
from torch import Tensor

from reslearn.data.errors import PictureError
from reslearn.data.images import check_range, evenly_spaced_indices
from reslearn.data.pictures import Pixels, open_picture
from reslearn.data.skipped import SkipLog, SkippedImage, report_skipped

Item = TypeVar("Item")
Output = TypeVar("Output")


@dataclass(frozen=True, kw_only=True, eq=False)
class Files:
    """Labeled images that stay on disk, as picture files of any size; see `Images` for memory.

    Subsets share the names.

    Attributes:
        names: All names, relative to `folder`, without separators.
        ends: Position in `names` where each name ends.
        rows: Image i has the `rows[i]`-th name.
        labels: Image i has class `labels[i]`.
        size_px: Side of the square that a network sees of each picture.
        skip_log: The images that could not be read so far.
    """

    folder: Path
    names: bytes
    ends: npt.NDArray[np.int64]
    rows: Int64[Tensor, n]
    labels: Int64[Tensor, n]
    size_px: int
    channels: int = 3
    skip_log: SkipLog = field(default_factory=SkipLog)

    def __len__(self) -> int:
        return len(self.rows)

    def path(self, index: int) -> Path:
        """Return the file of image `index`."""
        row = int(self.rows[index])
        start = int(self.ends[row - 1]) if row else 0
        return self.folder / os.fsdecode(self.names[start : int(self.ends[row])])

    def __getitem__(self, index: int) -> tuple[Pixels, int]:
        """Return one whole image [H, W, 3] and its label.

        Raises:
            DataError: If the file cannot be read. The message names it.
        """
        return np.asarray(open_picture(self.path(index))), int(self.labels[index])

    def attempt(self, index: int, read: Callable[[Path], Output]) -> Output | SkippedImage:
        """Return `read(path)` of image `index`, or the skipped image if it cannot be read.

        A skipped image is added to `skip_log`.
        """
        try:
            return read(self.path(index))
        except PictureError as error:
            skipped = SkippedImage(self.path(index), error.reason)
            self.skip_log.add(skipped)
            return skipped

    def read_groups(
        self, read: Callable[[Path], Output], *, group_size: int
    ) -> Iterator[list[tuple[int, Output]]]:
        """Yield (index, `read(path)`) of all images in order, up to `group_size` in each list.

        Images that cannot be read are left out, and a warning says how many.

        Raises:
            DataError: At the end, if more than half of them cannot be read.
        """
        results = map_in_order(
            lambda index: self.attempt(index, read), range(len(self)), num_ahead=group_size
        )
        skipped = []
        for start in range(0, len(self), group_size):
            group = []
            for index in range(start, min(start + group_size, len(self))):
                result = next(results)
                if isinstance(result, SkippedImage):
                    skipped.append(result)
                else:
                    group.append((index, result))
            if group:
                yield group
        report_skipped(skipped, len(self), of=f"images of {self.folder}")

    def readable(self) -> Files:
        """Return the images without the unreadable ones that are known so far."""
        if not len(self.skip_log):
            return self
        rows = [index for index in range(len(self)) if self.path(index) not in self.skip_log]
        return self.select(torch.tensor(rows, dtype=torch.int64))

    def subset(self, start: int, stop: int) -> Files:
        """Return images `start` to `stop - 1`, in order."""
        check_range(start, stop, len(self))
        return self.select(torch.arange(start, stop))

    def evenly_spaced(self, num_images: int) -> Files:
        """Return `num_images` evenly spaced images, or all if there are no more."""
        if num_images >= len(self):
            return self
        return self.select(evenly_spaced_indices(num_images, len(self)))

    def select(self, index: Int64[Tensor, m] | Bool[Tensor, n]) -> Files:
        """Return the images at the given indices, or those where a mask is True."""
        return replace(self, rows=self.rows[index], labels=self.labels[index])

    def joined(self, files: Files) -> Files:
        """Return these images and then `files`, another subset of the same names."""
        rows, labels = torch.cat([self.rows, files.rows]), torch.cat([self.labels, files.labels])
        return replace(self, rows=rows, labels=labels)


def map_in_order(
    function: Callable[[Item], Output], items: Iterable[Item], *, num_ahead: int
) -> Iterator[Output]:
    """Yield `function(item)` for each item, in order, computed ahead by one thread per core.

    Pillow releases the interpreter lock, so decoding pictures runs in parallel.

    Args:
        num_ahead: At most this many results are computed before they are asked for.
    """
    pending: deque[Callable[[], Output]] = deque()
    pool = ThreadPoolExecutor(os.cpu_count() or 1)
    try:
        for item in items:
            pending.append(pool.submit(function, item).result)
            if len(pending) > num_ahead:
                yield pending.popleft()()
        while pending:
            yield pending.popleft()()
    finally:
        pool.shutdown(cancel_futures=True)
