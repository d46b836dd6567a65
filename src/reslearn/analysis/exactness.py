"""Is a block what Eq. 1 and 2 say? y = act(F(x) + shortcut(x)), bit for bit, and the identity where F's last batch norm is zero (C3).

Shapes: x [B, C, H, W], the output of the layer before the block.
"""

from copy import deepcopy
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from reslearn.models import Network, last_batch_norm


@dataclass(frozen=True, kw_only=True)
class BlockCheck:
    """One residual block. `is_identity` is None where the shapes of input and output differ, so that no identity is due."""

    block: str
    is_sum: bool
    is_identity: bool | None


@torch.no_grad()
def check_blocks(net: Network, x: Tensor) -> list[BlockCheck]:
    """Each block on the activations that reach it, in training and in evaluation mode; `net` is not changed.

    `is_sum`: block(x) equals max(F(x) + shortcut(x), 0) in every bit. `is_identity`: with gamma and beta of F's last batch norm at zero
    the block returns its input in every bit. Plain blocks are skipped.
    """
    twin = deepcopy(net).eval()
    x = twin.get_submodule("stem")(x)
    checks = []
    for name, block in twin.blocks():
        if block.shortcut is not None:
            modes = [_is_sum(block.train(mode), x) for mode in (True, False)]
            zeroed = deepcopy(block)
            norm = last_batch_norm(zeroed)
            nn.init.zeros_(norm.weight)
            nn.init.zeros_(norm.bias)
            identity = None
            if isinstance(block.shortcut, nn.Identity):
                identity = all(torch.equal(zeroed.train(mode)(x), x) for mode in (True, False))
            checks.append(BlockCheck(block=name, is_sum=all(modes), is_identity=identity))
        x = block.eval()(x)
    return checks


def _is_sum(block: nn.Module, x: Tensor) -> bool:
    body, shortcut = block.get_submodule("body"), block.get_submodule("shortcut")
    return torch.equal((body(x) + shortcut(x)).clamp_min(0), block(x))
