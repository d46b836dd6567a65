"""The training view of Sec. 3.4: random scale, crop, mirror image and color shift.

Every draw is a pure function of (seed, epoch, index of the image). Positions are counted as in
batches.py: epochs are joined.

Shapes: S = size_px, the side of the crop; pixels uint8 [S, S, 3]; B images a batch.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from jaxtyping import Float32, Int64, UInt8
from torch import Tensor
from torch.utils.data import Dataset

from reslearn.data.batches import Stream, draw, integers_below, normal, permutation
from reslearn.data.files import Files
from reslearn.data.pictures import crop, largest_offsets, open_picture, scale_length
from reslearn.data.preprocess import Preprocess, center_chunks

_MAX_COLOR_FILES = 1_000  # fifty million pixels at 224 px


@dataclass(frozen=True, kw_only=True, eq=False)
class Jitter:
    """Paper: shorter side uniform in [256, 480], a 224 crop, mirrored or not, AlexNet's colors.

    Attributes:
        shortest_px, longest_px: Range of the shorter side before the crop.
        color: [3, 3] in gray levels. Three standard normal draws times this matrix are added to all
            pixels of an image. None adds nothing.
    """

    shortest_px: int
    longest_px: int
    flip: bool = True
    color: Float32[Tensor, "3 3"] | None = None

    @classmethod
    def fit(
        cls, files: Files, *, shorter: tuple[int, int], flip: bool, color: float | None
    ) -> Jitter:
        """Fit the colors on training images.

        Args:
            files: Training images only.
            shorter: Range of the shorter side for crops of 224 pixels. It is scaled in proportion
                for other crops.
            color: Standard deviation of the color shift in units of the principal components.
                AlexNet uses 0.1. None switches it off.
        """
        shortest, longest = (scale_length(length, files.size_px) for length in shorter)
        matrix = None
        if color is not None:
            matrix = color * principal_colors(files.evenly_spaced(_MAX_COLOR_FILES))
        return cls(shortest_px=shortest, longest_px=longest, flip=flip, color=matrix)


class JitteredImages(Dataset[tuple[Tensor, Tensor, int]]):
    """Map a position in training to (pixels uint8 [S, S, 3], color shift float32 [3], label).

    The color shift is in gray levels. A broken file raises DataError.
    """

    def __init__(self, files: Files, preprocess: Preprocess, *, seed: int, jitter: Jitter) -> None:
        self.files = files
        self.preprocess = preprocess
        self.seed = seed
        self.jitter = jitter

    def __getitem__(self, position: int) -> tuple[UInt8[Tensor, "s s 3"], Float32[Tensor, 3], int]:
        epoch, place_in_epoch = divmod(position, len(self.files))
        index = _order(self.seed, epoch, len(self.files))[place_in_epoch]

        def draw_below(limit: int, stream: Stream) -> int:
            return int(integers_below(limit, draw(self.seed, stream, epoch, index)))

        jitter, size_px = self.jitter, self.files.size_px
        num_sizes = jitter.longest_px - jitter.shortest_px + 1
        shorter_px = jitter.shortest_px + draw_below(num_sizes, Stream.SHORTER_SIDE)
        image = open_picture(self.files.path(int(index)), shorter_px)
        bottom, right = largest_offsets(image, shorter_px=shorter_px, size_px=size_px)
        top_px, left_px = draw_below(bottom + 1, Stream.ROW), draw_below(right + 1, Stream.COLUMN)
        pixels = crop(image, shorter_px=shorter_px, size_px=size_px, top_px=top_px, left_px=left_px)
        if jitter.flip and draw_below(2, Stream.FLIP):
            pixels = pixels[:, ::-1]
        shift = self._color_shift(epoch, index)
        return torch.from_numpy(pixels.copy()), shift, int(self.files.labels[index])

    def _color_shift(self, epoch: int, index: Tensor) -> Float32[Tensor, 3]:
        if self.jitter.color is None:
            return torch.zeros(3)
        streams = (Stream.COLOR_RADIUS, Stream.COLOR_ANGLE)
        draws = normal(self.seed, streams, epoch, 3 * index + torch.arange(3))
        return draws.float() @ self.jitter.color

    def finish(
        self, pixels: UInt8[Tensor, "b s s 3"], shift: Float32[Tensor, "b 3"]
    ) -> Float32[Tensor, "b s s 3"]:
        """Normalize a batch and shift its colors.

        Paper: the per-pixel mean belongs to the crop and is subtracted after mirroring.
        """
        shift = shift / self.preprocess.scale.to(shift.device)
        return self.preprocess.normalize(pixels).add_(shift[:, None, None, :])


@lru_cache(maxsize=2)
def _order(seed: int, epoch: int, num_images: int) -> Int64[Tensor, n]:
    return permutation(seed, epoch, num_images)


def principal_colors(files: Files) -> Float32[Tensor, "3 3"]:
    """Return the principal directions of RGB over all pixels of the centers, in gray levels.

    Row i is the i-th direction times its eigenvalue, the largest first.

    Deviates: AlexNet's text says "proportional to the eigenvalue" and names no unit. As in
    re-implementations, the eigenvalue belongs to pixels between 0 and 1. The first direction of
    photos then moves by about 50 gray levels, times a draw of N(0, 0.1).
    """
    total, products, num_pixels = np.zeros(3, np.int64), np.zeros((3, 3), np.int64), 0
    for chunk in center_chunks(files, None, description="the main colors of"):
        # Sums of products of bytes are whole numbers below 2^53, so float64 is exact.
        pixels = chunk.reshape(-1, 3).astype(np.float64)
        num_pixels += len(pixels)
        total += pixels.sum(axis=0).astype(np.int64)
        products += (pixels.T @ pixels).astype(np.int64)
    mean = total / num_pixels
    eigenvalues, eigenvectors = np.linalg.eigh(products / num_pixels - np.outer(mean, mean))
    rows = eigenvectors.T[::-1]  # the largest first
    # A direction has two signs: choose the same one on every machine.
    largest = rows[np.arange(3), np.abs(rows).argmax(axis=1)]
    rows = rows * np.sign(largest)[:, None]
    return torch.from_numpy(rows * eigenvalues[::-1, None].clip(min=0) / 255).float()
