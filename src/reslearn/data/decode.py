"""Decode the picture files of a folder into memory, by threads, straight into one array per set.

Random crops need more than the center of a picture. Whole pictures are kept stretched to squares of
a larger side, as `WholePictures`.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from reslearn.data.files import Files, map_in_order
from reslearn.data.images import Images, WholePictures
from reslearn.data.jpeg import decode_picture
from reslearn.data.pictures import Pixels, center_crop
from reslearn.data.skipped import SkippedImage
from reslearn.progress import progress_bar

# A random crop whose sides are 80 % of the picture's then still has at least size_px pixels.
_WHOLE_SIDE = 1.25
_NUM_AHEAD = 64  # pictures, enough to keep the threads busy


@dataclass(frozen=True, kw_only=True)
class DecodedFiles:
    """One set of images. The pixels of those that could not be read are undefined.

    Attributes:
        results: None for an image that was read.
    """

    images: Images
    results: list[SkippedImage | None]


def decode_files(
    parts: Mapping[str, Files], size_px: int, description: str, *, whole_parts: Collection[str]
) -> dict[str, DecodedFiles]:
    """Decode every picture once. The sets `whole_parts` keep whole pictures too."""
    targets: list[_Target] = []
    images = {}
    for part, files in parts.items():
        centers = np.empty((len(files), size_px, size_px, 3), np.uint8)
        side = whole_side(size_px) if part in whole_parts else 0
        wholes = np.empty((len(files), side, side, 3), np.uint8)
        shapes = np.ones(len(files), np.float32)
        for index in range(len(files)):
            target = _Target(files=files, index=index, center=centers[index])
            if side:
                target = replace(target, whole_pixels=wholes[index], shapes=shapes)
            targets.append(target)
        pixels, whole_pixels, ratios = map(torch.from_numpy, (centers, wholes, shapes))
        whole_pictures = WholePictures(whole_pixels, ratios) if side else None
        images[part] = Images(pixels, files.labels, whole_pictures)
    results = []
    with progress_bar(description, len(targets), after_seconds=2.0) as advance:
        for result in map_in_order(_Target.decode, targets, num_ahead=_NUM_AHEAD):
            advance(1)
            results.append(result)
    decoded, start = {}, 0
    for part, files in parts.items():
        stop = start + len(files)
        decoded[part] = DecodedFiles(images=images[part], results=results[start:stop])
        start = stop
    return decoded


def bytes_in_memory(
    parts: Mapping[str, Files], size_px: int, *, whole_parts: Collection[str]
) -> int:
    """Return the bytes that the decoded pictures take."""
    num_pixels = sum(map(len, parts.values())) * size_px**2
    for part in whole_parts:
        num_pixels += len(parts[part]) * whole_side(size_px) ** 2
    return 3 * num_pixels


def whole_side(size_px: int) -> int:
    """Return the side of the squares to which whole pictures are stretched in memory."""
    return round(_WHOLE_SIDE * size_px)


@dataclass(frozen=True, kw_only=True)
class _Target:
    """Where one decoded picture belongs. Without `whole_pixels` only its center is kept."""

    files: Files
    index: int
    center: Pixels
    whole_pixels: Pixels | None = None
    shapes: npt.NDArray[np.float32] | None = None

    def decode(self) -> SkippedImage | None:
        """Fill the arrays. Return the image if it cannot be read."""
        result = self.files.attempt(self.index, self._read)
        return result if isinstance(result, SkippedImage) else None

    def _read(self, path: Path) -> None:
        size_px = self.center.shape[0]
        # Both come from one decoded picture, and the center is that of `read_picture`.
        image = Image.fromarray(decode_picture(path, size_px))
        self.center[:] = center_crop(image, shorter_px=size_px, size_px=size_px)
        if self.whole_pixels is not None and self.shapes is not None:
            side = self.whole_pixels.shape[0]
            self.whole_pixels[:] = np.asarray(image.resize((side, side), Image.Resampling.BILINEAR))
            self.shapes[self.index] = image.width / image.height
