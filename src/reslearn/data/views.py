"""Which image is seen when, and through which crop and mirror: the paper's augmentation (Sec. 4.2) as a table.

Position p counts the images shown since the start of training: epoch p // N, place p % N in that epoch's permutation. Epochs are
joined, so every batch is full and step t shows positions t * batch_size and on. Draws depend on (seed, epoch, index of the image).
"""

from dataclasses import dataclass
from functools import lru_cache

import torch
from jaxtyping import Bool, Int64
from torch import Tensor

from reslearn.data.counter import Stream, below, draw, permutation


@dataclass(frozen=True, kw_only=True)
class Augment:
    """Paper: 4 pixels padded on each side, a random crop of the original size, mirrored or not (Sec. 4.2)."""

    pad_px: int = 4
    flip: bool = True
    crop: bool = True

    def __post_init__(self) -> None:
        if self.pad_px < 0:
            raise ValueError(f"pad_px = {self.pad_px}: allowed are 0 and more")

    @property
    def reach_px(self) -> int:
        """How far a crop may be shifted to either side."""
        return self.pad_px if self.crop else 0


PAPER_AUGMENT = Augment()


@dataclass(frozen=True, eq=False)
class Views:
    """One row a shown image: its index, the crop's corner in the padded image (0 ... 2 * reach_px), and whether it is mirrored."""

    index: Int64[Tensor, "n"]
    top: Int64[Tensor, "n"]
    left: Int64[Tensor, "n"]
    flip: Bool[Tensor, "n"]

    def rows(self, start: int, stop: int) -> "Views":
        return Views(
            self.index[start:stop],
            self.top[start:stop],
            self.left[start:stop],
            self.flip[start:stop],
        )


@lru_cache(maxsize=4)
def epoch_views(
    seed: int, epoch: int, num_images: int, augment: Augment, device: torch.device | str = "cpu"
) -> Views:
    """All views of an epoch in the order in which they are shown; about 10 ms for 50,000 images, remembered for a few epochs."""
    index = permutation(seed, epoch, num_images, device)
    num_offsets = 2 * augment.reach_px + 1
    return Views(
        index,
        below(num_offsets, draw(seed, Stream.ROW, epoch, index)),
        below(num_offsets, draw(seed, Stream.COLUMN, epoch, index)),
        below(1 + augment.flip, draw(seed, Stream.FLIP, epoch, index)).bool(),
    )


@dataclass(frozen=True, kw_only=True)
class ViewSequence:
    """The endless sequence of views of a training: nothing but its four arguments, so it travels to any worker."""

    seed: int
    num_images: int
    augment: Augment
    device: torch.device | str = "cpu"

    def __post_init__(self) -> None:
        if self.num_images < 1:
            raise ValueError(f"there are {self.num_images} training images; at least 1 is needed")

    def between(self, start: int, stop: int) -> Views:
        """Positions start to stop - 1, over as many epochs as they touch."""
        assert 0 <= start < stop
        num = self.num_images
        epochs = range(start // num, (stop - 1) // num + 1)
        parts = [
            self._epoch(epoch).rows(max(start - epoch * num, 0), stop - epoch * num)
            for epoch in epochs
        ]
        if len(parts) == 1:
            return parts[0]
        return Views(
            *(
                torch.cat([getattr(part, column) for part in parts])
                for column in ("index", "top", "left", "flip")
            )
        )

    def _epoch(self, epoch: int) -> Views:
        return epoch_views(self.seed, epoch, self.num_images, self.augment, self.device)
