"""The per-image path: one image at a time, read, normalized, padded, cropped and mirrored by numpy; for data that do not fit memory.

With an `Augment` it gives the same batches as `train_batches`, bit for bit: both read the same table of views (views.py). Any object with
`len` and `[index] -> (uint8 [H, W, C], label)` is then a source; `Images` is one. With a `Jitter` the source are picture files. Step t is
a pure function of (seed, t), whatever the number of workers.
"""

import os
from collections.abc import Iterator
from itertools import count
from typing import Any, Protocol, TypeVar, runtime_checkable

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float32
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, default_collate

from reslearn.data.batches import Batch, check_position
from reslearn.data.errors import DataError
from reslearn.data.files import Files
from reslearn.data.jitter import Jitter, JitteredViews
from reslearn.data.preprocess import Preprocess
from reslearn.data.views import PAPER_AUGMENT, Augment, ViewSequence

Pixel = TypeVar("Pixel", bound=np.generic)


@runtime_checkable
class ImageSource(Protocol):
    """Images that are read one by one."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> tuple[npt.NDArray[np.uint8], int]: ...


class ViewsByPosition(Dataset[tuple[Tensor, int]]):
    """Position in training -> (float32 [H, W, C] as the network sees it, label): a pure function, so any torch DataLoader may read it."""

    def __init__(
        self, source: ImageSource, preprocess: Preprocess, *, seed: int, augment: Augment
    ) -> None:
        self.source = source
        self.preprocess = preprocess
        self.reach_px = augment.reach_px
        self._views = ViewSequence(seed=seed, num_images=len(source), augment=augment)

    def __getitem__(self, position: int) -> tuple[Float32[Tensor, "h w c"], int]:
        view = self._views.between(position, position + 1)
        pixels, label = self.source[int(view.index)]
        top, left, flip = int(view.top), int(view.left), bool(view.flip)
        if self.preprocess.padding == "after-mean":
            seen = self._crop_and_flip(
                self.preprocess.normalize(torch.tensor(pixels)).numpy(), top, left, flip
            )
            return torch.from_numpy(seen), label
        return self.preprocess.normalize(
            torch.from_numpy(self._crop_and_flip(pixels, top, left, flip))
        ), label

    def finish(self, seen: Float32[Tensor, "b h w c"]) -> Float32[Tensor, "b h w c"]:
        """A batch is what its images are."""
        return seen

    def _crop_and_flip(
        self, image: npt.NDArray[Pixel], top: int, left: int, flip: bool
    ) -> npt.NDArray[Pixel]:
        reach_px = self.reach_px
        padded = np.pad(image, ((reach_px, reach_px), (reach_px, reach_px), (0, 0)))
        window = padded[top : top + image.shape[0], left : left + image.shape[1]]
        return (
            window[:, ::-1] if flip else window
        ).copy()  # ascontiguousarray lets the negative stride of a single column be


class _Told(Dataset[Any]):
    """An image that cannot be read becomes its one line: a DataLoader would pass an error on wrapped in the worker's traceback."""

    def __init__(self, views: ViewsByPosition | JitteredViews) -> None:
        self.views = views

    def __getitem__(self, position: int) -> Any:
        try:
            return self.views[position]
        except DataError as error:
            return str(error)


def _collate(items: list[Any]) -> Any:
    return next((item for item in items if isinstance(item, str)), None) or default_collate(items)


def _in_a_group_of_its_own(worker: int) -> None:
    """A signal to the group (Ctrl-C, `timeout`) is for the process that trains, which still wants batches until its step is done."""
    os.setpgrp()


def image_batches(
    source: ImageSource | Files,
    preprocess: Preprocess,
    *,
    batch_size: int,
    seed: int,
    start_step: int = 0,
    augment: Augment | Jitter = PAPER_AUGMENT,
    num_workers: int = 0,
    device: torch.device | str = "cpu",
    share: tuple[int, int] = (0, 1),
) -> Iterator[Batch]:
    """Endless full batches (x float32 [B, C, H, W] channels_last, y int64 [B]), images read by `num_workers` processes (0: this one).

    With an `Augment` those of `train_batches`; with a `Jitter`, which needs picture files, those of Sec. 3.4. `share` as there.

    Raises:
        ValueError: for a batch size below 1 or a step below 0.
        DataError: at the batch of an image that cannot be read, in one line that names the file.
    """
    check_position(batch_size, start_step, share)
    views: ViewsByPosition | JitteredViews
    if isinstance(augment, Jitter):
        if not isinstance(source, Files):
            raise DataError(
                "scale jitter resizes picture files: it needs a folder of images, left on disk"
            )
        views = JitteredViews(source, preprocess.to(device), seed=seed, jitter=augment)
    else:
        views = ViewsByPosition(source, preprocess, seed=seed, augment=augment)
    loader: DataLoader[Any] = DataLoader(
        _Told(views),
        batch_size=batch_size // share[1],
        sampler=_positions(
            batch_size, start_step, share
        ),  # any iterable will do, an endless one too
        num_workers=num_workers,
        collate_fn=_collate,
        worker_init_fn=_in_a_group_of_its_own,
        pin_memory=torch.device(device).type == "cuda",
        generator=torch.Generator(),  # a DataLoader draws a number it does not need here; not from the global generator
    )
    return _finished(loader, views, device)


def _positions(batch_size: int, start_step: int, share: tuple[int, int]) -> Iterator[int]:
    """Those of this share of each batch, batch after batch."""
    which, size = share[0], batch_size // share[1]
    for step in count(start_step):
        begin = step * batch_size + which * size
        yield from range(begin, begin + size)


def _finished(
    loader: DataLoader[Any], views: ViewsByPosition | JitteredViews, device: torch.device | str
) -> Iterator[Batch]:
    for batch in loader:
        if isinstance(batch, str):
            raise DataError(batch)
        *seen, labels = (part.to(device, non_blocking=True) for part in batch)
        yield views.finish(*seen).permute(0, 3, 1, 2), labels
