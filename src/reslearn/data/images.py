"""Images in memory, once, as uint8: what every source gives and every loader takes.

Shapes: N images, H = W = size_px, C channels. Pixels stay [N, H, W, C], as they are stored on disk by cameras and gathered fastest.
"""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Int64, UInt8
from torch import Tensor

from reslearn.data.errors import DataError


@dataclass(frozen=True, eq=False)
class Images:
    """Labeled images. `subset` shares memory, nothing here copies on the CPU."""

    pixels: UInt8[Tensor, "n h w c"]
    labels: Int64[Tensor, "n"]

    def __post_init__(self) -> None:
        assert self.pixels.ndim == 4, self.pixels.shape
        assert self.pixels.dtype == torch.uint8, self.pixels.dtype
        assert self.labels.shape == self.pixels.shape[:1], (self.labels.shape, self.pixels.shape)
        assert self.labels.dtype == torch.int64, self.labels.dtype

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[npt.NDArray[np.uint8], int]:
        """One image [H, W, C] and its label: what the per-image path reads."""
        return self.pixels[index].numpy(), int(self.labels[index])

    def subset(self, start: int, stop: int) -> "Images":
        """Images start to stop - 1, in order, sharing memory."""
        check_range(start, stop, len(self))
        return Images(self.pixels[start:stop], self.labels[start:stop])

    def spread(self, num_images: int) -> "Images":
        """`num_images` of these (all, where there are no more), evenly spaced, so that sorted classes keep their shares."""
        if num_images >= len(self):
            return self
        index = evenly_spread(num_images, len(self))
        return Images(self.pixels[index], self.labels[index])

    @property
    def size_px(self) -> int:
        return self.pixels.shape[1]

    @property
    def channels(self) -> int:
        return self.pixels.shape[3]

    def to(self, device: torch.device | str) -> "Images":
        """The same images on a device; itself where they are there already."""
        return Images(self.pixels.to(device), self.labels.to(device))


def fingerprint(parts: Iterable[Images | None]) -> str:
    """16 hex digits of a sha256 over shapes, pixels and labels: the same images give the same digits, whatever file they came from.

    0.1 to 0.5 s for CIFAR-10.
    """
    digest = hashlib.sha256()
    for images in parts:
        if images is not None:
            digest.update(repr(tuple(images.pixels.shape)).encode())
            digest.update(images.pixels.numpy().data)
            digest.update(images.labels.numpy().data)
    return digest.hexdigest()[:16]


def check_range(start: int, stop: int, num_images: int) -> None:
    """Refuse a part that does not lie within the images."""
    if not 0 <= start < stop <= num_images:
        raise DataError(
            f"images {start} to {stop} were asked for; there are {num_images}, counted from 0"
        )


def evenly_spread(num_images: int, of: int) -> Int64[Tensor, "n"]:
    """Indices of `num_images` out of `of` images."""
    if num_images < 1:
        raise DataError(f"{num_images} images were asked for; allowed are 1 and more")
    return torch.arange(num_images) * of // num_images


def check_size(size: int, size_px: int | None, *, name: str) -> None:
    """Refuse a size that is no whole fraction of `size`."""
    if size_px is not None and (not 0 < size_px <= size or size % size_px):
        allowed = ", ".join(str(smaller) for smaller in range(size, 1, -1) if size % smaller == 0)
        raise DataError(
            f"size_px = {size_px}: {name} has {size} x {size} pixels; allowed are {allowed}"
        )


def shrink(
    pixels: UInt8[Tensor, "n h w c"], size_px: int | None, *, name: str
) -> UInt8[Tensor, "n s s c"]:
    """Square images made smaller by the mean over whole areas, rounded half up; None keeps their size.

    Raises:
        DataError: unless `size_px` divides the size, so that each new pixel is a whole area of old ones.
    """
    size = pixels.shape[1]
    check_size(size, size_px, name=name)
    if size_px is None or size_px == size:
        return pixels
    factor = size // size_px
    areas = pixels.view(len(pixels), size_px, factor, size_px, factor, pixels.shape[3])
    total = areas.sum(dim=(2, 4), dtype=torch.int32)
    return torch.div(total + factor * factor // 2, factor * factor, rounding_mode="floor").to(
        torch.uint8
    )
