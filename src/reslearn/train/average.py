"""An exponential moving average of the weights, evaluated and kept in place of the last ones; and its neutral stand-in."""

import copy

import torch
from torch import nn


class NoAverage:
    """The neutral average: the network is what it is."""

    def update(self) -> None:
        """Nothing to do."""


class Average:
    """`network` follows `model`: after each step, average = decay x average + (1 - decay) x weight; batch-norm statistics too.

    The decay starts small, min(decay, (1 + t) / (10 + t)) at update t, so that the random start does not linger.
    """

    def __init__(self, model: nn.Module, *, decay: float) -> None:
        self.decay = decay
        self.num_updates = 0
        self.network = copy.deepcopy(model).eval().requires_grad_(False)
        pairs = list(
            zip(self.network.state_dict().values(), model.state_dict().values(), strict=True)
        )
        self._floats = [pair for pair in pairs if pair[0].is_floating_point()]
        self._others = [pair for pair in pairs if not pair[0].is_floating_point()]

    @torch.no_grad()
    def update(self) -> None:
        """Follow the step that was just made."""
        decay = min(self.decay, (1 + self.num_updates) / (10 + self.num_updates))
        self.num_updates += 1
        torch._foreach_lerp_(
            [mine for mine, _ in self._floats], [theirs for _, theirs in self._floats], 1 - decay
        )
        for mine, theirs in self._others:
            mine.copy_(theirs)
