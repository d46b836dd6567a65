"""Activation checkpointing: compute a block again in the backward pass.

Results are bit-identical to those without checkpointing, including batch-norm statistics. The cost
is one more forward pass.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint


def compute_again_in_backward(
    forward: Callable[[Tensor], Tensor], module: nn.Module, x: Tensor
) -> Tensor:
    """Return `forward(x)` and keep only `x`. The backward pass computes the rest again.

    Args:
        forward: Computes the output of `module`.
        module: The second computation leaves its batch-norm statistics unchanged.
        x: The input of `module`.
    """
    if torch.compiler.is_compiling():
        # The compiler updates each statistic once, at the end of its forward graph.
        output: Tensor = checkpoint(forward, x, use_reentrant=False)
        return output
    contexts = functools.partial(_first_and_second_pass, module)
    output = checkpoint(forward, x, use_reentrant=False, context_fn=contexts)
    return output


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
