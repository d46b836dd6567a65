"""The order of the images if all classes are shown equally often.

An epoch of N images has N slots. Slot j belongs to class j % K, so classes differ by one slot at
most. The images of a class take its slots in turn, over all epochs, so each of them is shown
equally often. Crops and mirroring are drawn for the slot: an image that is shown twice in an epoch
is cropped in two ways. The result is a pure function of the labels, one order and the epoch.
"""

from __future__ import annotations

import torch
from jaxtyping import Int64
from torch import Tensor


class BalancedOrder:
    """The images of the slots of each epoch.

    Args:
        labels: Classes of the images, int64 [N].
        order: A permutation, int64 [N]: the order in which the images of a class take turns.
    """

    def __init__(self, labels: Int64[Tensor, n], order: Int64[Tensor, n]) -> None:
        self._num_images = len(labels)
        counts = torch.bincount(labels)
        present = counts.nonzero().flatten()  # a class without images has no slots
        self._by_class = order[torch.argsort(labels[order], stable=True)]
        slots = torch.arange(self._num_images, device=labels.device)
        numbers = slots % len(present)
        classes = present[numbers]
        self._first = (counts.cumsum(0) - counts)[classes]
        self._count = counts[classes]
        self._turn = slots // len(present)
        self._turns_per_epoch = (self._num_images - 1 - numbers) // len(present) + 1
        self._last: tuple[int, Int64[Tensor, n]] | None = None

    def images(self, epoch: int) -> Int64[Tensor, n]:
        """Return the index of the image of each slot, int64 [N]. The last epoch is kept."""
        if self._last is None or self._last[0] != epoch:
            turn = epoch * self._turns_per_epoch + self._turn
            self._last = epoch, self._by_class[self._first + turn % self._count]
        return self._last[1]
