"""Residual learning itself (paper Sec. 3.1 to 3.2, Eq. 1 and 2, Fig. 2): y = activation(F(x) + shortcut(x)).

`Residual` wraps any `nn.Module`: it knows nothing about images, convolutions or depth. Every network of the paper, residual or
plain, is this one class put together from a table. With `shortcut=None` it is the plain counterpart, y = activation(F(x)).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import cast, final

import torch
import torch.fx
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint


@final
class Residual(nn.Module):
    """activation(body(x) + shortcut(x)); with shortcut=None the plain activation(body(x)).

    body: F of Eq. 1, any module. shortcut: `nn.Identity()` for Eq. 1, a projection for Eq. 2, None for a plain block.
    activation: the second non-linearity, after the addition; `nn.Identity()` for pre-activation and pre-norm blocks.
    before: what body and shortcut both see the output of; the shared pre-activation of a block whose shortcut projects.
    checkpoint_activations: keep only the block's input for the backward pass and compute the rest again there.
    The result equals, batch norm statistics included, that of the block without it; it costs one more forward pass.
    Raises ValueError where body and shortcut differ in shape (broadcasting would hide the mistake), and where one of them changes its
    input in place, from under the other.
    """

    def __init__(
        self,
        body: nn.Module,
        shortcut: nn.Module | None,
        activation: nn.Module,
        *,
        before: nn.Module | None = None,
        checkpoint_activations: bool = False,
    ) -> None:
        super().__init__()
        self.before = before
        self.body = body
        self.shortcut = shortcut
        self.activation = activation
        self.checkpoint_activations = checkpoint_activations

    def forward(self, x: Tensor) -> Tensor:
        saves = self.checkpoint_activations and self.training and torch.is_grad_enabled()
        if not saves or _is_recorded(x):
            return self._compute(x)
        if (
            torch.compiler.is_compiling()
        ):  # the compiler writes each statistic once, at the end of its forward graph
            return _tensor(checkpoint(self._compute, x, use_reentrant=False))
        return _tensor(
            checkpoint(
                self._compute, x, use_reentrant=False, context_fn=self._first_and_second_time
            )
        )

    def _compute(self, x: Tensor) -> Tensor:
        if self.before is not None:
            x = _tensor(self.before(x))
        if self.shortcut is None:
            return _tensor(self.activation(self.body(x)))
        version = _version(x)
        response, carried = self.body(x), self.shortcut(x)
        if _version(x) != version:
            raise ValueError(
                "Residual: body or shortcut changes its input in place, and what would be added is not x any more (Eq. 1); "
                "inplace=False in its first module mends it"
            )
        if not _is_recorded(x) and response.shape != carried.shape:
            raise ValueError(
                f"Residual: body gives {tuple(response.shape)}, shortcut gives {tuple(carried.shape)} "
                f"for an input {tuple(x.shape)}; they must be equal to be added (Eq. 1), else the shortcut must project (Eq. 2)"
            )
        return _tensor(self.activation(response + carried))

    def _first_and_second_time(
        self,
    ) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        return nullcontext(), _statistics_kept(self)


@contextmanager
def _statistics_kept(module: nn.Module) -> Iterator[None]:
    """Normalize by batch statistics as in training, but leave running statistics alone: they were updated the first time.

    Copies are updated instead. Switching the tracking off would do less work, but changes which tensors are saved.
    """
    tracking = [part for part in module.modules() if getattr(part, "track_running_stats", False)]
    kept = [
        (part, name, buffer)
        for part in tracking
        for name, buffer in part.named_buffers(recurse=False)
    ]
    for part, name, buffer in kept:
        setattr(part, name, buffer.clone())
    try:
        yield
    finally:
        for part, name, buffer in kept:
            setattr(part, name, buffer)


def _is_recorded(x: object) -> bool:
    """Whether surgery sees through: what torch.fx records stands for a tensor, and has neither a shape nor a history to compare."""
    return isinstance(x, torch.fx.Proxy)


def _version(x: Tensor) -> int:
    """How often it was written to. Tensors of inference mode do not count, and a compiler cannot ask."""
    return 0 if torch.compiler.is_compiling() or _is_recorded(x) or x.is_inference() else x._version


def _tensor(value: object) -> Tensor:
    assert isinstance(value, Tensor | torch.fx.Proxy), (
        f"a module gave {type(value).__name__}, not a Tensor"
    )
    return cast(Tensor, value)
