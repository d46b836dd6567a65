"""The bodies F of the paper (Fig. 5): basic, two 3x3 layers; bottleneck, 1x1 down, 3x3, 1x1 up by a factor of 4.

Batch norm after each convolution and before each activation (Sec. 3.4); the last activation belongs to the block, after the
addition. Without batch norm the convolutions have biases. The ReLUs work in place: neither a convolution nor a batch norm
needs its own output for the backward pass. Deviates: with pre-activation ("v2", a later paper of the same authors) batch norm and
ReLU come before each convolution; a bottleneck may be wider, or work in groups (wide ResNets, ResNeXt).
Shapes: [B, C, H, W] to [B, C', ceil(H / stride), ceil(W / stride)].
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Literal

from torch import nn

Body = Literal["basic", "bottleneck"]
StrideIn = Literal["1x1", "3x3"]

BOTTLENECK_EXPANSION = 4  # Paper: Table 1, 64 to 256, 128 to 512, ...


Parts = OrderedDict[str, nn.Module]


def layer(
    in_channels: int,
    out_channels: int,
    *,
    kernel: int,
    stride: int,
    normalize: bool,
    suffix: str = "",
    groups: int = 1,
) -> Parts:
    """A convolution that keeps the size at stride 1, and its batch norm, named conv<suffix> and bn<suffix>."""
    parts: Parts = OrderedDict()
    parts[f"conv{suffix}"] = nn.Conv2d(
        in_channels,
        out_channels,
        kernel,
        stride,
        padding=kernel // 2,
        groups=groups,
        bias=not normalize,
    )
    if normalize:
        parts[f"bn{suffix}"] = nn.BatchNorm2d(out_channels)
    return parts


def normalised_relu(channels: int, *, normalize: bool, suffix: str = "") -> Parts:
    """Batch norm and ReLU, as they stand before a convolution in networks with pre-activation."""
    parts: Parts = OrderedDict()
    if normalize:
        parts[f"bn{suffix}"] = nn.BatchNorm2d(channels)
    parts[f"relu{suffix}"] = nn.ReLU(
        inplace=normalize
    )  # without batch norm the input is the shortcut's too: not in place
    return parts


def basic_body(
    in_channels: int, out_channels: int, *, stride: int, normalize: bool
) -> nn.Sequential:
    """conv1 3x3 with the stride, conv2 3x3 (Fig. 5, left)."""
    parts = layer(
        in_channels, out_channels, kernel=3, stride=stride, normalize=normalize, suffix="1"
    )
    parts["relu1"] = nn.ReLU(inplace=True)
    parts |= layer(out_channels, out_channels, kernel=3, stride=1, normalize=normalize, suffix="2")
    return nn.Sequential(parts)


def bottleneck_body(
    in_channels: int,
    out_channels: int,
    *,
    stride: int,
    stride_in: StrideIn,
    normalize: bool,
    groups: int = 1,
    base_width: int = 64,
) -> nn.Sequential:
    """conv1 1x1, conv2 3x3, conv3 1x1 (Fig. 5, right). out_channels is the wide end, four times the width of the paper's 3x3.

    stride_in: the paper strides in the first 1x1 (its 3.8 GMACs of ResNet-50 say so); widespread libraries in the 3x3.
    groups, base_width: the 3x3 works in so many groups, each base_width / 64 of the paper's width (ResNeXt: 32 and 4).
    """
    width = bottleneck_width(out_channels, groups=groups, base_width=base_width)
    first, second = (stride, 1) if stride_in == "1x1" else (1, stride)
    parts = layer(in_channels, width, kernel=1, stride=first, normalize=normalize, suffix="1")
    parts["relu1"] = nn.ReLU(inplace=True)
    parts |= layer(
        width, width, kernel=3, stride=second, normalize=normalize, suffix="2", groups=groups
    )
    parts["relu2"] = nn.ReLU(inplace=True)
    parts |= layer(width, out_channels, kernel=1, stride=1, normalize=normalize, suffix="3")
    return nn.Sequential(parts)


def bottleneck_width(out_channels: int, *, groups: int, base_width: int) -> int:
    """Channels of a bottleneck's 3x3 convolution, all groups together."""
    return out_channels // BOTTLENECK_EXPANSION * base_width // 64 * groups


def preactivated(body: nn.Sequential, in_channels: int, *, normalize: bool) -> nn.Sequential:
    """The same convolutions with batch norm and ReLU before each instead of after: bn1, relu1, conv1, bn2, ..."""
    parts: Parts = OrderedDict()
    channels = in_channels
    convolutions = [module for module in body if isinstance(module, nn.Conv2d)]
    for number, convolution in enumerate(convolutions, start=1):
        parts |= normalised_relu(channels, normalize=normalize, suffix=str(number))
        parts[f"conv{number}"] = convolution
        channels = convolution.out_channels
    return nn.Sequential(parts)
