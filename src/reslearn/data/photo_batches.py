"""Batches of augmented photos, from memory or from picture files: the path of the table [augment].

The order of work on a batch is: crop, mirror and change the geometry in one resampling; change the
colors; normalize; erase; mix pairs. All draws come from photo_views.py and mixing.py, so a batch is
a pure function of (seed, step). Only resampling differs between CPU and GPU, by a gray level or
two: the CPU uses antialiasing.

On the CPU, threads do the work on a few images at a time, which stay in the cache, and two batches
ahead. Decoding and resampling release the interpreter lock, and threads need no copy of the pixels
between processes. On a GPU, images in memory are processed there, a batch at a time.

Shapes: B images a batch, S = size_px, C channels, K classes.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from itertools import count
from pathlib import Path
from typing import Protocol

import torch
from jaxtyping import Float32, UInt8
from torch import Tensor

from reslearn.data.batches import ViewTable, balanced_order, check_batches, crop_and_flip
from reslearn.data.errors import DataError
from reslearn.data.files import Files
from reslearn.data.images import Images, ImageSet
from reslearn.data.jpeg import decode_picture
from reslearn.data.mixing import (
    check_pairs,
    draw_mixtures,
    erase_rectangles,
    mix_images,
    mix_labels,
)
from reslearn.data.photo_views import PhotoAugment, PhotoSequence, PhotoView
from reslearn.data.preprocess import Preprocess
from reslearn.data.resample import affine, crop_box, matrix, render
from reslearn.data.skipped import MAX_SKIPPED_IN_A_ROW, SkippedImage, too_many_skipped
from reslearn.data.trivial_augment import change_colors

PixelBatch = UInt8[Tensor, "b s s c"]
SoftBatch = tuple[Float32[Tensor, "b c h w"], Tensor]
_BATCHES_AHEAD = 2
_IMAGES_PER_TASK = 4  # a task costs a thread about as much as a tenth of an image


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
        num_workers: Threads that work ahead. Batches do not depend on it.
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
    source = _image_source(images, preprocess, sequence)
    finished = _finished(source, sequence, first_positions, part_size, max(1, num_workers))
    labels = images.labels.to(preprocess.device)

    def batches() -> Iterator[SoftBatch]:
        for step, (views, x) in enumerate(finished, start_step):
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


class CropSource(Protocol):
    """Views to images. `work` is done by workers, and `finish` by the training thread."""

    def empty(self, num_images: int) -> Tensor:
        """Return the tensor for the work on a batch, on the CPU."""

    def work(self, batch: PendingBatch, start: int, stop: int) -> None:
        """Fill some rows of a batch."""

    def finish(self, batch: PendingBatch) -> Float32[Tensor, "b s s c"]:
        """Return normalized images on the device of the training."""


@dataclass(frozen=True, kw_only=True)
class PendingBatch:
    """A batch in work. A view is replaced if its file cannot be read."""

    first_position: int
    views: list[PhotoView]
    rows: Tensor


def _image_source(
    images: ImageSet, preprocess: Preprocess, sequence: PhotoSequence
) -> CropSource | ShiftedImages | TurnedImages:
    steps = PixelSteps(preprocess, sequence.augment)
    if isinstance(images, Files):
        return FileSource(files=images, steps=steps, sequence=sequence)
    if sequence.augment.crop_area is None:
        return ShiftedImages(images, steps)
    if preprocess.device.type == "cpu":
        return CroppedImages(images, steps)
    return TurnedImages(images, steps)


def _finished(
    source: CropSource | ShiftedImages | TurnedImages,
    sequence: PhotoSequence,
    first_positions: Iterable[int],
    size: int,
    num_workers: int,
) -> Iterator[tuple[list[PhotoView], Tensor]]:
    """Yield the views and the normalized images of each batch, in order."""
    view_lists = ((first, sequence.between(first, first + size)) for first in first_positions)
    if isinstance(source, ShiftedImages | TurnedImages):
        return ((views, source.batch(views)) for _, views in view_lists)
    return _work_in_threads(source, view_lists, num_workers)


def _work_in_threads(
    source: CropSource, view_lists: Iterable[tuple[int, list[PhotoView]]], num_workers: int
) -> Iterator[tuple[list[PhotoView], Tensor]]:
    pending: deque[tuple[PendingBatch, list[Future[None]]]] = deque()
    pool = _pool(num_workers)
    try:
        for first, views in view_lists:
            size = len(views)
            batch = PendingBatch(first_position=first, views=views, rows=source.empty(size))
            tasks = []
            for start in range(0, size, _IMAGES_PER_TASK):
                stop = min(start + _IMAGES_PER_TASK, size)
                tasks.append(pool.submit(source.work, batch, start, stop))
            pending.append((batch, tasks))
            if len(pending) > _BATCHES_AHEAD:
                batch, tasks = pending.popleft()
                for task in tasks:
                    task.result()
                yield batch.views, source.finish(batch)
    finally:
        pool.shutdown(cancel_futures=True)


def _pool(num_workers: int) -> ThreadPoolExecutor:
    """Return a pool whose threads each compute with one thread.

    Otherwise torch would start a team of threads for each of them, and they would wait for each
    other. `set_num_threads` counts for its thread and for threads that start later, so the training
    thread sets its own number again.
    """
    num_threads = torch.get_num_threads()
    all_started = threading.Barrier(num_workers)
    pool = ThreadPoolExecutor(num_workers, initializer=torch.set_num_threads, initargs=(1,))
    for task in [pool.submit(all_started.wait) for _ in range(num_workers)]:
        task.result()
    torch.set_num_threads(num_threads)
    return pool


@dataclass(frozen=True)
class PixelSteps:
    """The steps from resampled pixels to the input of a network, before images are mixed."""

    preprocess: Preprocess
    augment: PhotoAugment

    @property
    def device(self) -> torch.device:
        return self.preprocess.device

    @cached_property
    def fill_color(self) -> tuple[float, ...]:
        """The color outside of a picture: black, or the mean color, which becomes zero."""
        preprocess = self.preprocess
        if preprocess.padding == "black":
            return (0.0,) * preprocess.channels
        mean = preprocess.mean.cpu()
        if mean.ndim == 3:
            mean = mean.mean(dim=(0, 1))
        return tuple(mean.round().clamp(0, 255).tolist())

    def __call__(self, pixels: PixelBatch, views: list[PhotoView]) -> Float32[Tensor, "b s s c"]:
        if self.augment.policy == "trivial":
            pixels = change_colors(pixels, views)
        return self.erase(self.preprocess.normalize(pixels), views)

    def fill(
        self, rows: Float32[Tensor, "b s s c"], pixels: PixelBatch, views: list[PhotoView]
    ) -> None:
        """Write what `__call__` returns into `rows`, image by image, which caches can hold."""
        if self.augment.policy == "trivial":
            pixels = change_colors(pixels, views)
        for row, image in zip(rows, pixels, strict=True):
            self.preprocess.normalize(image, out=row)
        self.erase(rows, views)

    def erase(
        self, x: Float32[Tensor, "b s s c"], views: list[PhotoView]
    ) -> Float32[Tensor, "b s s c"]:
        return erase_rectangles(x, views) if self.augment.erase else x


class CroppedImages:
    """Random resized crops of images in memory, by the CPU."""

    def __init__(self, images: Images, steps: PixelSteps) -> None:
        whole_pictures = images.whole_pictures
        self.size_px = images.size_px
        self.pixels = images.pixels if whole_pictures is None else whole_pictures.pixels
        self.shapes = [1.0] * len(images)
        if whole_pictures is not None:
            self.shapes = whole_pictures.shapes.tolist()
        self.steps = steps
        self.fill = steps.fill_color

    def empty(self, num_images: int) -> Tensor:
        return torch.empty((num_images, self.size_px, self.size_px, self.pixels.shape[3]))

    def work(self, batch: PendingBatch, start: int, stop: int) -> None:
        views, rows = batch.views[start:stop], batch.rows[start:stop]
        pixels = torch.empty(rows.shape, dtype=torch.uint8)
        pictures = self.pixels.numpy()
        for row, view in enumerate(views):
            shape = self.shapes[view.index]
            pixels[row] = render(
                pictures[view.index], view, self.size_px, fill=self.fill, shape=shape
            )
        self.steps.fill(rows, pixels, views)

    def finish(self, batch: PendingBatch) -> Float32[Tensor, "b s s c"]:
        return batch.rows


class TurnedImages:
    """Random resized crops of images in memory, by a GPU, a batch at a time."""

    def __init__(self, images: Images, steps: PixelSteps) -> None:
        source = CroppedImages(images, steps)
        self.size_px, self.shapes, self.steps = source.size_px, source.shapes, steps
        self.pixels = source.pixels.to(steps.device)
        self.fill = torch.tensor(source.fill)

    def batch(self, views: list[PhotoView]) -> Float32[Tensor, "b s s c"]:
        height, width = self.pixels.shape[1:3]
        matrices = []
        for view in views:
            box = crop_box(view, width, height, self.shapes[view.index])
            matrices.append(matrix(view, box, width, height))
        index = torch.tensor([view.index for view in views]).to(self.pixels.device)
        rows = self.pixels.index_select(0, index)
        pixels = affine(rows, torch.tensor(matrices), self.size_px, fill=self.fill)
        return self.steps(pixels, views)


class ShiftedImages:
    """Padded crops of images in memory, as `train_batches` cuts them, and geometric changes."""

    def __init__(self, images: Images, steps: PixelSteps) -> None:
        self.pixels = images.pixels.to(steps.device)
        self.steps = steps
        self.fill = torch.tensor(steps.fill_color, device=steps.device)

    def batch(self, views: list[PhotoView]) -> Float32[Tensor, "b s s c"]:
        device, shift = self.pixels.device, self.steps.augment.base.max_shift_px
        index = torch.tensor([view.index for view in views]).to(device)
        corners = torch.tensor([view.shift_px for view in views]).to(device) + shift
        flip = torch.tensor([view.flip for view in views]).to(device)
        table = ViewTable(index, corners[:, 0], corners[:, 1], flip)
        pixels = self.pixels.index_select(0, index)
        preprocess = self.steps.preprocess
        if self.steps.augment.policy == "none" and preprocess.padding == "after-mean":
            # The same operations as in train_batches, so the padding is exactly 0.
            x = crop_and_flip(preprocess.normalize(pixels), table, shift)
            return self.steps.erase(x, views)
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
        return self.steps(cropped, views)


@dataclass(frozen=True, kw_only=True)
class FileSource:
    """Random resized crops of picture files.

    Workers do everything for a training on the CPU. For a GPU they deliver bytes. A file that
    cannot be read is replaced by the next readable one of the same epoch, so a batch stays a pure
    function of its positions.
    """

    files: Files
    steps: PixelSteps
    sequence: PhotoSequence

    def empty(self, num_images: int) -> Tensor:
        size_px, has_gpu = self.files.size_px, self.steps.device.type == "cuda"
        shape = (num_images, size_px, size_px, self.files.channels)
        dtype = torch.uint8 if has_gpu else torch.float32
        return torch.empty(shape, dtype=dtype, pin_memory=has_gpu)

    def work(self, batch: PendingBatch, start: int, stop: int) -> None:
        rows = batch.rows[start:stop]
        pixels = torch.empty(rows.shape, dtype=torch.uint8)
        for row in range(start, stop):
            skipped = self._read(batch.views[row], pixels[row - start])
            if skipped is not None:
                position = batch.first_position + row
                batch.views[row] = self._replace(position, pixels[row - start], skipped)
        if rows.dtype == torch.uint8:
            rows.copy_(pixels)
        else:
            self.steps.fill(rows, pixels, batch.views[start:stop])

    def finish(self, batch: PendingBatch) -> Float32[Tensor, "b s s c"]:
        if batch.rows.dtype == torch.uint8:
            pixels = batch.rows.to(self.steps.device, non_blocking=True)
            return self.steps(pixels, batch.views)
        return batch.rows

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
        size_px = self.files.size_px

        def render_file(path: Path) -> None:
            picture = decode_picture(path, view.half_shorter_px(size_px))
            slot.copy_(render(picture, view, size_px, fill=self.steps.fill_color))

        result = self.files.attempt(view.index, render_file)
        return result if isinstance(result, SkippedImage) else None
