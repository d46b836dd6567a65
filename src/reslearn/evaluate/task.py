"""One trained network with the images that it is evaluated on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float32, Int64, UInt8
from torch import Tensor, nn

from reslearn.data import Files, Images, ImageSet, Preprocess, eval_batches


@dataclass(frozen=True, kw_only=True, eq=False)
class EvaluationTask:
    """A network, its images, and how to compute.

    Attributes:
        name: Name of the run or bundle, for progress bars.
        network: The network, on `device`.
        classes: Names of the classes.
        preprocess: Turns pixels into the input of the network.
        temperature: The logits are divided by it; None if none was fitted.
        images: The images, in memory or on disk.
        files: The same images as picture files, if there are any.
        device: Where to compute.
        autocast: Makes the context of a forward pass.
        batch_size: Images in a batch.
    """

    name: str
    network: nn.Module
    classes: tuple[str, ...]
    preprocess: Preprocess
    temperature: float | None
    images: ImageSet
    files: Files | None
    device: torch.device | str = "cpu"
    autocast: Callable[[], AbstractContextManager[object]] = nullcontext
    batch_size: int = 500

    def batches(self) -> Iterator[tuple[Float32[Tensor, "b c h w"], Int64[Tensor, b]]]:
        """Return all images once, in order, preprocessed."""
        return eval_batches(
            self.images, self.preprocess, batch_size=self.batch_size, device=self.device
        )

    def readable(self) -> EvaluationTask:
        """Return the task without picture files that could not be read when all were read."""
        images = self.images.readable() if isinstance(self.images, Files) else self.images
        files = None if self.files is None else self.files.readable()
        return replace(self, images=images, files=files)

    def with_images(self, images: ImageSet) -> EvaluationTask:
        """Return the task for other images. Their files are not known."""
        return replace(self, images=images, files=None)

    def pixel_batches(self) -> Iterator[tuple[UInt8[Tensor, "b h w c"], Int64[Tensor, b]]]:
        """Return the pixels that the network sees of all images, in order, on `device`."""
        channels = self.preprocess.channels
        # A mean of 0 and a scale of 1 leave the pixels as they are read.
        unchanged = replace(self.preprocess, mean=torch.zeros(channels), scale=torch.ones(channels))
        for pixels, labels in eval_batches(
            self.images, unchanged, batch_size=self.batch_size, device=self.device
        ):
            yield pixels.permute(0, 2, 3, 1).to(torch.uint8), labels


def select(images: ImageSet, index: Int64[Tensor, m]) -> ImageSet:
    """Return the images at the given indices."""
    if isinstance(images, Images):
        return Images(images.pixels[index], images.labels[index])
    return images.select(index)
