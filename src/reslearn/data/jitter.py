"""The training view of Sec. 3.4: shorter side drawn, a random crop, its mirror image or not, colors moved along their main directions.

Every draw is a pure function of (seed, epoch, index of the image), as in views.py; positions are counted alike, epochs joined.
Shapes: S = size_px, the side of the crop; pixels uint8 [S, S, 3]; B images a batch.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from jaxtyping import Float32, Int64, UInt8
from torch import Tensor
from torch.utils.data import Dataset

from reslearn.data.counter import Stream, below, draw, normal, permutation
from reslearn.data.files import Files
from reslearn.data.pictures import in_proportion, offsets, open_picture, window
from reslearn.data.preprocess import Preprocess, chunks_of_centers

_FITTED_ON = 1_000  # pictures: fifty million pixels at 224 px


@dataclass(frozen=True, kw_only=True, eq=False)
class Jitter:
    """Paper: shorter side uniform in [256, 480], a 224 crop, mirrored or not, the color augmentation of AlexNet.

    `color` [3, 3] gives gray levels: three standard normal draws times it are added to all pixels of an image; None: nothing is.
    """

    shortest_px: int
    longest_px: int
    flip: bool = True
    color: Float32[Tensor, "3 3"] | None = None

    @classmethod
    def fit(
        cls, files: Files, *, shorter: tuple[int, int], flip: bool, color: float | None
    ) -> "Jitter":
        """For training images (hand in no others): `shorter` at a crop of 224, in proportion at others; `color` as in AlexNet, 0.1."""
        shortest, longest = (in_proportion(length, files.size_px) for length in shorter)
        moved = color * principal_colors(files.spread(_FITTED_ON)) if color is not None else None
        return cls(shortest_px=shortest, longest_px=longest, flip=flip, color=moved)


def principal_colors(files: Files) -> Float32[Tensor, "3 3"]:
    """Row i: the i-th principal direction of RGB over all pixels of the centers, times its eigenvalue, in gray levels.

    Deviates: AlexNet's text says "proportional to the eigenvalue" and names no unit. It is taken for pixels between 0 and 1, as
    re-implementations do; the first direction of photos then moves by some 50 gray levels, times a draw of N(0, 0.1).
    """
    total, products, num_pixels = np.zeros(3, np.int64), np.zeros((3, 3), np.int64), 0
    for chunk in chunks_of_centers(files, None, about="the main colors of"):
        pixels = chunk.reshape(-1, 3).astype(
            np.float64
        )  # sums of products of bytes are whole numbers below 2^53: exact
        num_pixels += len(pixels)
        total += pixels.sum(axis=0).astype(np.int64)
        products += (pixels.T @ pixels).astype(np.int64)
    mean = total / num_pixels
    values, vectors = np.linalg.eigh(products / num_pixels - np.outer(mean, mean))
    rows = vectors.T[::-1]  # the largest first
    rows = (
        rows * np.sign(rows[np.arange(3), np.abs(rows).argmax(axis=1)])[:, None]
    )  # a direction has two signs: the same everywhere
    return torch.from_numpy(rows * values[::-1, None].clip(min=0) / 255).float()


@lru_cache(maxsize=2)
def _order(seed: int, epoch: int, num_images: int) -> Int64[Tensor, "n"]:
    return permutation(seed, epoch, num_images)


class JitteredViews(Dataset[tuple[Tensor, Tensor, int]]):
    """Position in training -> (pixels uint8 [S, S, 3], color shift float32 [3] in gray levels, label). DataError for a broken file."""

    def __init__(self, files: Files, preprocess: Preprocess, *, seed: int, jitter: Jitter) -> None:
        self.files = files
        self.preprocess = preprocess
        self.seed = seed
        self.jitter = jitter

    def __getitem__(
        self, position: int
    ) -> tuple[UInt8[Tensor, "s s 3"], Float32[Tensor, "3"], int]:
        epoch, place = divmod(position, len(self.files))
        index = _order(self.seed, epoch, len(self.files))[place]

        def drawn(stream: Stream, limit: int) -> int:
            return int(below(limit, draw(self.seed, stream, epoch, index)))

        jitter, size_px = self.jitter, self.files.size_px
        shorter_px = jitter.shortest_px + drawn(
            Stream.SHORTER, jitter.longest_px - jitter.shortest_px + 1
        )
        image = open_picture(self.files.path(int(index)), shorter_px)
        bottom, right = offsets(image, shorter_px=shorter_px, size_px=size_px)
        corner = {"top": drawn(Stream.ROW, bottom + 1), "left": drawn(Stream.COLUMN, right + 1)}
        pixels = window(image, shorter_px=shorter_px, size_px=size_px, **corner)
        if jitter.flip and drawn(Stream.FLIP, 2):
            pixels = pixels[:, ::-1]
        shift = torch.zeros(3)
        if jitter.color is not None:
            three = 3 * index + torch.arange(3)
            shift = (
                normal(self.seed, (Stream.COLOUR_RADIUS, Stream.COLOUR_ANGLE), epoch, three).float()
                @ jitter.color
            )
        return torch.from_numpy(pixels.copy()), shift, int(self.files.labels[index])

    def finish(
        self, pixels: UInt8[Tensor, "b s s 3"], shift: Float32[Tensor, "b 3"]
    ) -> Float32[Tensor, "b s s 3"]:
        """What the network sees of a batch. Paper: the per-pixel mean is that of the crop, subtracted after mirroring."""
        return self.preprocess.normalize(pixels).add_(
            (shift / self.preprocess.scale.to(shift.device))[:, None, None, :]
        )
