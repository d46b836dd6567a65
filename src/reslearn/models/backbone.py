"""A network as the backbone of a detector (Sec. 4.3, Appendix A): feature maps, batch norm frozen.

Shapes: images x [B, C, H, W]; maps {"stage1": [B, C1, h1, w1], ...}, the finest first.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

from jaxtyping import Float
from torch import Tensor, nn

from reslearn.models.network import Network


@final
class Backbone(nn.Module):
    """Return the maps of the stages by name, as torchvision's detectors take them.

    Args:
        net: The network. Its head is left out.
        stages: Names of `Network.stages`, in order. By default all except the stem.
        frozen_batch_norm: Do not change statistics, gamma and beta, in training either. Paper:
            Appendix A, "the BN layers are fixed during fine-tuning".

    Attributes:
        channels: Channels of each map.
        reductions: Side of the image divided by the side of each map.
        out_channels: Channels of the last map.

    Raises:
        ValueError: If the network has no stage of a name.
    """

    def __init__(
        self, net: Network, *, stages: Sequence[str] = (), frozen_batch_norm: bool = True
    ) -> None:
        super().__init__()
        available = [name for name, _ in net.named_children() if name != "head"]
        requested = list(stages) or available[1:]
        for name in requested:
            if name not in available:
                raise ValueError(f"stages={name!r}: {net.name} has {', '.join(available)}")
        self.chosen = tuple(name for name in available if name in requested)
        self.frozen_batch_norm = frozen_batch_norm
        self.body = nn.ModuleDict()
        self.channels: dict[str, int] = {}
        self.reductions: dict[str, int] = {}
        for index, name in enumerate(available[: available.index(self.chosen[-1]) + 1]):
            self.body[name] = net.get_submodule(name)
            if name in self.chosen:
                self.channels[name] = _channels(self.body[name])
                self.reductions[name] = _reduction(net, index)
        self.out_channels = self.channels[self.chosen[-1]]
        if frozen_batch_norm:
            for module in self._batch_norms():
                module.requires_grad_(False)
        self.train(net.training)

    def forward(self, x: Float[Tensor, "B C H W"]) -> dict[str, Float[Tensor, "B _ _ _"]]:
        maps: dict[str, Tensor] = {}
        for name, part in self.body.items():
            x = part(x)
            if name in self.chosen:
                maps[name] = x
        return maps

    def train(self, mode: bool = True) -> Backbone:
        """Set the mode. Frozen batch norms remain in evaluation mode."""
        super().train(mode)
        if self.frozen_batch_norm:
            for module in self._batch_norms():
                module.eval()
        return self

    def _batch_norms(self) -> list[nn.BatchNorm2d]:
        return [module for module in self.body.modules() if isinstance(module, nn.BatchNorm2d)]


def _channels(part: nn.Module) -> int:
    """Return the channels of the last convolution outside shortcuts."""
    channels = 0
    for name, module in part.named_modules():
        if isinstance(module, nn.Conv2d) and "shortcut" not in name:
            channels = module.out_channels
    return channels


def _reduction(net: Network, index: int) -> int:
    """Return the reduction after part `index`: 4 for ImageNet stems, times 2 for later stages."""
    stem = 1 if net.spec["stem"] == "cifar" else 4
    return stem << max(0, index - 1)
