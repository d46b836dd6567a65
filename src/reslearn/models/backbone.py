"""A network as a backbone: the maps of its stages, by name or as a list.

`Backbone` returns a dictionary by stage, as torchvision's detectors take it (Sec. 4.3, Appendix A).
`FeatureListNet` returns a list, as timm's `features_only=True` does.

Shapes: images x [B, C, H, W]; maps [B, C1, h1, w1], [B, C2, h2, w2], ..., the finest first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, final

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


@final
class FeatureListNet(nn.Module):
    """Return the maps of a network as a list, finest first, as timm's `features_only=True` does.

    Map 0 is the output of the stem before its max pool. Map i is the output of stage i. The
    weights have the same names as in the network.

    Args:
        net: The network. Its head is left out.
        out_indices: The maps to return. Negative numbers count from the end. A whole number n
            stands for the last n maps, and None for all.

    Attributes:
        feature_info: Channels and reductions of the returned maps.

    Raises:
        ValueError: If the network has no map of an index, or no map is chosen.
    """

    def __init__(self, net: Network, out_indices: int | Sequence[int] | None = None) -> None:
        super().__init__()
        names = [name for name, _ in net.named_children() if name != "head"]
        indices = _map_indices(out_indices, names)
        for name in names[: indices[-1] + 1]:
            self.add_module(name, net.get_submodule(name))
        info = tuple(_map_info(net, index, name) for index, name in enumerate(names))
        self.feature_info = FeatureInfo(info=info, out_indices=indices)
        self.train(net.training)

    def forward(self, x: Float[Tensor, "B C H W"]) -> list[Float[Tensor, "B _ _ _"]]:
        stem, *stages = self.children()
        maps: list[Tensor] = []
        for name, layer in stem.named_children():
            if name == "pool":
                maps.append(x)
            x = layer(x)
        if not maps:
            maps.append(x)
        for stage in stages:
            x = stage(x)
            maps.append(x)
        return [maps[index] for index in self.feature_info.out_indices]


@dataclass(frozen=True, kw_only=True)
class FeatureInfo:
    """The maps of a `FeatureListNet`, with the methods and the keys of timm's class.

    Attributes:
        info: For each map of the network its channels ("num_chs"), the side of the image divided
            by the side of the map ("reduction"), and the name of the module that returns it
            ("module").
        out_indices: The maps that are returned, in increasing order.
    """

    info: tuple[dict[str, Any], ...]
    out_indices: tuple[int, ...]

    def channels(self) -> list[int]:
        """Return the number of channels of each returned map."""
        return [self.info[index]["num_chs"] for index in self.out_indices]

    def reduction(self) -> list[int]:
        """Return the reduction of each returned map."""
        return [self.info[index]["reduction"] for index in self.out_indices]

    def module_name(self) -> list[str]:
        """Return the name of the module of each returned map."""
        return [self.info[index]["module"] for index in self.out_indices]


def _map_indices(out_indices: int | Sequence[int] | None, names: Sequence[str]) -> tuple[int, ...]:
    """Return the indices of the maps in increasing order, counted from 0."""
    count = len(names)
    if out_indices is None:
        return tuple(range(count))
    if isinstance(out_indices, int):
        indices = list(range(count - out_indices, count))
    else:
        indices = [index + count if index < 0 else index for index in out_indices]
    if not indices or min(indices) < 0 or max(indices) >= count:
        raise ValueError(
            f"out_indices={out_indices!r}: the maps are 0 ({names[0]}) to {count - 1} "
            f"({names[-1]}); a number alone means the last so many of them"
        )
    return tuple(sorted(set(indices)))


def _map_info(net: Network, index: int, name: str) -> dict[str, Any]:
    """Return the entry of `FeatureInfo.info` for a map. Map 0 is taken before the max pool."""
    part, module, reduction = net.get_submodule(name), name, _reduction(net, index)
    if index == 0:
        layers = [layer for layer, _ in part.named_children()]
        if layers[-1] == "pool":
            layers, reduction = layers[:-1], reduction // 2
        module = f"{name}.{layers[-1]}"
    return {"num_chs": _channels(part), "reduction": reduction, "module": module}


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
