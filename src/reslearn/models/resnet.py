"""The networks of the paper, plain and residual: tables, and functions that build from them.

ImageNet (Table 1): 7x7 stem and max pool, then four stages on maps of 56, 28, 14 and 7 pixels.
CIFAR (Sec. 4.2): 3x3 stem, then three stages of n blocks on maps of 32, 16 and 8 pixels; 6n+2
layers. The first block of each stage but the first has stride 2. A plain network has the same
bodies and no shortcuts.

Shapes: a block maps [B, C, H, W] to [B, C', ceil(H / stride), ceil(W / stride)].
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, final

from jaxtyping import Shaped
from torch import Tensor, nn
from torch.nn import functional

from reslearn.models.network import Network, initialize
from reslearn.models.residual import Residual
from reslearn.models.variants import norm_relu, preactivated_block

Body = Literal["basic", "bottleneck"]
Parts = OrderedDict[str, nn.Module]
Options = Mapping[str, Any]
"""A value for each switch of `reslearn.switches`."""

IMAGENET_BLOCKS: dict[int, tuple[Body, tuple[int, ...]]] = {
    18: ("basic", (2, 2, 2, 2)),
    34: ("basic", (3, 4, 6, 3)),
    50: ("bottleneck", (3, 4, 6, 3)),
    101: ("bottleneck", (3, 4, 23, 3)),
    152: ("bottleneck", (3, 8, 36, 3)),
}
CIFAR_CHANNELS = (16, 32, 64)
IMAGENET_CHANNELS = (64, 128, 256, 512)
# Table 1: the output of a bottleneck has four times the channels of its 3x3 convolution.
EXPANSION = 4
# Convolutions of a stem: kernel size, stride, and d if it has 1/d of the stem's channels.
STEMS: dict[str, tuple[tuple[int, int, int], ...]] = {
    "cifar": ((3, 1, 1),),
    "imagenet": ((7, 2, 1),),
    "deep": ((3, 2, 2), (3, 1, 2), (3, 1, 1)),  # Deviates: ResNet-D
}


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """The network that a name stands for.

    Attributes:
        channels: Channels of the output of each stage, at width 1.
        blocks: Number of blocks of each stage.
        switches: Values of the switches that the name decides.
    """

    is_plain: bool
    body: Body
    stem_channels: int
    channels: tuple[int, ...]
    blocks: tuple[int, ...]
    switches: Mapping[str, Any]


def imagenet_architecture(
    depth: int, *, is_plain: bool, switches: Mapping[str, Any]
) -> Architecture:
    """Return a column of Table 1. Paper: option A in basic networks, B in bottleneck ones."""
    body, blocks = IMAGENET_BLOCKS[depth]
    expansion, option = (1, "A") if body == "basic" else (EXPANSION, "B")
    return Architecture(
        is_plain=is_plain,
        body=body,
        stem_channels=IMAGENET_CHANNELS[0],
        channels=tuple(expansion * channels for channels in IMAGENET_CHANNELS),
        blocks=blocks,
        switches={"stem": "imagenet", "shortcut": None if is_plain else option, **switches},
    )


def cifar_architecture(
    num_blocks: int, *, is_plain: bool, switches: Mapping[str, Any]
) -> Architecture:
    """Return the CIFAR network with n = `num_blocks` blocks in each stage."""
    return Architecture(
        is_plain=is_plain,
        body="basic",
        stem_channels=CIFAR_CHANNELS[0],
        channels=CIFAR_CHANNELS,
        blocks=(num_blocks,) * len(CIFAR_CHANNELS),
        switches={"stem": "cifar", "shortcut": None if is_plain else "A", **switches},
    )


def build_network(
    name: str, architecture: Architecture, options: Options, *, num_classes: int, in_channels: int
) -> Network:
    """Build a network with new weights."""
    channels = architecture.stem_channels
    stem = make_stem(in_channels, channels, options)
    stages = []
    for stage, num_blocks in enumerate(architecture.blocks):
        out_channels = architecture.channels[stage] * options["width"]
        blocks = []
        for index in range(num_blocks):
            stride = 2 if stage > 0 and index == 0 else 1
            blocks.append(make_block(architecture.body, channels, out_channels, stride, options))
            channels = out_channels
        stages.append(blocks)
    head = make_head(channels, num_classes, options)
    spec = {"name": name, "num_classes": num_classes, "in_channels": in_channels, **options}
    net = Network(stem=stem, stages=stages, head=head, spec=spec)
    initialize(net, options["init"], zero_init=options["zero_init"])
    return net


def make_stem(in_channels: int, channels: int, options: Options) -> nn.Sequential:
    """Return the layers before the first stage.

    With pre-activation ("v2", He et al. 2016) the last convolution has no batch norm and no ReLU,
    because the first block normalizes and activates its input itself.
    """
    parts: Parts = OrderedDict()
    convolutions = STEMS[options["stem"]]
    for number, (kernel, stride, divisor) in enumerate(convolutions, start=1):
        is_last = number == len(convolutions)
        suffix = "" if len(convolutions) == 1 else str(number)
        width = channels // divisor
        parts |= conv_norm(in_channels, width, kernel, stride, options["normalize"], suffix)
        if not is_last:
            parts[f"relu{suffix}"] = nn.ReLU(inplace=True)
        elif options["preactivation"]:
            parts.pop(f"bn{suffix}", None)
        else:
            parts["relu"] = nn.ReLU(inplace=True)
        in_channels = width
    if options["stem"] != "cifar":
        parts["pool"] = nn.MaxPool2d(3, stride=2, padding=1)
    return nn.Sequential(parts)


def make_head(channels: int, num_classes: int, options: Options) -> nn.Sequential:
    """Return global average pool and fully connected layer; the softmax belongs to the loss.

    With `num_classes` 0 the layer is left out.
    """
    parts: Parts = OrderedDict()
    if options["preactivation"]:
        parts |= norm_relu(channels, normalize=options["normalize"])
    parts["pool"] = nn.AdaptiveAvgPool2d(1)
    parts["flatten"] = nn.Flatten()
    parts["fc"] = nn.Linear(channels, num_classes) if num_classes else nn.Identity()
    return nn.Sequential(parts)


def make_block(
    body_kind: Body, in_channels: int, out_channels: int, stride: int, options: Options
) -> Residual:
    """Return a `Residual`: body, shortcut, and the activation after the addition.

    With pre-activation, nothing follows the addition.
    """
    make_body = basic_body if body_kind == "basic" else bottleneck_body
    body = make_body(in_channels, out_channels, stride, options)
    shortcut = make_shortcut(in_channels, out_channels, stride, options)
    recompute = options["checkpoint_activations"]
    if options["preactivation"]:
        return preactivated_block(
            body,
            shortcut,
            in_channels,
            normalize=options["normalize"],
            checkpoint_activations=recompute,
        )
    return Residual(body, shortcut, nn.ReLU(inplace=True), checkpoint_activations=recompute)


def basic_body(in_channels: int, out_channels: int, stride: int, options: Options) -> nn.Sequential:
    """Return two 3x3 convolutions (Fig. 5, left). The last activation is after the addition."""
    normalize = options["normalize"]
    parts = conv_norm(in_channels, out_channels, 3, stride, normalize, "1")
    parts["relu1"] = nn.ReLU(inplace=True)
    parts |= conv_norm(out_channels, out_channels, 3, 1, normalize, "2")
    return nn.Sequential(parts)


def bottleneck_body(
    in_channels: int, out_channels: int, stride: int, options: Options
) -> nn.Sequential:
    """Return 1x1, 3x3, 1x1 (Fig. 5, right). Paper: the first 1x1 strides, as its MACs show."""
    normalize, groups = options["normalize"], options["groups"]
    width = out_channels // EXPANSION * options["base_width"] // 64 * groups
    stride1, stride2 = (stride, 1) if options["stride_in"] == "1x1" else (1, stride)
    parts = conv_norm(in_channels, width, 1, stride1, normalize, "1")
    parts["relu1"] = nn.ReLU(inplace=True)
    parts |= conv_norm(width, width, 3, stride2, normalize, "2", groups=groups)
    parts["relu2"] = nn.ReLU(inplace=True)
    parts |= conv_norm(width, out_channels, 1, 1, normalize, "3")
    return nn.Sequential(parts)


def conv_norm(
    in_channels: int,
    out_channels: int,
    kernel: int,
    stride: int,
    normalize: bool,
    suffix: str = "",
    *,
    groups: int = 1,
) -> Parts:
    """Return a convolution followed by batch norm (Sec. 3.4).

    Without batch norm, the convolution has biases.
    """
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


def make_shortcut(
    in_channels: int, out_channels: int, stride: int, options: Options
) -> nn.Module | None:
    """Return the shortcut of a block: option A, B or C (Sec. 3.3; Table 3), or None if plain.

    A is the identity, zero-padded where the shape changes. B projects (Eq. 2) where the shape
    changes, C everywhere.
    """
    option = options["shortcut"]
    same_shape = in_channels == out_channels and stride == 1
    if option is None:
        return None
    if option == "C" or (option == "B" and not same_shape):
        return projection(in_channels, out_channels, stride, options)
    if same_shape:
        return nn.Identity()
    return ZeroPadShortcut(
        in_channels,
        out_channels,
        stride=stride,
        zero_pad=options["zero_pad"],
        subsample=options["subsample"],
    )


def projection(in_channels: int, out_channels: int, stride: int, options: Options) -> nn.Sequential:
    """Return W_s of Eq. 2: a 1x1 convolution and batch norm."""
    parts: Parts = OrderedDict()
    if options["shortcut_pool"] and stride > 1:  # Deviates: ResNet-D uses every pixel
        parts["pool"] = nn.AvgPool2d(stride, ceil_mode=True, count_include_pad=False)
        stride = 1
    parts |= conv_norm(in_channels, out_channels, 1, stride, options["normalize"])
    if options["preactivation"]:  # the input is normalized already
        parts.pop("bn", None)
    return nn.Sequential(parts)


@final
class ZeroPadShortcut(nn.Module):
    """Option A where the shape changes: subsample in space, pad with zero channels.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output, at least `in_channels`.
        stride: Factor between the sides of input and output.
        zero_pad: "append" puts all zero channels after the channels of x, "split" half before and
            half after.
        subsample: "slice" takes every stride-th pixel, "average" the mean of stride x stride
            pixels.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        stride: int,
        zero_pad: str,
        subsample: str,
    ) -> None:
        super().__init__()
        num_zeros = out_channels - in_channels
        assert num_zeros >= 0, f"option A cannot drop channels: {in_channels} to {out_channels}"
        self.before = num_zeros // 2 if zero_pad == "split" else 0
        self.after = num_zeros - self.before
        self.stride = stride
        self.subsample = subsample

    def forward(self, x: Shaped[Tensor, "B C H W"]) -> Shaped[Tensor, "B D h w"]:
        if self.stride > 1 and self.subsample == "average":
            # The last window of an odd map is cut short, as in a strided 3x3
            # convolution.
            x = functional.avg_pool2d(x, self.stride, ceil_mode=True, count_include_pad=False)
        elif self.stride > 1:
            x = x[:, :, :: self.stride, :: self.stride]
        return functional.pad(x, (0, 0, 0, 0, self.before, self.after))

    def extra_repr(self) -> str:
        return f"stride={self.stride}, subsample={self.subsample}, zeros={self.before}+{self.after}"
