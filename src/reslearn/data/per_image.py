"""The per-image path: one image at a time, read, normalised, padded, cropped and mirrored by numpy; for data that do not fit memory.

It gives the same batches as `train_batches`, bit for bit, for any number of workers: both read the same table of views (views.py). Any
object with `len` and `[index] -> (uint8 [H, W, C], label)` is a source; `Images` is one.
"""

from collections.abc import Iterator
from itertools import count
from typing import Protocol, TypeVar, runtime_checkable

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float32
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from reslearn.data.batches import Batch, check_position
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

    def __init__(self, source: ImageSource, preprocess: Preprocess, *, seed: int, augment: Augment) -> None:
        self.source = source
        self.preprocess = preprocess
        self.reach_px = augment.reach_px
        self._views = ViewSequence(seed=seed, num_images=len(source), augment=augment)

    def __getitem__(self, position: int) -> tuple[Float32[Tensor, "h w c"], int]:
        view = self._views.between(position, position + 1)
        pixels, label = self.source[int(view.index)]
        top, left, flip = int(view.top), int(view.left), bool(view.flip)
        if self.preprocess.padding == "after-mean":
            seen = self._crop_and_flip(self.preprocess.normalise(torch.tensor(pixels)).numpy(), top, left, flip)
            return torch.from_numpy(seen), label
        return self.preprocess.normalise(torch.from_numpy(self._crop_and_flip(pixels, top, left, flip))), label

    def _crop_and_flip(self, image: npt.NDArray[Pixel], top: int, left: int, flip: bool) -> npt.NDArray[Pixel]:
        reach_px = self.reach_px
        padded = np.pad(image, ((reach_px, reach_px), (reach_px, reach_px), (0, 0)))
        window = padded[top : top + image.shape[0], left : left + image.shape[1]]
        return (window[:, ::-1] if flip else window).copy()  # ascontiguousarray lets the negative stride of a single column be


def image_batches(
    source: ImageSource,
    preprocess: Preprocess,
    *,
    batch_size: int,
    seed: int,
    start_step: int = 0,
    augment: Augment = PAPER_AUGMENT,
    num_workers: int = 0,
) -> Iterator[Batch]:
    """The batches of `train_batches`, made image by image in `num_workers` processes (0: in this one); on the CPU.

    Raises:
        ValueError: for a batch size below 1 or a step below 0.
    """
    check_position(batch_size, start_step)
    views = ViewsByPosition(source, preprocess, seed=seed, augment=augment)
    loader = DataLoader(
        views,
        batch_size=batch_size,
        sampler=count(start_step * batch_size),  # any iterable will do, an endless one too
        num_workers=num_workers,
        generator=torch.Generator(),  # a DataLoader draws a number it does not need here; not from the global generator
    )
    return ((batch.permute(0, 3, 1, 2), labels) for batch, labels in loader)
