"""Record the calls of torch that a network makes, whatever Python code makes them.

torch.fx follows neither modules in a Python list nor control flow that depends on values. A
`TorchFunctionMode` receives every call, so screening can examine any network. Dropout is left out,
because its noise would look like a difference between inputs.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from types import FrameType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from reslearn.diagnose.user_code import is_library_file, short_path

_DROPOUTS = (
    torch.dropout,
    functional.dropout,
    functional.dropout1d,
    functional.dropout2d,
    functional.dropout3d,
    functional.alpha_dropout,
    functional.feature_alpha_dropout,
)
_CONVOLUTIONS = {"conv1d", "conv2d", "conv3d"}
_TRANSPOSED = {"conv_transpose1d", "conv_transpose2d", "conv_transpose3d"}
_PRODUCTS = {"matmul", "mm", "bmm", "addmm", "baddbmm"}
_LAYERS = {
    *_CONVOLUTIONS,
    *_TRANSPOSED,
    *_PRODUCTS,
    *("linear", "bilinear", "einsum", "tensordot", "embedding", "multi_head_attention_forward"),
    *("lstm", "gru", "rnn_tanh", "rnn_relu"),
}


@dataclass(frozen=True, kw_only=True, eq=False)
class TorchCall:
    """One call of torch on values that depend on the inputs.

    Attributes:
        name: Name of the function, as "linear" or "relu".
        weights: Arguments that depend on parameters and not on the inputs.
        module: Name of the innermost registered module that made the call.
        location: FILE:LINE of the user's code; empty if torch's own modules made the call.
    """

    name: str
    function: Callable[..., Any]
    arguments: tuple[Any, ...]
    options: dict[str, Any]
    output: Any
    weights: tuple[Tensor, ...]
    module: str
    location: str

    @property
    def is_layer(self) -> bool:
        """Whether the call multiplies by weights."""
        return self.name in _LAYERS and any(weight.ndim > 1 for weight in self.weights)

    @property
    def is_convolution(self) -> bool:
        """Whether the units of the output are its axis 1; else they are the last axis."""
        return self.name in _CONVOLUTIONS | _TRANSPOSED

    def unit_weights(self) -> Tensor | None:
        """Return the weights [units, ...] with the bias of each unit, detached and flattened.

        Returns:
            None if no axis of the weights belongs to units, as in attention.
        """
        weight = next((weight for weight in self.weights if weight.ndim > 1), None)
        if weight is None:
            return None
        if self.name in _PRODUCTS and weight is self.arguments[-1] and weight.ndim == 2:
            weight = weight.t()
        elif self.name in _TRANSPOSED:
            weight = weight.transpose(0, 1)
        elif self.name != "linear" and self.name not in _CONVOLUTIONS:
            return None
        rows = weight.detach().flatten(1)
        biases = [bias for bias in self.weights if bias.ndim == 1 and len(bias) == len(rows)]
        return torch.cat([rows, *(bias.detach()[:, None] for bias in biases)], dim=1)


@dataclass(frozen=True, kw_only=True, eq=False)
class CallRecord:
    """The calls of one forward pass in order.

    Attributes:
        is_complete: Whether the outputs were traced back to the inputs. An operation outside torch,
            such as NumPy or a custom autograd function, breaks the chain.
    """

    calls: tuple[TorchCall, ...]
    outputs: Tensor
    num_inputs: int
    is_complete: bool

    @property
    def layers(self) -> list[TorchCall]:
        """The calls that multiply by weights."""
        return [call for call in self.calls if call.is_layer]


def record_calls(net: nn.Module, inputs: Tensor) -> CallRecord:
    """Run `net` in training mode without dropout and record its calls.

    The global generator is restored. Running statistics of `net` change, as in training.
    """
    recorder = _CallRecorder(net, inputs)
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        with recorder:
            outputs = net.train()(inputs)
    return CallRecord(
        calls=tuple(recorder.calls),
        outputs=outputs,
        num_inputs=len(inputs),
        is_complete=recorder.depends_on_input(outputs),
    )


def tensors_in(value: Any) -> Iterator[Tensor]:
    """Yield the tensors in a value of nested lists, tuples and dictionaries."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, list | tuple):
        for part in value:
            yield from tensors_in(part)
    elif isinstance(value, dict):
        for part in value.values():
            yield from tensors_in(part)


class _CallRecorder(TorchFunctionMode):
    """Follow the inputs and the parameters through all calls.

    Tensors are recognized by identity. All of them are kept, so that no identity is used twice.
    """

    def __init__(self, net: nn.Module, inputs: Tensor) -> None:
        super().__init__()
        self.calls: list[TorchCall] = []
        self._names = {id(module): name for name, module in net.named_modules()}
        self._data = {id(inputs)}
        self._derived: set[int] = set()
        self._alive: list[Any] = [inputs]

    def depends_on_input(self, value: Tensor) -> bool:
        return id(value) in self._data

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        options = kwargs or {}
        if func in _DROPOUTS:
            return args[0] if args else options["input"]
        output = func(*args, **options)
        self._record(func, args, options, output)
        return output

    def _record(
        self, function: Callable[..., Any], args: tuple[Any, ...], options: dict[str, Any], out: Any
    ) -> None:
        outputs = {id(tensor) for tensor in tensors_in(out)}
        if not outputs:
            return
        inputs = list(tensors_in((args, options)))
        weights = tuple(tensor for tensor in inputs if self._is_weight(tensor))
        self._alive.append((inputs, out))
        if any(id(tensor) in self._data for tensor in inputs):
            self._data |= outputs
            module, location = self._caller(sys._getframe(2))
            self.calls.append(
                TorchCall(
                    name=getattr(function, "__name__", "").strip("_"),
                    function=function,
                    arguments=args,
                    options=options,
                    output=out,
                    weights=weights,
                    module=module,
                    location=location,
                )
            )
        elif weights:
            self._derived |= outputs

    def _is_weight(self, tensor: Tensor) -> bool:
        if id(tensor) in self._data:
            return False
        is_leaf = tensor.requires_grad and tensor.is_leaf
        return is_leaf or isinstance(tensor, nn.Parameter) or id(tensor) in self._derived

    def _caller(self, frame: FrameType | None) -> tuple[str, str]:
        """Return the innermost registered module, and the line of the user's code."""
        module: str | None = None
        location = ""
        while frame is not None and frame.f_code is not record_calls.__code__:
            if module is None:
                module = self._names.get(id(frame.f_locals.get("self")))
            file = frame.f_code.co_filename
            if not location and not is_library_file(file):
                location = f"{short_path(file)}:{frame.f_lineno}"
            frame = frame.f_back
        return module or "", location
