"""A net fitted to y = x, with and without shortcuts (Sec. 3.1: pushing F to zero is easier than fitting an identity by layers; C11).

A chain of `models.Residual` around the paper's body in small: fully connected, batch norm after each layer, ReLU after the first and
after the addition. Nothing but the shortcuts differs. Inputs are >= 0, as every block's input is in the paper's networks, so that
the identity can be had exactly by both kinds. Shapes: x [B, D] to [B, D].
"""

from copy import deepcopy

import torch
from jaxtyping import Float32
from torch import Tensor, nn

from reslearn.models import Residual


def chain(*, num_blocks: int, width: int, with_shortcuts: bool, seed: int) -> nn.Sequential:
    """`num_blocks` blocks act(F(x) + x), or act(F(x)) without shortcuts, F two layers; the same weights for both kinds."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(
            *(_block(width, nn.Identity() if with_shortcuts else None) for _ in range(num_blocks))
        )


def inputs(*, num_inputs: int, width: int, seed: int) -> Float32[Tensor, "b d"]:
    """Random inputs |N(0, 1)|; the same for the same seed."""
    return torch.randn(num_inputs, width, generator=torch.Generator().manual_seed(seed)).abs()


@torch.no_grad()
def identity_loss(net: nn.Module, x: Float32[Tensor, "b d"]) -> float:
    """Mean square of net(x) - x over the variance of x: 0 is the identity, 1 as bad as answering the mean.

    With batch statistics of x, which should be many; `net` is not changed.
    """
    variance = (x - x.mean(0)).square().mean()
    return float((deepcopy(net).train()(x) - x).square().mean() / variance)


def _block(width: int, shortcut: nn.Module | None) -> Residual:
    first, second = nn.Linear(width, width, bias=False), nn.Linear(width, width, bias=False)
    for layer in (first, second):
        nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
    body = nn.Sequential(first, nn.BatchNorm1d(width), nn.ReLU(), second, nn.BatchNorm1d(width))
    return Residual(body, shortcut, nn.ReLU())
