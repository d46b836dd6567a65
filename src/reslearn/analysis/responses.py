"""Responses of layers (Sec. 4.2, "Analysis of layer responses", Fig. 7).

The response of a 3x3 layer is its output after batch norm, before ReLU and addition. Its strength
is the standard deviation over images, channels and positions. In evaluation mode, batch norm
outputs gamma * z + beta for each channel, where z has a mean near 0 and a variance near 1. The
figure therefore mostly shows the learned gamma and beta. `gamma_rms` makes this visible.

Shapes: output of a layer [B, C, H, W].
"""

import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from reslearn.models import Network


@dataclass(frozen=True, kw_only=True)
class LayerResponse:
    """Response of one 3x3 layer.

    Attributes:
        layer: Name of the convolution.
        standard_deviation: Standard deviation of the response.
        gamma_rms: Root mean square of the gamma of its batch norm. None without batch norm.
    """

    layer: str
    standard_deviation: float
    gamma_rms: float | None


@torch.no_grad()
def responses(net: Network, batches: Iterable[tuple[Tensor, Tensor]]) -> list[LayerResponse]:
    """Measure the response of each 3x3 layer over all images, in network order.

    Args:
        net: Runs in evaluation mode; its mode is restored.
        batches: Images, preprocessed. Labels are ignored.

    Raises:
        ValueError: If there are no images, or no 3x3 layers.
    """
    layers = {
        name: module for name, module in net.response_layers() if _is_3x3(net.get_submodule(name))
    }
    if not layers:
        raise ValueError(f"{net.name} has no 3x3 layer")
    sums: dict[str, Tensor] = {}
    was_training = net.training
    net.eval()
    try:
        with _summing_hooks(layers, sums):
            for x, _ in batches:
                net(x)
    finally:
        net.train(was_training)
    if not sums:
        raise ValueError("no images: at least one is needed to measure responses")
    return [
        LayerResponse(
            layer=name,
            standard_deviation=_standard_deviation(sums[name]),
            gamma_rms=_gamma_rms(module),
        )
        for name, module in layers.items()
    ]


@contextmanager
def _summing_hooks(layers: dict[str, nn.Module], sums: dict[str, Tensor]) -> Iterator[None]:
    """Add up [count, sum, sum of squares] of the output of each layer, in float64.

    The hook reduces the output at once, because an in-place ReLU overwrites it afterwards.
    """

    def watch(name: str, module: nn.Module) -> Any:
        def add(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            values = output.double()
            part = torch.stack(
                [values.new_tensor(values.numel()), values.sum(), values.square().sum()]
            )
            sums[name] = sums[name] + part if name in sums else part

        return module.register_forward_hook(add)

    handles = [watch(name, module) for name, module in layers.items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _standard_deviation(sums: Tensor) -> float:
    count, total, squares = sums.tolist()
    return math.sqrt(max(0.0, squares / count - (total / count) ** 2))


def _gamma_rms(module: nn.Module) -> float | None:
    if not isinstance(module, nn.BatchNorm2d):
        return None
    return float(module.weight.square().mean().sqrt())


def _is_3x3(module: nn.Module) -> bool:
    return isinstance(module, nn.Conv2d) and module.kernel_size == (3, 3)
