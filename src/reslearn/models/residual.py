"""Residual learning (Sec. 3.1 and 3.2, Eq. 1 and 2, Fig. 2): y = activation(F(x) + shortcut(x)).

`Residual` wraps any `nn.Module`; it does not depend on images, convolutions or depth. All networks
of the paper, plain and residual, are made of this class.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import final

import torch
from torch import Tensor, fx, nn

from reslearn.models.checkpointing import compute_again_in_backward


def _checkpointed(forward: Callable[[Residual, Tensor], Tensor]) -> Callable[..., Tensor]:
    """Add activation checkpointing to `forward`, for blocks that train with it."""

    @functools.wraps(forward)
    def forward_or_checkpoint(block: Residual, x: Tensor) -> Tensor:
        is_checkpointed = block.checkpoint_activations and block.training
        if is_checkpointed and torch.is_grad_enabled() and not _is_recorded(x):
            return compute_again_in_backward(functools.partial(forward, block), block, x)
        return forward(block, x)

    return forward_or_checkpoint


@final
class Residual(nn.Module):
    """Compute activation(body(x) + shortcut(x)). `Residual(body)` is the block of the paper, Eq. 1.

    Args:
        body: F of Eq. 1, any module.
        shortcut: A module or a class of modules. `nn.Identity` is Eq. 1, a projection is Eq. 2.
            None makes a plain block, activation(body(x)).
        activation: The second non-linearity, after the addition; a module or a class of modules.
            Use `nn.Identity` for pre-activation and pre-norm blocks.
        before: A module whose output is the input of both body and shortcut: the shared
            pre-activation of a block whose shortcut projects.
        checkpoint_activations: Keep only the input of the block, and compute the block again in the
            backward pass.

    Raises:
        ValueError: In `forward`, if the outputs of body and shortcut differ in shape, or if one of
            the two changes its input in place.
    """

    def __init__(
        self,
        body: nn.Module,
        shortcut: nn.Module | type[nn.Module] | None = nn.Identity,
        activation: nn.Module | type[nn.Module] = nn.ReLU,
        *,
        before: nn.Module | None = None,
        checkpoint_activations: bool = False,
    ) -> None:
        super().__init__()
        self.before = before
        self.body = body
        self.shortcut = shortcut() if isinstance(shortcut, type) else shortcut
        self.activation = activation() if isinstance(activation, type) else activation
        self.checkpoint_activations = checkpoint_activations

    @_checkpointed
    def forward(self, x: Tensor) -> Tensor:
        if self.before is not None:
            x = self.before(x)
        if self.shortcut is None:
            return self.activation(self.body(x))
        num_writes = _num_writes(x)
        residual, shortcut = self.body(x), self.shortcut(x)
        _check_addition(residual, shortcut, x, num_writes)
        return self.activation(residual + shortcut)


def _check_addition(residual: Tensor, shortcut: Tensor, x: Tensor, num_writes: int) -> None:
    """Raise ValueError if x was changed in place, or if the shapes of the two terms differ.

    Without the check, broadcasting would hide different shapes.
    """
    if _num_writes(x) != num_writes:
        raise ValueError(
            "Residual: body or shortcut changes its input in place, so the sum would not be "
            "body(x) + shortcut(x); pass inplace=False to its first module"
        )
    if not _is_recorded(x) and residual.shape != shortcut.shape:
        raise ValueError(
            f"Residual: body returns {tuple(residual.shape)} and shortcut returns "
            f"{tuple(shortcut.shape)} for an input {tuple(x.shape)}; the shapes must be equal "
            "(Eq. 1), so use a shortcut that projects (Eq. 2)"
        )


def _num_writes(x: Tensor) -> int:
    """Return how often `x` was changed in place.

    The number is unknown, and 0 here, in a compiler, in a recording and in inference mode.
    """
    if torch.compiler.is_compiling() or _is_recorded(x) or x.is_inference():
        return 0
    return x._version


def _is_recorded(x: object) -> bool:
    """Return whether `x` is a placeholder of torch.fx, which has neither a shape nor a version."""
    return isinstance(x, fx.Proxy)
