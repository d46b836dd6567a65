"""Activation checkpointing: compute a block again in the backward pass.

Results are bit-identical to those without checkpointing, including batch-norm statistics. The cost
is one more forward pass.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.utils.checkpoint import checkpoint

Forward = Callable[[Any, Tensor], Tensor]


def checkpointed(forward: Forward) -> Forward:
    """Add checkpointing to a `forward`; the module's `checkpoint_activations` switches it on.

    Checkpointing is active only while the module trains and gradients are computed.
    """

    @functools.wraps(forward)
    def forward_checkpointed(module: Any, x: Tensor) -> Tensor:
        is_active = module.checkpoint_activations and module.training and torch.is_grad_enabled()
        if not is_active or is_recorded(x):
            return forward(module, x)

        def compute(x: Tensor) -> Tensor:
            return forward(module, x)

        if torch.compiler.is_compiling():
            # The compiler updates each statistic once, at the end of its forward graph.
            output: Tensor = checkpoint(compute, x, use_reentrant=False)
            return output
        contexts = functools.partial(_first_and_second_pass, module)
        output = checkpoint(compute, x, use_reentrant=False, context_fn=contexts)
        return output

    return forward_checkpointed


def is_recorded(x: object) -> bool:
    """Return whether `x` is a placeholder of torch.fx, which has neither a shape nor a version."""
    return isinstance(x, fx.Proxy)


def _first_and_second_pass(
    module: nn.Module,
) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    return nullcontext(), _running_statistics_unchanged(module)


@contextmanager
def _running_statistics_unchanged(module: nn.Module) -> Iterator[None]:
    """Let batch norms update copies, because the first pass has updated the statistics.

    Switching the tracking off would be less work, but it changes which tensors autograd saves.
    """
    buffers = []
    for part in module.modules():
        if getattr(part, "track_running_stats", False):
            for name, buffer in part.named_buffers(recurse=False):
                buffers.append((part, name, buffer))
    for part, name, buffer in buffers:
        setattr(part, name, buffer.clone())
    try:
        yield
    finally:
        for part, name, buffer in buffers:
            setattr(part, name, buffer)
