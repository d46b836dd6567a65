"""The solution by construction of the paper's introduction (claim C10): a shallow net plus layers that compute the identity.

"There exists a solution by construction to the deeper model: the added layers are identity mapping, and the other layers are copied
from the learned shallower model." In evaluation mode the deeper network built here computes what the shallow one does: exactly
where blocks are residual with identity shortcuts, up to rounding where identities are made of Dirac kernels.
"""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import nn

from reslearn.models.names import architecture_of, build
from reslearn.models.network import Network
from reslearn.models.residual import Residual
from reslearn.models.resnet import Architecture


def extend_with_identities(net: Network, name_or_blocks_per_stage: str | int) -> Network:
    """A new, deeper network of the same family and kind that computes the same function in evaluation mode.

    name_or_blocks_per_stage: "plain56", or n of 6n+2 for CIFAR networks. The blocks of each stage are copied, the extra ones follow
    them and are identities on inputs >= 0, as every block's input is. Plain blocks: Dirac kernels, batch norm with mean 0,
    variance 1, gamma sqrt(1 + eps), beta 0 (an identity as long as its statistics are not recomputed). Residual blocks: the last
    layer of F is zero, the layers before it keep the fresh weights of `build`; projections (option C) become Dirac kernels.
    Device, type and mode are those of `net`. Raises ValueError where no such network exists.
    """
    name = (
        _cifar_name(net, name_or_blocks_per_stage)
        if isinstance(name_or_blocks_per_stage, int)
        else name_or_blocks_per_stage
    )
    deeper = build(**{**net.spec, "name": name, "zero_init": False})
    deeper.spec["zero_init"] = net.spec["zero_init"]
    _check_family(net, deeper)
    copied = {block_name for block_name, _ in net.blocks()}
    with torch.no_grad():
        for block_name, block in deeper.blocks():
            if block_name not in copied:
                _make_identity(block_name, block)
    missing, unexpected = deeper.load_state_dict(net.state_dict(), strict=False)
    assert not unexpected and all(key.rsplit(".", 3)[0] not in copied for key in missing)
    first = next(net.parameters())
    return deeper.to(device=first.device, dtype=first.dtype).train(net.training)


def _cifar_name(net: Network, blocks_per_stage: int) -> str:
    layout = _layout(net.name)
    if layout.switches["stem"] != "cifar":
        raise ValueError(
            f"{net.name} is no CIFAR network: name the deeper network instead of {blocks_per_stage} blocks a stage"
        )
    name = f"{'plain' if layout.is_plain else 'resnet'}{6 * blocks_per_stage + 2}"
    deeper = architecture_of(name)
    return name if deeper is None or deeper.switches["stem"] == "cifar" else f"{name}-cifar"


def _check_family(net: Network, deeper: Network) -> None:
    """Same layout but for the number of blocks, and no stage shorter."""
    ours, theirs = _layout(net.name), _layout(deeper.name)
    if replace(ours, blocks=theirs.blocks) != theirs:
        raise ValueError(
            f"{deeper.name} is not of the family of {net.name}: only the number of blocks may differ"
        )
    if any(few > many for few, many in zip(ours.blocks, theirs.blocks, strict=True)):
        raise ValueError(
            f"{deeper.name} has fewer blocks {theirs.blocks} than {net.name} {ours.blocks}"
        )


def _layout(name: str) -> Architecture:
    layout = architecture_of(name)
    assert layout is not None, f"a network was built as {name!r}"
    return layout


def _make_identity(name: str, block: Residual) -> None:
    """Set the block's weights so that it maps x >= 0 to x in evaluation mode."""
    if block.shortcut is None:
        _make_layers_identity(name, block.body)
        return
    last = [
        module for module in block.body.modules() if isinstance(module, (nn.Conv2d, nn.BatchNorm2d))
    ][-1]
    if block.before is not None:
        raise ValueError(
            f"{name} has a shortcut that projects what was normalized first: no identity goes through it"
        )
    nn.init.zeros_(last.weight)
    if last.bias is not None:
        nn.init.zeros_(last.bias)
    _make_layers_identity(name, block.shortcut)


def _make_layers_identity(name: str, layers: nn.Module) -> None:
    for module in layers.modules():
        if isinstance(module, nn.Conv2d):
            if module.in_channels != module.out_channels:
                raise ValueError(
                    f"{name} has {module.in_channels} to {module.out_channels} channels: no identity goes through a bottleneck"
                )
            nn.init.dirac_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.BatchNorm2d):
            module.reset_running_stats()
            nn.init.constant_(module.weight, math.sqrt(1 + module.eps))
            nn.init.zeros_(module.bias)
