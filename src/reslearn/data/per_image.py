"""The per-image loader, for data that do not fit into memory.

One image at a time is read, normalized, padded, cropped and mirrored by numpy. With an `Augment` it
gives the same batches as `train_batches`, bit for bit, since both read the same `ViewSequence`. Its
source is any object with `len` and `[index] -> (uint8 [H, W, C], label)`, such as `Images`. With a
`Jitter` the source are picture files. Step t is a pure function of (seed, t) for any number of
workers.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any, Protocol, TypeVar, runtime_checkable

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float32
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, default_collate

from reslearn.data.batches import (
    PAPER_AUGMENT,
    Augment,
    Batch,
    ViewSequence,
    check_batches,
    share_starts,
)
from reslearn.data.errors import DataError, PictureError
from reslearn.data.files import Files
from reslearn.data.jitter import Jitter, JitteredImages
from reslearn.data.preprocess import Preprocess
from reslearn.data.skipped import MAX_SKIPPED_IN_A_ROW, SkipLog, SkippedImage, too_many_skipped

Pixel = TypeVar("Pixel", bound=np.generic)


@runtime_checkable
class ImageSource(Protocol):
    """Images that are read one by one."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> tuple[npt.NDArray[np.uint8], int]: ...


def image_batches(
    source: ImageSource | Files,
    preprocess: Preprocess,
    *,
    batch_size: int,
    seed: int,
    start_step: int = 0,
    augment: Augment | Jitter = PAPER_AUGMENT,
    num_workers: int = 0,
    share: tuple[int, int] = (0, 1),
) -> Iterator[Batch]:
    """Return an endless iterator over full batches whose images are read one by one.

    With an `Augment` the result equals `train_batches`. With a `Jitter`, which needs picture files,
    batches follow Sec. 3.4. They are on the device of `preprocess`.

    Args:
        num_workers: Processes that read images. 0 reads them in this process.
        share: As in `train_batches`.

    Raises:
        ValueError: If `batch_size` is below 1 or not divisible, or `start_step` is below 0.
        DataError: While iterating, if no image can be read. A single image that cannot be read is
            replaced by the next one in the order of the epoch, and added to `source.skip_log`.
    """
    check_batches(batch_size, start_step, share)
    images: AugmentedImages | JitteredImages
    if isinstance(augment, Jitter):
        if not isinstance(source, Files):
            raise DataError(
                "scale jitter resizes picture files: it needs a folder of images, left on disk"
            )
        images = JitteredImages(source, preprocess, seed=seed, jitter=augment)
    else:
        images = AugmentedImages(source, preprocess.to("cpu"), seed=seed, augment=augment)
    part_size = batch_size // share[1]
    loader: DataLoader[Any] = DataLoader(
        _Replacing(images, len(source)),
        batch_size=part_size,
        # A DataLoader accepts any iterable as a sampler, even an endless one.
        sampler=_positions(share_starts(batch_size, start_step, share), part_size),
        num_workers=num_workers,
        collate_fn=_collate,
        worker_init_fn=_leave_process_group,
        pin_memory=preprocess.device.type == "cuda",
        # A DataLoader draws a number that is not needed here. Keep the global generator as it is.
        generator=torch.Generator(),
    )
    skip_log = source.skip_log if isinstance(source, Files) else SkipLog()
    return _finished_batches(loader, images, preprocess.device, skip_log)


def _positions(starts: Iterator[int], part_size: int) -> Iterator[int]:
    for start in starts:
        yield from range(start, start + part_size)


def _finished_batches(
    loader: DataLoader[Any],
    images: AugmentedImages | JitteredImages,
    device: torch.device,
    skip_log: SkipLog,
) -> Iterator[Batch]:
    for batch, skipped in loader:
        if isinstance(batch, str):
            raise DataError(batch)
        for image in skipped:
            skip_log.add(image)
        *inputs, labels = (part.to(device, non_blocking=True) for part in batch)
        yield images.finish(*inputs).permute(0, 3, 1, 2), labels


class AugmentedImages(Dataset[tuple[Tensor, int]]):
    """Map a position in training to (float32 [H, W, C] as the network sees it, label).

    This is a pure function, so any torch DataLoader may read it.
    """

    def __init__(
        self, source: ImageSource, preprocess: Preprocess, *, seed: int, augment: Augment
    ) -> None:
        self.source = source
        self.preprocess = preprocess
        if augment.balance:
            raise ValueError("balanced classes need images in memory: use train_batches")
        self.max_shift_px = augment.max_shift_px
        self._views = ViewSequence(seed=seed, num_images=len(source), augment=augment)

    def __getitem__(self, position: int) -> tuple[Float32[Tensor, "h w c"], int]:
        view = self._views.between(position, position + 1)
        pixels, label = self.source[int(view.index)]
        top_px, left_px, flip = int(view.top_px), int(view.left_px), bool(view.flip)
        if self.preprocess.padding == "after-mean":
            normalized = self.preprocess.normalize(torch.tensor(pixels)).numpy()
            return torch.from_numpy(self._crop_and_flip(normalized, top_px, left_px, flip)), label
        cropped = torch.from_numpy(self._crop_and_flip(pixels, top_px, left_px, flip))
        return self.preprocess.normalize(cropped), label

    def finish(self, batch: Float32[Tensor, "b h w c"]) -> Float32[Tensor, "b h w c"]:
        """Return the batch unchanged: its images are already normalized."""
        return batch

    def _crop_and_flip(
        self, image: npt.NDArray[Pixel], top_px: int, left_px: int, flip: bool
    ) -> npt.NDArray[Pixel]:
        padding = (self.max_shift_px, self.max_shift_px)
        padded = np.pad(image, (padding, padding, (0, 0)))
        window = padded[top_px : top_px + image.shape[0], left_px : left_px + image.shape[1]]
        # `ascontiguousarray` would leave the negative stride of a single column.
        return (window[:, ::-1] if flip else window).copy()


class _Replacing(Dataset[Any]):
    """Replace an image that cannot be read by the next readable one of the same epoch.

    The result is a pure function of the position, so it is the same for any number of workers and
    after a resume. Errors are returned as text: a DataLoader would wrap them in the traceback of
    its worker.
    """

    def __init__(self, images: AugmentedImages | JitteredImages, num_images: int) -> None:
        self.images = images
        self.num_images = num_images

    def __getitem__(self, position: int) -> tuple[Any, list[SkippedImage]]:
        """Return an item or an error message, and the images that were skipped before it."""
        epoch, start = divmod(position, self.num_images)
        skipped: list[SkippedImage] = []
        for offset in range(min(self.num_images, MAX_SKIPPED_IN_A_ROW)):
            order = (start + offset) % self.num_images
            try:
                return self.images[epoch * self.num_images + order], skipped
            except PictureError as error:
                if error.path is None:
                    return str(error), skipped
                skipped.append(SkippedImage(error.path, error.reason))
            except DataError as error:
                return str(error), skipped
        return too_many_skipped(skipped[0]), skipped


def _collate(items: list[tuple[Any, list[SkippedImage]]]) -> tuple[Any, list[SkippedImage]]:
    skipped = [image for _, images in items for image in images]
    for item, _ in items:
        if isinstance(item, str):
            return item, skipped
    return default_collate([item for item, _ in items]), skipped


def _leave_process_group(worker: int) -> None:
    """Protect a worker from signals to the group (Ctrl-C, `timeout`).

    They are meant for the training process, which needs batches until its step is done.
    """
    os.setpgrp()
