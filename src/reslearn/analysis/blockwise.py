"""Assemble a network from its own blocks, with some dropped or in another order.

The original network is not changed. A residual block without its body F is its shortcut,
activation(shortcut(x)): Eq. 1 with F = 0. A plain block has no other path for the signal, so it can
only be dropped as a whole, and only if it keeps the shape.

Shapes: x [B, C, H, W]; input and output of a block, for one image, [C, H, W].
"""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from reslearn.models import Network, Residual

Shape = tuple[int, ...]


def assemble(net: Network, blocks: Iterable[nn.Module]) -> nn.Sequential:
    """Return the stem of `net`, `blocks` and the head of `net` in sequence, with shared weights."""
    return nn.Sequential(net.get_submodule("stem"), *blocks, net.get_submodule("head"))


def without_body(block: Residual) -> nn.Module:
    """Return the shortcut and the activation of a block; a plain block becomes the identity."""
    if block.shortcut is None:
        return nn.Identity()
    return nn.Sequential(block.shortcut, block.activation)


@torch.no_grad()
def block_shapes(net: Network, x: Tensor) -> list[tuple[Shape, Shape]]:
    """Return the input and output shape of each block, for one image. Restores all modes."""
    modes = {module: module.training for module in net.modules()}
    net.eval()
    try:
        x = net.get_submodule("stem")(x[:1])
        shapes = []
        for _, block in net.blocks():
            input_shape = tuple(x.shape[1:])
            x = block(x)
            shapes.append((input_shape, tuple(x.shape[1:])))
    finally:
        for module, training in modes.items():
            module.training = training
    return shapes


def droppable(net: Network, shapes: Sequence[tuple[Shape, Shape]]) -> list[int]:
    """Return the indices of blocks that can be dropped.

    These are all residual blocks, and the plain blocks that keep the shape.
    """
    indices = []
    for index, ((_, block), (input_shape, output_shape)) in enumerate(
        zip(net.blocks(), shapes, strict=True)
    ):
        if block.shortcut is not None or input_shape == output_shape:
            indices.append(index)
    return indices


def interchangeable(shapes: Sequence[tuple[Shape, Shape]]) -> list[list[int]]:
    """Return groups of two or more blocks that can be swapped: all their shapes are equal."""
    groups: dict[Shape, list[int]] = {}
    for index, (input_shape, output_shape) in enumerate(shapes):
        if input_shape == output_shape:
            groups.setdefault(input_shape, []).append(index)
    return [group for group in groups.values() if len(group) > 1]
