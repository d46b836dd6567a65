"""Variants with published weights: rows of switches, and the blocks of v2.

All of this deviates from the paper. ResNeXt and wide bottlenecks have no code of their own:
`groups` and `base_width` of a bottleneck make them. ResNet-D has a deep stem, and averages before
it projects. v2, a later paper of the same authors, puts batch norm and ReLU before each
convolution.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from typing import Any

from torch import nn

from reslearn.models.residual import Residual

_D: dict[str, Any] = {"stem": "deep", "shortcut_pool": True, "shortcut": "B"}
_V2: dict[str, Any] = {"preactivation": True, "shortcut": "B"}
# Depth in Table 1, and the switches that differ. The names come from torchvision or, if it has
# none, from timm.
VARIANTS: dict[str, tuple[int, dict[str, Any]]] = {
    "resnext50_32x4d": (50, {"groups": 32, "base_width": 4, "stride_in": "3x3"}),
    "resnext101_32x4d": (101, {"groups": 32, "base_width": 4, "stride_in": "3x3"}),
    "resnext101_32x8d": (101, {"groups": 32, "base_width": 8, "stride_in": "3x3"}),
    "resnext101_64x4d": (101, {"groups": 64, "base_width": 4, "stride_in": "3x3"}),
    "wide_resnet50_2": (50, {"base_width": 128, "stride_in": "3x3"}),
    "wide_resnet101_2": (101, {"base_width": 128, "stride_in": "3x3"}),
    "resnet18d": (18, _D),
    "resnet34d": (34, _D),
    "resnet50d": (50, {**_D, "stride_in": "3x3"}),
    "resnet101d": (101, {**_D, "stride_in": "3x3"}),
    "resnet152d": (152, {**_D, "stride_in": "3x3"}),
    "resnetv2_18": (18, _V2),
    "resnetv2_34": (34, _V2),
    "resnetv2_50": (50, {**_V2, "stride_in": "3x3"}),
    "resnetv2_101": (101, {**_V2, "stride_in": "3x3"}),
    "resnetv2_152": (152, {**_V2, "stride_in": "3x3"}),
}
# The wide networks that `names` lists. Any wrn<6n+4>_<width> can be built.
WIDE_CIFAR = ("wrn16_4", "wrn28_10", "wrn40_2")
MAX_WIDTH = 64  # of the switch `width`; published networks stop at 20


def wide_cifar(name: str) -> tuple[int, dict[str, Any]] | None:
    """Return layers and switches of a wide CIFAR network such as "wrn28_10", or None.

    It has 6n+4 layers, including three projections. The second number is the factor of all
    channels.
    """
    match = re.fullmatch(r"wrn([1-9]\d*)_([1-9]\d?)", name)
    if match is None or int(match[1]) % 6 != 4 or int(match[2]) > MAX_WIDTH:
        return None
    return int(match[1]), {**_V2, "width": int(match[2])}


def preactivated_block(
    body: nn.Sequential,
    shortcut: nn.Module | None,
    in_channels: int,
    *,
    normalize: bool,
    checkpoint_activations: bool,
) -> Residual:
    """Return the block of v2 with the convolutions of `body`: bn1, relu1, conv1, bn2, ...

    If the shortcut projects, body and shortcut share the first batch norm and ReLU. An identity
    shortcut carries x itself.
    """
    parts: OrderedDict[str, nn.Module] = OrderedDict()
    convolutions = [module for module in body if isinstance(module, nn.Conv2d)]
    for number, convolution in enumerate(convolutions, start=1):
        parts |= norm_relu(in_channels, normalize=normalize, suffix=str(number))
        parts[f"conv{number}"] = convolution
        in_channels = convolution.out_channels
    before = None
    if shortcut is not None and not isinstance(shortcut, nn.Identity):
        shared = [name for name in ("bn1", "relu1") if name in parts]
        before = nn.Sequential(OrderedDict((name, parts.pop(name)) for name in shared))
    return Residual(
        nn.Sequential(parts),
        shortcut,
        nn.Identity,
        before=before,
        checkpoint_activations=checkpoint_activations,
    )


def norm_relu(channels: int, *, normalize: bool, suffix: str = "") -> OrderedDict[str, nn.Module]:
    """Return batch norm and ReLU before a convolution or the head of a pre-activation network."""
    parts: OrderedDict[str, nn.Module] = OrderedDict()
    if normalize:
        parts[f"bn{suffix}"] = nn.BatchNorm2d(channels)
    # Without batch norm the ReLU and the shortcut have the same input, so the ReLU may not work in
    # place.
    parts[f"relu{suffix}"] = nn.ReLU(inplace=normalize)
    return parts
