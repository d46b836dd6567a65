"""The three shortcut options of the paper (Sec. 3.3 and 4.1, Table 3).

A: identity; where channels grow, zeros for the new ones; where maps shrink, every second pixel. No parameters.
B: a projection (1x1 convolution and batch norm, Eq. 2) where the shape changes, identity elsewhere.
C: a projection everywhere.
Shapes: x [B, C, H, W] to [B, C', ceil(H / stride), ceil(W / stride)], in the memory format of x.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Literal, final

from jaxtyping import Shaped
from torch import Tensor, nn
from torch.nn import functional

ShortcutOption = Literal["A", "B", "C"]
ZeroPad = Literal["append", "split"]
Subsample = Literal["slice", "average"]


@final
class ZeroPadShortcut(nn.Module):
    """Option A where the shape changes: subsampled in space, padded with zero channels; no parameters.

    zero_pad: all zero channels after those of x ("append"), or half before and half after ("split").
    subsample: every stride-th pixel ("slice"), or the mean of stride x stride pixels ("average").
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        stride: int,
        zero_pad: ZeroPad,
        subsample: Subsample,
    ) -> None:
        super().__init__()
        extra = out_channels - in_channels
        assert extra >= 0, f"option A cannot drop channels: {in_channels} to {out_channels}"
        self.before = extra // 2 if zero_pad == "split" else 0
        self.after = extra - self.before
        self.stride = stride
        self.subsample = subsample

    def forward(self, x: Shaped[Tensor, "B C H W"]) -> Shaped[Tensor, "B D h w"]:
        if self.stride > 1 and self.subsample == "average":
            # The last window of an odd map is cut short, so that the size agrees with that of a strided 3x3 convolution.
            x = functional.avg_pool2d(x, self.stride, ceil_mode=True, count_include_pad=False)
        elif self.stride > 1:
            x = x[:, :, :: self.stride, :: self.stride]
        return functional.pad(x, (0, 0, 0, 0, self.before, self.after))

    def extra_repr(self) -> str:
        return f"stride={self.stride}, subsample={self.subsample}, zeros={self.before}+{self.after}"


def projection(
    in_channels: int,
    out_channels: int,
    *,
    stride: int,
    normalize: bool,
    pool: bool = False,
    preactivation: bool = False,
) -> nn.Sequential:
    """W_s of Eq. 2: a 1x1 convolution, and batch norm unless the network goes without.

    pool: where it strides, the mean of stride x stride pixels first and then the 1x1 at stride 1, so that no pixel is left out
    (ResNet-D). preactivation: its input is normalized already, so nothing follows the convolution.
    """
    parts: OrderedDict[str, nn.Module] = OrderedDict()
    if pool and stride > 1:
        parts["pool"] = nn.AvgPool2d(stride, ceil_mode=True, count_include_pad=False)
        stride = 1
    parts["conv"] = nn.Conv2d(in_channels, out_channels, 1, stride, bias=not normalize)
    if normalize and not preactivation:
        parts["bn"] = nn.BatchNorm2d(out_channels)
    return nn.Sequential(parts)


def make_shortcut(
    option: ShortcutOption,
    in_channels: int,
    out_channels: int,
    *,
    stride: int,
    zero_pad: ZeroPad,
    subsample: Subsample,
    normalize: bool,
    pool: bool = False,
    preactivation: bool = False,
) -> nn.Module:
    """The shortcut of one block; B and A are the identity where the shape stays."""
    same_shape = in_channels == out_channels and stride == 1
    if option == "C" or (option == "B" and not same_shape):
        return projection(
            in_channels,
            out_channels,
            stride=stride,
            normalize=normalize,
            pool=pool,
            preactivation=preactivation,
        )
    if same_shape:
        return nn.Identity()
    return ZeroPadShortcut(
        in_channels, out_channels, stride=stride, zero_pad=zero_pad, subsample=subsample
    )
