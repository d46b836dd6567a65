"""Fit a network to y = x, with and without shortcuts (claim C11).

Sec. 3.1 states that it is easier to push F to zero than to fit an identity by a stack of layers.
The network is a chain of `models.Residual` around a small version of the paper's body. Its layers
are fully connected. Batch norm follows each layer, and ReLU the first layer and the addition.
Only the shortcuts differ. Inputs are >= 0, as the inputs of blocks in the paper's networks, so both
kinds can represent the identity exactly.

Shapes: x [B, D] to [B, D].
"""

from copy import deepcopy

import torch
from jaxtyping import Float32
from torch import Tensor, nn

from reslearn.models import Residual


def chain(*, num_blocks: int, width: int, with_shortcuts: bool, seed: int) -> nn.Sequential:
    """Build a chain of blocks ReLU(F(x) + x), or ReLU(F(x)) without shortcuts.

    F has two layers. For the same seed, both kinds have the same weights.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(
            *(_block(width, nn.Identity() if with_shortcuts else None) for _ in range(num_blocks))
        )


def inputs(*, num_inputs: int, width: int, seed: int) -> Float32[Tensor, "b d"]:
    """Draw random inputs from |N(0, 1)|, the same for the same seed."""
    return torch.randn(num_inputs, width, generator=torch.Generator().manual_seed(seed)).abs()


@torch.no_grad()
def identity_loss(net: nn.Module, x: Float32[Tensor, "b d"]) -> float:
    """Return the mean square of net(x) - x, divided by the variance of x.

    0 means the identity, and 1 is as bad as a constant answer, the mean. The batch-norm statistics
    come from `x`, so use many inputs. `net` is not changed.
    """
    variance = (x - x.mean(0)).square().mean()
    return float((deepcopy(net).train()(x) - x).square().mean() / variance)


def _block(width: int, shortcut: nn.Module | None) -> Residual:
    first, second = nn.Linear(width, width, bias=False), nn.Linear(width, width, bias=False)
    for layer in (first, second):
        nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
    body = nn.Sequential(first, nn.BatchNorm1d(width), nn.ReLU(), second, nn.BatchNorm1d(width))
    return Residual(body, shortcut, nn.ReLU())
