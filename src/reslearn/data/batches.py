"""Batches of images in memory: each training batch is a pure function of (seed, step).

A whole batch is gathered, normalized, padded, cropped and mirrored by tensor operations on the
training device (Sec. 4.2). The loader in per_image.py gives the same batches, bit for bit, at a
hundred times the cost.

A counter-based hash replaces a random generator: every draw is a pure function of (seed, stream,
epoch, index). A resumed run has nothing to restore, the number of workers does not matter, and all
devices draw the same numbers.

Position p counts the images shown since the start of training: it is place p % N in the permutation
of epoch p // N. Epochs are joined, so every batch is full and step t shows the positions from
t * batch_size on.

Shapes: B images a batch, H = W = size_px, C channels; pixels are uint8 [B, H, W, C], batches
float32 [B, C, H, W] in channels_last memory.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from enum import IntEnum
from functools import lru_cache
from itertools import count
from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float32, Float64, Int64, Shaped
from torch import Tensor

from reslearn.data.balanced_order import BalancedOrder
from reslearn.data.files import Files
from reslearn.data.images import Images, ImageSet
from reslearn.data.preprocess import Preprocess

Batch = tuple[Float32[Tensor, "b c h w"], Int64[Tensor, "b"]]


@dataclass(frozen=True, kw_only=True)
class Augment:
    """Pad each side, crop a random window of the original size, and mirror at random (Sec. 4.2)."""

    pad_px: int = 4
    flip: bool = True
    crop: bool = True
    balance: bool = False  # show all classes equally often

    def __post_init__(self) -> None:
        if self.pad_px < 0:
            raise ValueError(f"pad_px = {self.pad_px}: allowed are 0 and more")

    @property
    def max_shift_px(self) -> int:
        """Return how far a crop may move to either side."""
        return self.pad_px if self.crop else 0


PAPER_AUGMENT = Augment()


def train_batches(
    images: Images,
    preprocess: Preprocess,
    *,
    batch_size: int,
    seed: int,
    start_step: int = 0,
    augment: Augment = PAPER_AUGMENT,
    device: torch.device | str = "cpu",
    share: tuple[int, int] = (0, 1),
) -> Iterator[Batch]:
    """Return an endless iterator over full, augmented batches, beginning with step `start_step`.

    Args:
        batch_size: Images of a batch over all processes.
        share: (rank, number of processes). Each process gets an equal part of each batch, in order.

    Returns:
        Iterator over x float32 [B, C, H, W] in channels_last memory and y int64 [B]. The batch of
        step t depends on `seed` and t alone.

    Raises:
        ValueError: If `batch_size` is below 1 or not divisible, or `start_step` is below 0.
        DataError: If the images do not fit `preprocess`.
    """
    check_batches(batch_size, start_step, share)
    balanced = balanced_order(images.labels.to(device), seed) if augment.balance else None
    sequence = ViewSequence(
        seed=seed, num_images=len(images), augment=augment, device=device, balanced=balanced
    )
    # Shapes that do not fit fail here, at the call, and not at the first batch.
    preprocess.normalize(images.pixels[:1])
    starts = share_starts(batch_size, start_step, share)
    part_size = batch_size // share[1]
    parts = (sequence.between(start, start + part_size) for start in starts)
    return _augmented_batches(images.to(device), preprocess.to(device), parts, augment.max_shift_px)


def _augmented_batches(
    images: Images, preprocess: Preprocess, parts: Iterator[ViewTable], max_shift_px: int
) -> Iterator[Batch]:
    for views in parts:
        pixels = images.pixels.index_select(0, views.index)
        if preprocess.padding == "after-mean":
            # Paper: the mean is subtracted first, so the padding is exactly 0.
            x = crop_and_flip(preprocess.normalize(pixels), views, max_shift_px)
        else:
            x = preprocess.normalize(crop_and_flip(pixels, views, max_shift_px))
        yield x.permute(0, 3, 1, 2), images.labels.index_select(0, views.index)


def eval_batches(
    images: ImageSet,
    preprocess: Preprocess,
    *,
    batch_size: int = 500,
    device: torch.device | str = "cpu",
) -> Iterator[Batch]:
    """Return an iterator over all images once, in order, without augmentation.

    This is the paper's single view. Of a picture file it is the center. The last batch may be
    short, and so are batches with picture files that cannot be read, which are left out.

    Raises:
        ValueError: If `batch_size` is below 1.
        DataError: While iterating, if more than half of the picture files cannot be read.
    """
    batches = indexed_eval_batches(images, preprocess, batch_size=batch_size, device=device)
    return ((x, y) for _, x, y in batches)


def indexed_eval_batches(
    images: ImageSet, preprocess: Preprocess, *, batch_size: int, device: torch.device | str
) -> Iterator[tuple[Int64[Tensor, b], Tensor, Tensor]]:
    """Return the batches of `eval_batches`, each with the indices of its images."""
    check_batches(batch_size)
    on_device = preprocess.to(device)
    if isinstance(images, Files):
        return _file_batches(images, on_device, batch_size, device)
    return _memory_batches(images, on_device, batch_size, device)


def _memory_batches(
    images: Images, preprocess: Preprocess, batch_size: int, device: torch.device | str
) -> Iterator[tuple[Int64[Tensor, b], Tensor, Tensor]]:
    for start in range(0, len(images), batch_size):
        index = torch.arange(start, min(start + batch_size, len(images)))
        part = images.subset(start, start + len(index))
        yield index, preprocess(part.pixels.to(device)), part.labels.to(device)


def _file_batches(
    files: Files, preprocess: Preprocess, batch_size: int, device: torch.device | str
) -> Iterator[tuple[Int64[Tensor, b], Tensor, Tensor]]:
    def read(path: Path) -> Tensor:
        return torch.tensor(preprocess.read(path))

    for group in files.read_groups(read, group_size=batch_size):
        index = torch.tensor([row for row, _ in group])
        pixels = torch.stack([pixels for _, pixels in group])
        yield index, preprocess(pixels.to(device)), files.labels[index].to(device)


def crop_and_flip(
    batch: Shaped[Tensor, "b h w c"], views: ViewTable, max_shift_px: int
) -> Shaped[Tensor, "b h w c"]:
    """Pad with zeros, cut a window of the original size and mirror it where the view says so.

    All of this is one gather of whole pixels.
    """
    num, height, width, channels = batch.shape
    padding = (0, 0, max_shift_px, max_shift_px, max_shift_px, max_shift_px)
    padded = F.pad(batch, padding)
    padded_height, padded_width = padded.shape[1:3]
    column = torch.arange(width, device=batch.device)
    mirrored = torch.where(views.flip[:, None], width - 1 - column, column)
    columns = mirrored + views.left_px[:, None]  # [B, W]
    first_row = torch.arange(num, device=batch.device) * padded_height + views.top_px
    rows = first_row[:, None] + torch.arange(height, device=batch.device)  # [B, H]
    index = rows[:, :, None] * padded_width + columns[:, None, :]  # [B, H, W]
    pixels = padded.view(-1, channels).index_select(0, index.view(-1))
    return pixels.view(num, height, width, channels)


def check_batches(batch_size: int, start_step: int = 0, share: tuple[int, int] = (0, 1)) -> None:
    """Raise ValueError for a batch size, first step or share that no sequence of batches has."""
    if batch_size < 1:
        raise ValueError(f"batch_size = {batch_size}: allowed are 1 and more")
    if start_step < 0:
        raise ValueError(f"start_step = {start_step}: allowed are 0 and more")
    rank, num_processes = share
    if not 0 <= rank < num_processes:
        raise ValueError(f"share = {share}: allowed are (0, n) to (n - 1, n)")
    if batch_size % num_processes:
        raise ValueError(
            f"batch_size = {batch_size} cannot be divided into {num_processes} equal parts"
        )


def share_starts(batch_size: int, start_step: int, share: tuple[int, int]) -> Iterator[int]:
    """Yield the first position of this share of each batch, from step `start_step` on."""
    rank, num_processes = share
    for step in count(start_step):
        yield step * batch_size + rank * (batch_size // num_processes)


@dataclass(frozen=True, eq=False)
class ViewTable:
    """One row per shown image.

    Attributes:
        index: Index of the image.
        top_px, left_px: Corner of the crop in the padded image, 0 to 2 * max_shift_px.
        flip: Whether the crop is mirrored.
    """

    index: Int64[Tensor, n]
    top_px: Int64[Tensor, n]
    left_px: Int64[Tensor, n]
    flip: Bool[Tensor, n]

    def rows(self, start: int, stop: int) -> ViewTable:
        columns = (self.index, self.top_px, self.left_px, self.flip)
        return ViewTable(*(column[start:stop] for column in columns))


@dataclass(frozen=True, kw_only=True)
class ViewSequence:
    """The endless sequence of views of a training. It has no state, so any worker can hold one."""

    seed: int
    num_images: int
    augment: Augment
    device: torch.device | str = "cpu"
    balanced: BalancedOrder | None = None

    def __post_init__(self) -> None:
        if self.num_images < 1:
            raise ValueError(f"there are {self.num_images} training images; at least 1 is needed")

    def between(self, start: int, stop: int) -> ViewTable:
        """Return the views at positions `start` to `stop - 1`, over as many epochs as needed."""
        assert 0 <= start < stop
        tables = []
        for epoch in range(start // self.num_images, (stop - 1) // self.num_images + 1):
            first = epoch * self.num_images
            views = epoch_views(self.seed, epoch, self.num_images, self.augment, self.device)
            if self.balanced is not None:
                views = replace(views, index=self.balanced.images(epoch)[views.index])
            tables.append(views.rows(max(start - first, 0), stop - first))
        if len(tables) == 1:
            return tables[0]
        columns = []
        for field in fields(ViewTable):
            columns.append(torch.cat([getattr(table, field.name) for table in tables]))
        return ViewTable(*columns)


@lru_cache(maxsize=4)
def epoch_views(
    seed: int, epoch: int, num_images: int, augment: Augment, device: torch.device | str = "cpu"
) -> ViewTable:
    """Return all views of an epoch in the order in which they are shown.

    50,000 images take about 10 ms, and the last few epochs are cached.
    """
    index = permutation(seed, epoch, num_images, device)
    num_offsets = 2 * augment.max_shift_px + 1
    return ViewTable(
        index,
        integers_below(num_offsets, draw(seed, Stream.ROW, epoch, index)),
        integers_below(num_offsets, draw(seed, Stream.COLUMN, epoch, index)),
        integers_below(1 + augment.flip, draw(seed, Stream.FLIP, epoch, index)).bool(),
    )


def permutation(
    seed: int, epoch: int, num_images: int, device: torch.device | str = "cpu"
) -> Int64[Tensor, n]:
    """Return the order of an epoch: image indices sorted by their draw.

    Draws of different images are never equal, so every device sorts them alike.
    """
    return torch.argsort(draw(seed, Stream.ORDER, epoch, torch.arange(num_images, device=device)))


def balanced_order(labels: Int64[Tensor, n], seed: int) -> BalancedOrder:
    """Return the images of each epoch of a training that shows all classes equally often."""
    return BalancedOrder(labels, permutation(seed, 0, len(labels), labels.device))


def held_out_mask(labels: Int64[Tensor, n], every: int) -> Bool[Tensor, n]:
    """Return a fixed test split for sources that have none.

    The images are sorted by class, then by draw. The mask is True for every `every`-th of them.
    """
    bits = draw(0, Stream.SPLIT, 0, torch.arange(len(labels)))
    drawn = torch.argsort(bits)
    by_class = drawn[torch.argsort(labels[drawn], stable=True)]
    mask = torch.zeros(len(labels), dtype=torch.bool)
    mask[by_class[::every]] = True
    return mask


class Stream(IntEnum):
    """The purpose of a draw. Each has its own stream, so a new one never changes the others.

    Recorded results depend on these numbers: never change them.
    """

    ORDER = 0
    ROW = 1
    COLUMN = 2
    FLIP = 3
    SPLIT = 4
    SHORTER_SIDE = 5
    COLOR_RADIUS = 6
    COLOR_ANGLE = 7
    CROP_AREA = 8
    CROP_RATIO = 9
    CHANGE = 10
    CHANGE_SIGN = 11
    CHANGE_STRENGTH = 12
    ERASE = 13
    ERASE_AREA = 14
    ERASE_RATIO = 15
    ERASE_ROW = 16
    ERASE_COLUMN = 17
    # These are drawn for pairs of images of a step, in the place of the epoch.
    MIX_KIND = 18
    MIX_WEIGHT = 19
    MIX_ROW = 20
    MIX_COLUMN = 21


# The finalizer of SplitMix64 (Steele, Lea, Flood 2014). Two's complement int64 stands for uint64,
# so products wrap around. The constants are signed; the first is 2^64 divided by the golden ratio.
_GOLDEN = 0x9E3779B97F4A7C15 - 2**64
_FIRST_FACTOR = 0xBF58476D1CE4E5B9 - 2**64
_SECOND_FACTOR = 0x94D049BB133111EB - 2**64


def draw(
    seed: int, stream: Stream, epoch: int, index: Int64[Tensor, "*shape"]
) -> Int64[Tensor, "*shape"]:
    """Return 64 well-mixed bits for each index, on its device.

    For a fixed (seed, stream, epoch) different indices never collide.
    """
    state = torch.zeros((), dtype=torch.int64)
    for word in (seed, stream, epoch):
        signed = (word + 2**63) % 2**64 - 2**63  # any Python integer is a valid seed
        state = _finalize((state + _GOLDEN) ^ signed)
    return _finalize((int(state) + index) ^ _GOLDEN)


def integers_below(limit: int, bits: Int64[Tensor, "*shape"]) -> Int64[Tensor, "*shape"]:
    """Return uniform integers 0 to `limit - 1` from the upper 31 bits of draws.

    The bias is below limit / 2^31.
    """
    assert 1 <= limit < 2**31, limit
    return (_shift_right(bits, 33) * limit) >> 31


def uniform(bits: Int64[Tensor, "*shape"]) -> Float64[Tensor, "*shape"]:
    """Return uniform numbers in [0, 1) from the upper 53 bits of draws."""
    return _shift_right(bits, 11).double() * 2.0**-53


def normal(
    seed: int, streams: tuple[Stream, Stream], epoch: int, index: Int64[Tensor, "*shape"]
) -> Float64[Tensor, "*shape"]:
    """Return standard normal numbers by the Box-Muller transform of two draws per index.

    Each draw contributes its upper 53 bits.
    """
    radius, angle = (uniform(draw(seed, stream, epoch, index)) for stream in streams)
    # `radius` is below 1, so the logarithm is finite.
    return (-2 * torch.log1p(-radius)).sqrt() * (2 * math.pi * angle).cos()


def _finalize(word: Tensor) -> Tensor:
    word = (word ^ _shift_right(word, 30)) * _FIRST_FACTOR
    word = (word ^ _shift_right(word, 27)) * _SECOND_FACTOR
    return word ^ _shift_right(word, 31)


def _shift_right(word: Tensor, bits: int) -> Tensor:
    """Shift in zeros: `>>` on int64 copies the sign, and the mask removes the copies."""
    return (word >> bits) & ((1 << (64 - bits)) - 1)
