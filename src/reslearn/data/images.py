"""Labeled images in memory, and the data set that a source loads.

Shapes: N images, H = W = size_px, C channels. Pixels are uint8 [N, H, W, C]: cameras store them in
this order, and it is the fastest to gather from.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Bool, Float32, Int64, UInt8
from torch import Tensor

from reslearn.data.errors import DataError
from reslearn.data.skipped import SkipLog, SkippedImage

if TYPE_CHECKING:
    from reslearn.data.files import Files

STREAMED_FINGERPRINT = "names+sizes:"

ImageSet: TypeAlias = "Images | Files"
"""One set of images, such as the training images: in memory (`Images`) or on disk (`Files`)."""


@dataclass(frozen=True, kw_only=True, eq=False)
class ImageData:
    """A loaded data set: an `ImageSet` each for training and test, and the names of the classes.

    Attributes:
        validation: None unless the folder has validation images or `split` set them aside.
        is_validation_drawn: The validation images were drawn by the content of their files, so
            `split` may replace them.
        fingerprint: Identifies the source as loaded. `split` does not change it.
        skip_log: Images that cannot be read. Streamed images are added when they are read.
    """

    name: str
    classes: tuple[str, ...]
    train: ImageSet
    test: ImageSet
    validation: ImageSet | None = None
    is_validation_drawn: bool = False
    fingerprint: str
    skip_log: SkipLog = field(default_factory=SkipLog)

    @property
    def skipped(self) -> tuple[SkippedImage, ...]:
        """Return the images that could not be read so far, sorted by path."""
        return self.skip_log.images()

    @property
    def size_px(self) -> int:
        return self.train.size_px

    @property
    def channels(self) -> int:
        return self.train.channels


def split(dataset: ImageData, validation_images: int) -> ImageData:
    """Set the last `validation_images` training images aside for validation (Sec. 4.2: 45k/5k).

    With 0 the data set is returned unchanged. Validation images that were drawn, and not given by
    the layout of a folder, are training images again, and the first to be set aside.

    Raises:
        DataError: If no training image would remain, or the data set already has validation images.
    """
    if validation_images == 0:
        return dataset
    if dataset.validation is not None and dataset.is_validation_drawn:
        train = dataset.train.joined(dataset.validation)  # type: ignore[arg-type]
        dataset = replace(dataset, train=train, validation=None)
    if dataset.validation is not None:
        raise DataError(
            f"validation_images = {validation_images}: {dataset.name} already has "
            f"{len(dataset.validation)} validation images; use 0 to validate on them"
        )
    num_images = len(dataset.train)
    if not 0 < validation_images < num_images:
        raise DataError(
            f"validation_images = {validation_images}: {dataset.name} has {num_images} training "
            f"images; allowed are 0 to {num_images - 1}"
        )
    num_train = num_images - validation_images
    return replace(
        dataset,
        train=dataset.train.subset(0, num_train),
        validation=dataset.train.subset(num_train, num_images),
    )


@dataclass(frozen=True, eq=False)
class WholePictures:
    """Pictures of any shape in one tensor: each is stretched to the same square.

    Random crops are cut out of the squares and get their true aspect ratio back. The square is
    larger than the crop, so a crop of a part of the picture stays sharp.

    Attributes:
        pixels: The stretched pictures.
        shapes: Original width and height of each picture.
    """

    pixels: UInt8[Tensor, "n k k c"]
    shapes: Float32[Tensor, n]


@dataclass(frozen=True, eq=False)
class Images:
    """Labeled images whose pixels are all in memory, as one tensor; see `Files` for images on disk.

    Subsets share memory with the original.

    Attributes:
        whole_pictures: The whole pictures. `pixels` has their centers. None: not kept.
    """

    pixels: UInt8[Tensor, "n h w c"]
    labels: Int64[Tensor, n]
    whole_pictures: WholePictures | None = None

    def __post_init__(self) -> None:
        assert self.pixels.ndim == 4, self.pixels.shape
        assert self.pixels.dtype == torch.uint8, self.pixels.dtype
        assert self.labels.shape == self.pixels.shape[:1], (self.labels.shape, self.pixels.shape)
        assert self.labels.dtype == torch.int64, self.labels.dtype

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[npt.NDArray[np.uint8], int]:
        """Return one image [H, W, C] and its label, as the per-image loader reads them."""
        return self.pixels[index].numpy(), int(self.labels[index])

    def subset(self, start: int, stop: int) -> Images:
        """Return images `start` to `stop - 1`, in order, sharing memory."""
        check_range(start, stop, len(self))
        return self._part(slice(start, stop))

    def evenly_spaced(self, num_images: int) -> Images:
        """Return `num_images` evenly spaced images, so that sorted classes keep their shares.

        Returns all images if there are no more than `num_images`.
        """
        if num_images >= len(self):
            return self
        index = evenly_spaced_indices(num_images, len(self))
        return self._part(index)

    def _part(self, index: slice | Int64[Tensor, m] | Bool[Tensor, n]) -> Images:
        whole_pictures = self.whole_pictures
        if whole_pictures is not None:
            whole_pictures = WholePictures(
                whole_pictures.pixels[index], whole_pictures.shapes[index]
            )
        return Images(self.pixels[index], self.labels[index], whole_pictures)

    def select(self, index: Int64[Tensor, m] | Bool[Tensor, n]) -> Images:
        """Return the images at the given indices, or those where a mask is True, in new memory."""
        return self._part(index)

    def joined(self, images: Images) -> Images:
        """Return these images and then `images`, in new memory.

        Whole pictures are kept only if both have them.
        """
        whole_pictures = None
        if self.whole_pictures is not None and images.whole_pictures is not None:
            both = (self.whole_pictures, images.whole_pictures)
            whole_pictures = WholePictures(
                torch.cat([pictures.pixels for pictures in both]),
                torch.cat([pictures.shapes for pictures in both]),
            )
        pixels = torch.cat([self.pixels, images.pixels])
        return Images(pixels, torch.cat([self.labels, images.labels]), whole_pictures)

    @property
    def size_px(self) -> int:
        return self.pixels.shape[1]

    @property
    def channels(self) -> int:
        return self.pixels.shape[3]

    def to(self, device: torch.device | str) -> Images:
        """Return the images on `device`. Tensors that are already there are not copied."""
        return Images(self.pixels.to(device), self.labels.to(device))


def fingerprint(parts: Iterable[Images | None]) -> str:
    """Return 16 hex digits of the SHA-256 over shapes, pixels and labels.

    Equal images have equal fingerprints, no matter which file they came from. CIFAR-10 takes 0.1 to
    0.5 s.
    """
    digest = hashlib.sha256()
    for images in parts:
        if images is not None:
            digest.update(repr(tuple(images.pixels.shape)).encode())
            digest.update(images.pixels.numpy().data)
            digest.update(images.labels.numpy().data)
    return digest.hexdigest()[:16]


def is_streamed(environment: Mapping[str, Any]) -> bool:
    """Return whether the images of a run stayed on disk, from its environment.json.

    Their fingerprint covers names and sizes, and differs from a fingerprint in memory.
    """
    recorded = environment.get("data", {}).get("fingerprint", "")
    return str(recorded).startswith(STREAMED_FINGERPRINT)


def shrink(
    pixels: UInt8[Tensor, "n h w c"], size_px: int | None, *, name: str
) -> UInt8[Tensor, "n s s c"]:
    """Shrink square images: each new pixel is the mean of a whole area, rounded half up.

    Args:
        size_px: The new side. None keeps the size.
        name: Name of the data set, for the error message.

    Raises:
        DataError: If `size_px` does not divide the size of the images.
    """
    size = pixels.shape[1]
    check_size(size, size_px, name=name)
    if size_px is None or size_px == size:
        return pixels
    factor = size // size_px
    areas = pixels.view(len(pixels), size_px, factor, size_px, factor, pixels.shape[3])
    total = areas.sum(dim=(2, 4), dtype=torch.int32)
    num_pixels = factor * factor
    mean = torch.div(total + num_pixels // 2, num_pixels, rounding_mode="floor")
    return mean.to(torch.uint8)


def check_size(size: int, size_px: int | None, *, name: str) -> None:
    """Raise DataError unless `size_px` is None or divides `size`."""
    if size_px is not None and (not 0 < size_px <= size or size % size_px):
        divisors = [str(smaller) for smaller in range(size, 1, -1) if size % smaller == 0]
        raise DataError(
            f"size_px = {size_px}: {name} has {size} x {size} pixels; "
            f"allowed are {', '.join(divisors)}"
        )


def check_range(start: int, stop: int, num_images: int) -> None:
    """Raise DataError unless `start` to `stop - 1` is a non-empty range of `num_images` images."""
    if not 0 <= start < stop <= num_images:
        raise DataError(
            f"images {start} to {stop} are out of range: there are {num_images}, counted from 0"
        )


def evenly_spaced_indices(num_chosen: int, num_images: int) -> Int64[Tensor, n]:
    """Return `num_chosen` evenly spaced indices below `num_images`."""
    if num_chosen < 1:
        raise DataError(f"number of images = {num_chosen}: allowed are 1 and more")
    return torch.arange(num_chosen) * num_images // num_chosen
