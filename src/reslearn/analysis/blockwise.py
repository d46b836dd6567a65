"""A network put together anew from its own blocks: some dropped, others in another order. The network itself is not touched.

A residual block without its body F is its shortcut, activation(shortcut(x)); a plain block has nothing else to carry the signal, so
that it can only be taken out whole, and only where it keeps the shape. Paper: Eq. 1 with F = 0.
Shapes: x [B, C, H, W]; each block's input and output [C, H, W] of one image.
"""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from reslearn.models import Network, Residual

Shape = tuple[int, ...]


def assembled(net: Network, blocks: Iterable[nn.Module]) -> nn.Sequential:
    """Stem, `blocks` and head of `net` one after the other, weights shared with it."""
    return nn.Sequential(net.get_submodule("stem"), *blocks, net.get_submodule("head"))


def without_body(block: Residual) -> nn.Module:
    """The block with F removed: its shortcut and its activation; a plain block is removed whole."""
    return (
        nn.Identity() if block.shortcut is None else nn.Sequential(block.shortcut, block.activation)
    )


@torch.no_grad()
def block_shapes(net: Network, x: Tensor) -> list[tuple[Shape, Shape]]:
    """Shape of one image as it enters and as it leaves each block; `net` is left in the mode it was in."""
    modes = {module: module.training for module in net.modules()}
    net.eval()
    try:
        x = net.get_submodule("stem")(x[:1])
        shapes = []
        for _, block in net.blocks():
            entered = tuple(x.shape[1:])
            x = block(x)
            shapes.append((entered, tuple(x.shape[1:])))
    finally:
        for module, training in modes.items():
            module.training = training
    return shapes


def droppable(net: Network, shapes: Sequence[tuple[Shape, Shape]]) -> list[int]:
    """Numbers, from 0, of the blocks that can be dropped: every residual one, plain ones that keep the shape."""
    blocks = net.blocks()
    return [
        index
        for index, (entered, left) in enumerate(shapes)
        if blocks[index][1].shortcut is not None or entered == left
    ]


def interchangeable(shapes: Sequence[tuple[Shape, Shape]]) -> list[list[int]]:
    """Groups of two blocks and more that keep one and the same shape, so that they can change places."""
    groups: dict[Shape, list[int]] = {}
    for index, (entered, left) in enumerate(shapes):
        if entered == left:
            groups.setdefault(entered, []).append(index)
    return [group for group in groups.values() if len(group) > 1]
