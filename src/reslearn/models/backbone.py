"""A network as the backbone of a detector (Sec. 4.3, Appendix A): maps of its stages by name, batch norm frozen as the paper does.

Shapes: x [B, C, H, W] to {"stage1": [B, C1, h1, w1], ...}, finest first; `channels` and `reductions` (of the side) say what comes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

from jaxtyping import Float
from torch import Tensor, nn

from reslearn.models.network import Network


@final
class Backbone(nn.Module):
    """What torchvision's detectors and feature pyramids take: an ordered dictionary of maps, and `out_channels` of the last.

    stages: names of `Network.stages`, in order; by default all but the stem. frozen_batch_norm: statistics, gamma and beta stay as they
    are, in training too (Paper: Appendix A, "the BN layers are fixed during fine-tuning"). The head is left out.
    """

    def __init__(
        self, net: Network, *, stages: Sequence[str] = (), frozen_batch_norm: bool = True
    ) -> None:
        super().__init__()
        known = [name for name, _ in net.named_children() if name != "head"]
        chosen = list(stages) or known[1:]
        if wrong := [name for name in chosen if name not in known]:
            raise ValueError(f"stages={wrong[0]!r}: {net.name} has {', '.join(known)}")
        last = max(known.index(name) for name in chosen)
        self.body = nn.ModuleDict(
            {name: part for name, part in net.named_children() if name in known[: last + 1]}
        )
        self.chosen = tuple(name for name in known if name in chosen)
        self.frozen_batch_norm = frozen_batch_norm
        self.channels = {name: _channels(self.body[name]) for name in self.chosen}
        self.reductions = {
            name: _reduction(net, known[: known.index(name) + 1]) for name in self.chosen
        }
        self.out_channels = self.channels[self.chosen[-1]]
        if frozen_batch_norm:
            for module in self._batch_norms():
                for parameter in module.parameters():
                    parameter.requires_grad_(False)
        self.train(net.training)

    def forward(self, x: Float[Tensor, "B C H W"]) -> dict[str, Float[Tensor, "B _ _ _"]]:
        maps: dict[str, Tensor] = {}
        for name, part in self.body.items():
            x = part(x)
            if name in self.chosen:
                maps[name] = x
        return maps

    def train(self, mode: bool = True) -> Backbone:
        """As of any module, but that frozen batch norms go on normalizing by what they have."""
        super().train(mode)
        if self.frozen_batch_norm:
            for module in self._batch_norms():
                module.eval()
        return self

    def _batch_norms(self) -> list[nn.BatchNorm2d]:
        return [module for module in self.body.modules() if isinstance(module, nn.BatchNorm2d)]


def _channels(part: nn.Module) -> int:
    """Of what leaves a stem or stage: those of the last convolution that no shortcut holds."""
    convolutions = [
        module
        for name, module in part.named_modules()
        if isinstance(module, nn.Conv2d) and "shortcut" not in name
    ]
    return int(convolutions[-1].out_channels)


def _reduction(net: Network, parts: Sequence[str]) -> int:
    """By how much the side of a map is smaller than the image's: a stage but the first halves it, the stems of ImageNet quarter it."""
    return (1 if net.spec["stem"] == "cifar" else 4) << max(0, len(parts) - 2)
