"""Batches of augmented photos, from memory or from picture files: the path of the table [augment].

The order of work on a batch is: crop, mirror and change the geometry in one resampling; change the
colors; normalize; erase; mix pairs. All draws come from photo_views.py and mixing.py, so a batch is
a pure function of (seed, step). Only resampling differs between CPU and GPU, by a gray level or
two: the CPU uses antialiasing.

Picture files are read and resampled by threads: decoding and resampling release the interpreter
lock, and threads need no copy of the pixels between processes.

Shapes: B images a batch, S = size_px, C channels, K classes.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float32, UInt8
from torch import Tensor

from reslearn.data.batches import ViewTable, balanced_order, check_batches, crop_and_flip
from reslearn.data.errors import DataError
from reslearn.data.files import Files
from reslearn.data.images import Images, ImageSet
from reslearn.data.mixing import (
    check_pairs,
    draw_mixtures,
    erase_rectangles,
    mix_images,
    mix_labels,
)
from reslearn.data.photo_views import PhotoAugment, PhotoSequence, PhotoView
from reslearn.data.pictures import open_picture
from reslearn.data.preprocess import Preprocess
from reslearn.data.resample import affine, crop_box, matrix, render
from reslearn.data.skipped import MAX_SKIPPED_IN_A_ROW, SkippedImage, too_many_skipped
from reslearn.data.trivial_augment import change_colors

PixelBatch = UInt8[Tensor, "b s s c"]
SoftBatch = tuple[Float32[Tensor, "b c h w"], Tensor]
_BATCHES_AHEAD = 2


def photo_batches(
    images: ImageSet,
    preprocess: Preprocess,
    *,
    augment: PhotoAugment,
    batch_size: int,
    seed: int,
    start_step: int = 0,
    num_workers: int = 1,
    share: tuple[int, int] = (0, 1),
) -> Iterator[SoftBatch]:
    """Return an endless iterator over full, augmented batches, beginning with step `start_step`.

    Args:
        images: Images in memory, or picture files, which need `augment.crop_area`.
        preprocess: Batches are on its device.
        batch_size: Images of a batch over all processes.
        num_workers: Threads that read picture files. Batches do not depend on it.
        share: (rank, number of processes). Each process gets an equal part of each batch, in order.

    Returns:
        Iterator over x float32 [B, C, S, S] in channels_last memory, and y: int64 [B], or with
        mixup or CutMix the probabilities of the classes, float32 [B, K].

    Raises:
        ValueError: If `batch_size` is below 1 or not divisible, or `start_step` is below 0.
        DataError: If a share of a batch would cut a pair of mixed images. While iterating, if too
            many picture files in a row cannot be read. A single one is replaced by the next one in
            the order of the epoch, and added to `images.skip_log`.
    """
    check_batches(batch_size, start_step, share)
    if augment.mixes:
        check_pairs(batch_size, share[1])
    part_size = batch_size // share[1]
    offset = share[0] * part_size
    sequence = _sequence(images, augment, seed)
    first_positions = (step * batch_size + offset for step in count(start_step))
    pixel_batches = _pixel_batches(
        images, preprocess, sequence, first_positions, part_size, num_workers
    )
    labels = images.labels.to(preprocess.device)

    def batches() -> Iterator[SoftBatch]:
        for step, (views, pixels) in enumerate(pixel_batches, start_step):
            x = _normalize(pixels, views, preprocess, augment)
            index = torch.tensor([view.index for view in views]).to(labels.device)
            y = labels.index_select(0, index)
            if augment.mixes:
                mixtures = draw_mixtures(
                    augment,
                    seed=seed,
                    step=step,
                    first=offset // 2,
                    num_pairs=part_size // 2,
                    size_px=x.shape[1],
                )
                x, y = mix_images(x, mixtures), mix_labels(y, mixtures, augment.num_classes)
            yield x.permute(0, 3, 1, 2), y

    return batches()


def _sequence(images: ImageSet, augment: PhotoAugment, seed: int) -> PhotoSequence:
    balanced = balanced_order(images.labels, seed) if augment.base.balance else None
    return PhotoSequence(seed=seed, num_images=len(images), augment=augment, balanced=balanced)


def _normalize(
    pixels: PixelBatch | Float32[Tensor, "b s s c"],
    views: list[PhotoView],
    preprocess: Preprocess,
    augment: PhotoAugment,
) -> Float32[Tensor, "b s s c"]:
    """Change the colors of resampled pixels, normalize and erase. Normalized images only erase."""
    x = pixels
    if pixels.dtype == torch.uint8:
        if augment.policy == "trivial":
            pixels = change_colors(pixels, views)
        x = preprocess.normalize(pixels)
    return erase_rectangles(x, views) if augment.erase else x


def _pixel_batches(
    images: ImageSet,
    preprocess: Preprocess,
    sequence: PhotoSequence,
    first_positions: Iterable[int],
    part_size: int,
    num_workers: int,
) -> Iterator[tuple[list[PhotoView], Tensor]]:
    """Yield the views and the resampled images of each batch, which begin at `first_positions`."""
    fill, augment = fill_color(preprocess), sequence.augment
    if isinstance(images, Files):
        reader = FileReader(files=images, fill=fill, device=preprocess.device, sequence=sequence)
        return reader.batches(first_positions, part_size, num_workers=num_workers)
    view_lists = (sequence.between(first, first + part_size) for first in first_positions)
    if augment.crop_area is None:
        shifted = ShiftedImages(images, preprocess, augment)
        return ((views, shifted.batch(views)) for views in view_lists)
    crops = CroppedImages(images, fill, preprocess.device)
    return ((views, crops.batch(views)) for views in view_lists)


def fill_color(preprocess: Preprocess) -> tuple[float, ...]:
    """Return the color outside of a picture: black, or the mean color, which becomes zero."""
    if preprocess.padding == "black":
        return (0.0,) * preprocess.channels
    mean = preprocess.mean.cpu()
    if mean.ndim == 3:
        mean = mean.mean(dim=(0, 1))
    return tuple(mean.round().clamp(0, 255).tolist())


class CroppedImages:
    """Random resized crops of images in memory."""

    def __init__(self, images: Images, fill: tuple[float, ...], device: torch.device) -> None:
        whole_pictures = images.whole_pictures
        self.size_px = images.size_px
        self.pixels = (images.pixels if whole_pictures is None else whole_pictures.pixels).to(
            device
        )
        self.shapes = (
            [1.0] * len(images) if whole_pictures is None else whole_pictures.shapes.tolist()
        )
        self.fill = fill

    def batch(self, views: list[PhotoView]) -> PixelBatch:
        if self.pixels.device.type == "cpu":
            return self._rendered(views)
        height, width = self.pixels.shape[1:3]
        matrices = []
        for view in views:
            box = crop_box(view, width, height, self.shapes[view.index])
            matrices.append(matrix(view, box, width, height))
        index = torch.tensor([view.index for view in views]).to(self.pixels.device)
        fill = torch.tensor(self.fill)
        rows = self.pixels.index_select(0, index)
        return affine(rows, torch.tensor(matrices), self.size_px, fill=fill)

    def _rendered(self, views: list[PhotoView]) -> PixelBatch:
        pixels = self.pixels.numpy()
        batch = torch.empty(
            (len(views), self.size_px, self.size_px, pixels.shape[3]), dtype=torch.uint8
        )
        for slot, view in zip(batch, views, strict=True):
            shape = self.shapes[view.index]
            slot.copy_(render(pixels[view.index], view, self.size_px, fill=self.fill, shape=shape))
        return batch


class ShiftedImages:
    """Padded crops of images in memory, as `train_batches` cuts them, and geometric changes."""

    def __init__(self, images: Images, preprocess: Preprocess, augment: PhotoAugment) -> None:
        self.pixels = images.pixels.to(preprocess.device)
        self.preprocess = preprocess
        self.augment = augment
        self.fill = torch.tensor(fill_color(preprocess), device=preprocess.device)

    def batch(self, views: list[PhotoView]) -> Tensor:
        device, shift = self.pixels.device, self.augment.base.max_shift_px
        index = torch.tensor([view.index for view in views]).to(device)
        corners = torch.tensor([view.shift_px for view in views]).to(device) + shift
        flip = torch.tensor([view.flip for view in views]).to(device)
        table = ViewTable(index, corners[:, 0], corners[:, 1], flip)
        pixels = self.pixels.index_select(0, index)
        if self.augment.policy == "none" and self.preprocess.padding == "after-mean":
            # The same operations as in train_batches, so the padding is exactly 0.
            return crop_and_flip(self.preprocess.normalize(pixels), table, shift)
        fill = self.fill.to(torch.int16)
        cropped = crop_and_flip(pixels.to(torch.int16) - fill, table, shift) + fill
        cropped = cropped.to(torch.uint8)
        rows = [row for row, view in enumerate(views) if view.is_geometric]
        if rows:
            size_px = pixels.shape[1]
            matrices = []
            for row in rows:
                box = crop_box(views[row], size_px, size_px)
                matrices.append(matrix(views[row], box, size_px, size_px))
            row_index = torch.tensor(rows).to(device)
            changed = affine(pixels[row_index], torch.tensor(matrices), size_px, fill=self.fill)
            cropped.index_copy_(0, row_index, changed)
        return cropped


class _PendingBatch(NamedTuple):
    """A batch that threads are reading. A task returns its image if it cannot be read."""

    first_position: int
    views: list[PhotoView]
    pixels: PixelBatch
    tasks: list[Future[SkippedImage | None]]


@dataclass(frozen=True, kw_only=True)
class FileReader:
    """Reads picture files by threads, some batches ahead, in order.

    A file that cannot be read is replaced by the next readable one of the same epoch, so a batch
    stays a pure function of its positions.
    """

    files: Files
    fill: tuple[float, ...]
    device: torch.device
    sequence: PhotoSequence

    def batches(
        self, first_positions: Iterable[int], batch_size: int, *, num_workers: int
    ) -> Iterator[tuple[list[PhotoView], PixelBatch]]:
        """Yield the views that are shown, and their pixels."""
        pending: deque[_PendingBatch] = deque()
        pool = ThreadPoolExecutor(max(1, num_workers))
        try:
            for first in first_positions:
                views = self.sequence.between(first, first + batch_size)
                pixels = self._empty(len(views))
                tasks = []
                for slot, view in zip(pixels, views, strict=True):
                    tasks.append(pool.submit(self._read, view, slot))
                pending.append(_PendingBatch(first, views, pixels, tasks))
                if len(pending) > _BATCHES_AHEAD:
                    yield self._finish(pending.popleft())
        finally:
            pool.shutdown(cancel_futures=True)

    def _empty(self, num_images: int) -> PixelBatch:
        size_px = self.files.size_px
        is_pinned = self.device.type == "cuda"
        shape = (num_images, size_px, size_px, self.files.channels)
        return torch.empty(shape, dtype=torch.uint8, pin_memory=is_pinned)

    def _finish(self, batch: _PendingBatch) -> tuple[list[PhotoView], PixelBatch]:
        views = list(batch.views)
        for row, task in enumerate(batch.tasks):
            skipped = task.result()
            if skipped is not None:
                position = batch.first_position + row
                views[row] = self._replace(position, batch.pixels[row], skipped)
        return views, batch.pixels.to(self.device, non_blocking=True)

    def _replace(
        self, position: int, slot: UInt8[Tensor, "s s c"], skipped: SkippedImage
    ) -> PhotoView:
        """Read the next readable image of the epoch into `slot`, and return its view."""
        num_images = len(self.files)
        epoch, start = divmod(position, num_images)
        for offset in range(1, min(num_images, MAX_SKIPPED_IN_A_ROW)):
            candidate = epoch * num_images + (start + offset) % num_images
            view = self.sequence.between(candidate, candidate + 1)[0]
            if self._read(view, slot) is None:
                return view
        raise DataError(too_many_skipped(skipped))

    def _read(self, view: PhotoView, slot: UInt8[Tensor, "s s c"]) -> SkippedImage | None:
        result = self.files.attempt(view.index, lambda path: self._render(path, view, slot))
        return result if isinstance(result, SkippedImage) else None

    def _render(self, path: Path, view: PhotoView, slot: UInt8[Tensor, "s s c"]) -> None:
        size_px = self.files.size_px
        assert view.area is not None
        # The shorter side of a crop is at least this share of the picture's shorter side, so a
        # JPEG may be decoded at the fraction at which the crop still has size_px pixels.
        # open_picture decodes twice the length that it is asked for.
        share = math.sqrt(view.area * 3 / 4)
        image = open_picture(path, math.ceil(size_px / share / 2))
        slot.copy_(render(np.asarray(image), view, size_px, fill=self.fill))
