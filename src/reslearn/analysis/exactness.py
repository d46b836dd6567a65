"""Check that blocks compute Eq. 1 and 2 exactly: y = activation(F(x) + shortcut(x)) (claim C3).

If the last batch norm of F is zero, the block must be the identity. All checks are bit for bit.

Shapes: x [B, C, H, W], the output of the layer before the block.
"""

from copy import deepcopy
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from reslearn.models import Network, last_batch_norm


@dataclass(frozen=True, kw_only=True)
class BlockCheck:
    """Result for one residual block.

    Attributes:
        block: Name of the block.
        is_sum: Whether block(x) equals max(F(x) + shortcut(x), 0) in every bit.
        is_identity: Whether the block with F = 0 returns its input in every bit. None if input and
            output differ in shape, so that the block cannot be the identity.
    """

    block: str
    is_sum: bool
    is_identity: bool | None


@torch.no_grad()
def check_blocks(net: Network, x: Tensor) -> list[BlockCheck]:
    """Check each residual block on its input activations, in training and in evaluation mode.

    F = 0 is reached by zero weight and bias in its last batch norm. Plain blocks are skipped, and
    `net` is not changed.
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
