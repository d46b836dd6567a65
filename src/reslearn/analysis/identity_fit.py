"""A net fitted to y = x, with and without shortcuts (Sec. 3.1: pushing F to zero is easier than fitting an identity by layers; C11).

A chain of `models.Residual` around small fully connected bodies, no batch norm: nothing but the shortcuts differs.
Inputs are >= 0, as every block's input is in the paper's networks. Shapes: x [B, D] to [B, D].
"""

import torch
from jaxtyping import Float32
from torch import Tensor, nn
from torch.nn import functional

from reslearn.models import Residual


def chain(*, num_blocks: int, width: int, with_shortcuts: bool, seed: int) -> nn.Sequential:
    """`num_blocks` blocks act(F(x) + x), or act(F(x)) without shortcuts, F two layers; He initialisation, equal for both kinds."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(*(_block(width, nn.Identity() if with_shortcuts else None) for _ in range(num_blocks)))


def inputs(*, num_inputs: int, width: int, seed: int) -> Float32[Tensor, "b d"]:
    """Fixed random inputs >= 0 with mean square 1: |N(0, 1)|."""
    return torch.randn(num_inputs, width, generator=torch.Generator().manual_seed(seed)).abs()


@torch.no_grad()
def identity_loss(net: nn.Module, x: Tensor) -> float:
    """Mean square of net(x) - x, in units of the mean square of x: 0 is the identity, 1 is as bad as answering 0."""
    net.eval()
    return float(functional.mse_loss(net(x), x) / x.square().mean())


def _block(width: int, shortcut: nn.Module | None) -> Residual:
    body = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width))
    for module in body:
        if isinstance(module, nn.Linear):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            nn.init.zeros_(module.bias)
    return Residual(body, shortcut, nn.ReLU())
