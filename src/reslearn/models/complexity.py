"""Parameters, multiply-adds and activation sizes of a network, layer by layer (Table 1, Table 6; claim C12).

Derived by running the network's own forward on the meta device: shapes without memory, so that even resnet1202
takes two seconds. What the paper calls FLOPs are multiply-adds (MACs) of convolutions and fully connected layers.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

_BATCH = 2  # batch norm refuses to normalize a single value; all figures are of one image


@dataclass(frozen=True, kw_only=True)
class Layer:
    """One call of one module without children. output_shape is that of one image; macs are zero but for convolutions and fc."""

    name: str
    kind: str
    output_shape: tuple[int, ...]
    parameters: int
    macs: int


@dataclass(frozen=True, kw_only=True)
class Complexity:
    """Of one image. activations: numbers put out by convolutions and fc, the part of the memory of training that depth brings."""

    parameters: int
    macs: int
    activations: int
    layers: tuple[Layer, ...]


def complexity(net: nn.Module, input_shape: Sequence[int] = (3, 32, 32)) -> Complexity:
    """Count a network for inputs of this shape (without the batch dimension). The network, its mode and its weights are untouched.

    Built under `torch.device("meta")` the network itself takes no memory either. A weight that is shared counts once.
    Raises ValueError where the network cannot take such an input.
    """
    shapes = {
        name: _on_meta(tensor)
        for name, tensor in chain(net.named_parameters(), net.named_buffers())
    }
    dtype = next((parameter.dtype for parameter in net.parameters()), torch.float32)
    x = torch.empty(_BATCH, *input_shape, device="meta", dtype=dtype)
    layers: list[Layer] = []
    with torch.no_grad(), _recorded(net, layers):
        try:
            functional_call(net, shapes, (x,))
        except (RuntimeError, ValueError, TypeError) as error:
            raise ValueError(
                f"input_shape={tuple(input_shape)}: the network cannot take it: {str(error).splitlines()[0]}"
            ) from error
    return Complexity(
        parameters=sum(parameter.numel() for parameter in net.parameters()),
        macs=sum(layer.macs for layer in layers),
        activations=sum(math.prod(layer.output_shape) for layer in layers if layer.macs),
        layers=tuple(layers),
    )


@contextmanager
def _recorded(net: nn.Module, layers: list[Layer]) -> Iterator[None]:
    """Forward hooks on all modules without children, for as long as the context lasts."""
    names = {
        module: name
        for name, module in net.named_modules()
        if next(module.children(), None) is None
    }
    called: set[nn.Module] = set()

    def record(module: nn.Module, inputs: tuple[Any, ...], output: object) -> None:
        if isinstance(output, Tensor):
            layers.append(_layer(names[module], module, output, first_call=module not in called))
            called.add(module)

    handles = [module.register_forward_hook(record) for module in names]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _layer(name: str, module: nn.Module, output: Tensor, *, first_call: bool) -> Layer:
    shape = tuple(output.shape[1:])
    return Layer(
        name=name,
        kind=type(module).__name__,
        output_shape=shape,
        parameters=sum(parameter.numel() for parameter in module.parameters()) if first_call else 0,
        macs=math.prod(shape) * _macs_per_output(module),
    )


def _macs_per_output(module: nn.Module) -> int:
    """Multiply-adds behind each number that the layer puts out."""
    if isinstance(module, (nn.Conv1d, nn.Conv2d, nn.Conv3d)):
        return module.in_channels // module.groups * math.prod(module.kernel_size)
    return module.in_features if isinstance(module, nn.Linear) else 0


def _on_meta(tensor: Tensor) -> Tensor:
    return torch.empty_like(tensor, device="meta")
