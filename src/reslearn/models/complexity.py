"""Parameters, multiply-adds and activations of a network by layer (Tables 1 and 6; claim C12).

The numbers come from the network's own forward on the meta device, which computes shapes without
memory. Even resnet1202 takes about a second. The paper's FLOPs are multiply-adds (MACs) of
convolutions and fully connected layers.
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
from torch.overrides import TorchFunctionMode

_BATCH = 2  # batch norm refuses to normalize a single value; all numbers are for one image


@dataclass(frozen=True, kw_only=True)
class Layer:
    """One call of one module without children, for one image.

    Attributes:
        kind: Class of the module, such as "Conv2d".
        output_shape: Shape without the batch dimension.
        macs: Multiply-adds; 0 unless the module is a convolution or linear.
    """

    name: str
    kind: str
    output_shape: tuple[int, ...]
    parameters: int
    macs: int


@dataclass(frozen=True, kw_only=True)
class Complexity:
    """The cost of a network for one image.

    Attributes:
        activations: Values in the outputs of convolutions and linear layers. This part of the
            training memory grows with depth.
    """

    parameters: int
    macs: int
    activations: int
    layers: tuple[Layer, ...]


def complexity(net: nn.Module, input_shape: Sequence[int] = (3, 32, 32)) -> Complexity:
    """Count parameters, multiply-adds and activations. The network and its mode are not changed.

    A network that was built under `torch.device("meta")` takes no memory. A shared weight counts
    once.

    Args:
        net: Any network of one tensor.
        input_shape: Shape of one input, without the batch dimension.

    Raises:
        ValueError: If the network cannot take such an input.
    """
    tensors = chain(net.named_parameters(), net.named_buffers())
    shapes = {name: torch.empty_like(tensor, device="meta") for name, tensor in tensors}
    dtype = next((parameter.dtype for parameter in net.parameters()), torch.float32)
    x = torch.empty(_BATCH, *input_shape, device="meta", dtype=dtype)
    layers: list[Layer] = []
    with torch.no_grad(), _recording(net, layers), _BatchNormByShape():
        try:
            functional_call(net, shapes, (x,))
        except (RuntimeError, ValueError, TypeError) as error:
            reason = str(error).splitlines()[0]
            raise ValueError(
                f"input_shape={tuple(input_shape)}: the network cannot take it: {reason}"
            ) from error
    return Complexity(
        parameters=sum(parameter.numel() for parameter in net.parameters()),
        macs=sum(layer.macs for layer in layers),
        activations=sum(math.prod(layer.output_shape) for layer in layers if layer.macs),
        layers=tuple(layers),
    )


class _BatchNormByShape(TorchFunctionMode):
    """Compute the shape of batch norm's output only.

    On the meta device PyTorch computes batch norm step by step in Python, which would take 80 % of
    the time.
    """

    def __torch_function__(
        self, function: Any, types: Any, arguments: Any = (), named: Any = None
    ) -> Any:
        named = named or {}
        if function is not nn.functional.batch_norm:
            return function(*arguments, **named)
        x, mean = arguments[:2]
        scale = mean if mean is not None else named["weight"]
        if scale is not None and x.shape[1] != len(scale):
            raise ValueError(f"batch norm of {len(scale)} channels got {x.shape[1]}")
        return torch.empty_like(x)


@contextmanager
def _recording(net: nn.Module, layers: list[Layer]) -> Iterator[None]:
    """Append to `layers` at each call of a module without children."""
    names = {}
    for name, module in net.named_modules():
        if next(module.children(), None) is None:
            names[module] = name
    called: set[nn.Module] = set()

    def record(module: nn.Module, inputs: tuple[Any, ...], output: object) -> None:
        if isinstance(output, Tensor):
            is_first_call = module not in called
            layers.append(_layer(names[module], module, output, is_first_call=is_first_call))
            called.add(module)

    handles = [module.register_forward_hook(record) for module in names]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _layer(name: str, module: nn.Module, output: Tensor, *, is_first_call: bool) -> Layer:
    shape = tuple(output.shape[1:])
    num_parameters = sum(parameter.numel() for parameter in module.parameters())
    return Layer(
        name=name,
        kind=type(module).__name__,
        output_shape=shape,
        parameters=num_parameters if is_first_call else 0,
        macs=math.prod(shape) * _macs_per_output(module),
    )


def _macs_per_output(module: nn.Module) -> int:
    """Return the multiply-adds for one value of the output."""
    if isinstance(module, (nn.Conv1d, nn.Conv2d, nn.Conv3d)):
        return module.in_channels // module.groups * math.prod(module.kernel_size)
    return module.in_features if isinstance(module, nn.Linear) else 0
