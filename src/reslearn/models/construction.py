"""The solution by construction of Sec. 1 (claim C10): a shallow network plus identity layers.

"There exists a solution by construction to the deeper model: the added layers are identity mapping,
and the other layers are copied from the learned shallower model." In evaluation mode the deeper
network computes the function of the shallow one. This is exact where blocks have identity
shortcuts, and holds up to rounding where identities are Dirac kernels.
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
    """Build a deeper network of the same family that computes the same function in evaluation mode.

    The blocks of each stage are copied. The added blocks follow them, and are identities for inputs
    >= 0, which the input of every block is. A plain block is made of Dirac kernels and batch norms
    with mean 0, variance 1, gamma sqrt(1 + eps) and beta 0; it is an identity as long as these
    statistics are not recomputed. In a residual block the last layer of F is zero and the layers
    before it have the new weights of `build`; a projection (option C) is a Dirac kernel.

    Args:
        net: The shallow network. Device, dtype and mode of the result are the same.
        name_or_blocks_per_stage: A name such as "plain56", or n of 6n+2 for CIFAR networks.

    Raises:
        ValueError: If no such network exists.
    """
    if isinstance(name_or_blocks_per_stage, int):
        name = _cifar_name(net, name_or_blocks_per_stage)
    else:
        name = name_or_blocks_per_stage
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
    parameter = next(net.parameters())
    return deeper.to(device=parameter.device, dtype=parameter.dtype).train(net.training)


def _cifar_name(net: Network, blocks_per_stage: int) -> str:
    architecture = _architecture(net.name)
    if architecture.switches["stem"] != "cifar":
        raise ValueError(
            f"{net.name} is no CIFAR network: pass the name of the deeper network instead of "
            f"{blocks_per_stage} blocks in each stage"
        )
    name = f"{'plain' if architecture.is_plain else 'resnet'}{6 * blocks_per_stage + 2}"
    deeper = architecture_of(name)
    is_imagenet = deeper is not None and deeper.switches["stem"] != "cifar"
    return f"{name}-cifar" if is_imagenet else name


def _check_family(net: Network, deeper: Network) -> None:
    """Raise ValueError unless the networks differ only in that `deeper` has more blocks."""
    shallow_architecture, deep_architecture = _architecture(net.name), _architecture(deeper.name)
    if replace(shallow_architecture, blocks=deep_architecture.blocks) != deep_architecture:
        raise ValueError(
            f"{deeper.name} is not of the family of {net.name}: only numbers of blocks may differ"
        )
    pairs = zip(shallow_architecture.blocks, deep_architecture.blocks, strict=True)
    if any(shallow > deep for shallow, deep in pairs):
        raise ValueError(
            f"{deeper.name} has fewer blocks {deep_architecture.blocks} than {net.name} "
            f"{shallow_architecture.blocks}"
        )


def _architecture(name: str) -> Architecture:
    architecture = architecture_of(name)
    assert architecture is not None, f"a network was built as {name!r}"
    return architecture


def _make_identity(name: str, block: Residual) -> None:
    """Set the weights of a block so that it maps x >= 0 to x in evaluation mode."""
    if block.shortcut is None:
        _make_layers_identity(name, block.body)
        return
    if block.before is not None:
        raise ValueError(
            f"{name} has a shortcut that projects a normalized input, so it cannot be an identity"
        )
    layers = [
        module for module in block.body.modules() if isinstance(module, (nn.Conv2d, nn.BatchNorm2d))
    ]
    nn.init.zeros_(layers[-1].weight)
    if layers[-1].bias is not None:
        nn.init.zeros_(layers[-1].bias)
    _make_layers_identity(name, block.shortcut)


def _make_layers_identity(name: str, layers: nn.Module) -> None:
    for module in layers.modules():
        if isinstance(module, nn.Conv2d):
            if module.in_channels != module.out_channels:
                raise ValueError(
                    f"{name} maps {module.in_channels} to {module.out_channels} channels, so a "
                    "plain bottleneck cannot be an identity"
                )
            nn.init.dirac_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.BatchNorm2d):
            module.reset_running_stats()
            nn.init.constant_(module.weight, math.sqrt(1 + module.eps))
            nn.init.zeros_(module.bias)
