"""The bodies F of the paper (Fig. 5): basic, two 3x3 layers; bottleneck, 1x1 down, 3x3, 1x1 up by a factor of 4.

Batch norm after each convolution and before each activation (Sec. 3.4); the last activation belongs to the block, after the
addition. Without batch norm the convolutions have biases. The ReLUs work in place: neither a convolution nor a batch norm
needs its own output for the backward pass. Shapes: [B, C, H, W] to [B, C', ceil(H / stride), ceil(W / stride)].
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Literal

from torch import nn

Body = Literal["basic", "bottleneck"]
StrideIn = Literal["1x1", "3x3"]

BOTTLENECK_EXPANSION = 4  # Paper: Table 1, 64 to 256, 128 to 512, ...


def layer(
    in_channels: int, out_channels: int, *, kernel: int, stride: int, normalize: bool, suffix: str = ""
) -> OrderedDict[str, nn.Module]:
    """A convolution that keeps the size at stride 1, and its batch norm, named conv<suffix> and bn<suffix>."""
    parts: OrderedDict[str, nn.Module] = OrderedDict()
    parts[f"conv{suffix}"] = nn.Conv2d(in_channels, out_channels, kernel, stride, padding=kernel // 2, bias=not normalize)
    if normalize:
        parts[f"bn{suffix}"] = nn.BatchNorm2d(out_channels)
    return parts


def basic_body(in_channels: int, out_channels: int, *, stride: int, normalize: bool) -> nn.Sequential:
    """conv1 3x3 with the stride, conv2 3x3 (Fig. 5, left)."""
    parts = layer(in_channels, out_channels, kernel=3, stride=stride, normalize=normalize, suffix="1")
    parts["relu1"] = nn.ReLU(inplace=True)
    parts |= layer(out_channels, out_channels, kernel=3, stride=1, normalize=normalize, suffix="2")
    return nn.Sequential(parts)


def bottleneck_body(in_channels: int, out_channels: int, *, stride: int, stride_in: StrideIn, normalize: bool) -> nn.Sequential:
    """conv1 1x1, conv2 3x3, conv3 1x1 (Fig. 5, right). out_channels is the wide end, four times the width of the 3x3.

    stride_in: the paper strides in the first 1x1 (its 3.8 GMACs of ResNet-50 say so); widespread libraries in the 3x3.
    """
    width = out_channels // BOTTLENECK_EXPANSION
    first, second = (stride, 1) if stride_in == "1x1" else (1, stride)
    parts = layer(in_channels, width, kernel=1, stride=first, normalize=normalize, suffix="1")
    parts["relu1"] = nn.ReLU(inplace=True)
    parts |= layer(width, width, kernel=3, stride=second, normalize=normalize, suffix="2")
    parts["relu2"] = nn.ReLU(inplace=True)
    parts |= layer(width, out_channels, kernel=1, stride=1, normalize=normalize, suffix="3")
    return nn.Sequential(parts)
