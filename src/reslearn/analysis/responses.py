"""Responses of layers (Sec. 4.2 "Analysis of layer responses", Fig. 7).

The response of a 3x3 layer is its output after batch norm and before ReLU and addition; its strength is the standard deviation over
images, channels and positions. In evaluation mode batch norm makes each channel's output gamma * z + beta, with z near mean 0 and
variance 1: the figure reads the learned gamma (and beta). `gamma_rms` stands beside each value so that this can be seen.
Shapes: a layer's output [B, C, H, W].
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
    """One 3x3 layer; `gamma_rms` is the root mean square of its batch norm's gamma, None without batch norm."""

    layer: str
    standard_deviation: float
    gamma_rms: float | None


@torch.no_grad()
def responses(net: Network, batches: Iterable[tuple[Tensor, Tensor]]) -> list[LayerResponse]:
    """Each 3x3 layer in network order, over all images of `batches`, in evaluation mode. `net` is left as it was.

    ValueError where there is no image, or no 3x3 layer.
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
        with _watched(layers, sums):
            for x, _ in batches:
                net(x)
    finally:
        net.train(was_training)
    if not sums:
        raise ValueError("no image to respond to")
    return [
        LayerResponse(
            layer=name,
            standard_deviation=_standard_deviation(sums[name]),
            gamma_rms=_gamma_rms(module),
        )
        for name, module in layers.items()
    ]


@contextmanager
def _watched(layers: dict[str, nn.Module], sums: dict[str, Tensor]) -> Iterator[None]:
    """Adds [count, sum, sum of squares], float64, of each layer's output; reduced at once, because a ReLU overwrites it afterwards."""

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
    return (
        float(module.weight.square().mean().sqrt()) if isinstance(module, nn.BatchNorm2d) else None
    )


def _is_3x3(module: nn.Module) -> bool:
    return isinstance(module, nn.Conv2d) and module.kernel_size == (3, 3)
