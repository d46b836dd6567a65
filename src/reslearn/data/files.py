"""Picture files that stay on disk: each is read when it is needed (ImageNet has 1.28 million).

The names of all pictures are one byte string plus the positions where they end. With row and label
this takes about 55 bytes per picture, much less than a million `Path` objects.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Bool, Int64
from torch import Tensor

from reslearn.data.images import check_range, evenly_spaced_indices
from reslearn.data.pictures import Pixels, open_picture

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
    """

    folder: Path
    names: bytes
    ends: npt.NDArray[np.int64]
    rows: Int64[Tensor, n]
    labels: Int64[Tensor, n]
    size_px: int
    channels: int = 3

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
