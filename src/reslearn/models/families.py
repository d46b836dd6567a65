"""The two families of the paper as tables, and how a row of a table becomes stem, stages and head.

CIFAR (Sec. 4.2, Table 6): 3x3 stem, three stages of n basic blocks with 16, 32, 64 channels on maps 32, 16, 8: 6n+2 layers.
ImageNet (Table 1): 7x7/2 stem and 3x3/2 max pool, four stages on maps 56, 28, 14, 7. Stride 2 in the first block of each
stage but the first. The plain network of the same depth has the same bodies and no shortcuts.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any, Literal

from torch import nn

from reslearn.models.bodies import Body, StrideIn, basic_body, bottleneck_body, layer
from reslearn.models.residual import Residual
from reslearn.models.shortcuts import ShortcutOption, Subsample, ZeroPad, make_shortcut

Stem = Literal["cifar", "imagenet"]
KINDS = ("plain", "resnet")
CIFAR_DEPTHS = (8, 14, 20, 32, 44, 56, 110, 1202)  # those listed by name; any 6n+2 can be built
IMAGENET_BLOCKS: dict[int, tuple[Body, tuple[int, ...]]] = {
    18: ("basic", (2, 2, 2, 2)),
    34: ("basic", (3, 4, 6, 3)),
    50: ("bottleneck", (3, 4, 6, 3)),
    101: ("bottleneck", (3, 4, 23, 3)),
    152: ("bottleneck", (3, 8, 36, 3)),
}


@dataclass(frozen=True, kw_only=True)
class Layout:
    """What a name stands for: widths and numbers of blocks by stage. `channels` are those that leave the stage's blocks."""

    plain: bool
    stem: Stem
    body: Body
    stem_channels: int
    channels: tuple[int, ...]
    blocks: tuple[int, ...]

    @property
    def default_shortcut(self) -> ShortcutOption:
        """Paper: A in Tables 2 and 6, B in the bottleneck networks of Table 3."""
        return "B" if self.body == "bottleneck" else "A"


# Not the paper's (it stops at 1202): a slip of the finger may not ask for millions of layers, which take hours to be made.
DEEPEST = 9_998


def layout_of(name: str) -> Layout | None:
    """The layout of a name like "plain18", "resnet56", or None. 50 and 152 are also 6n+2: those of CIFAR are "resnet50-cifar"."""
    match = re.fullmatch(r"(plain|resnet)([1-9]\d*)(-cifar)?", name)
    if match is None:
        return None
    plain, depth, suffixed = match[1] == "plain", int(match[2]), match[3] is not None
    if depth in IMAGENET_BLOCKS and not suffixed:
        body, blocks = IMAGENET_BLOCKS[depth]
        channels = (64, 128, 256, 512) if body == "basic" else (256, 512, 1024, 2048)
        return Layout(plain=plain, stem="imagenet", body=body, stem_channels=64, channels=channels, blocks=blocks)
    if not 8 <= depth <= DEEPEST or depth % 6 != 2 or (suffixed and depth not in IMAGENET_BLOCKS):
        return None
    n = (depth - 2) // 6
    return Layout(plain=plain, stem="cifar", body="basic", stem_channels=16, channels=(16, 32, 64), blocks=(n, n, n))


@dataclass(frozen=True, kw_only=True)
class Spec:
    """A network as plain values; see `build` for their meaning. `shortcut` is None for plain networks and only for them."""

    name: str
    num_classes: int
    in_channels: int
    shortcut: ShortcutOption | None
    zero_pad: ZeroPad
    subsample: Subsample
    stride_in: StrideIn
    init: Literal["he_fan_out", "he_fan_in", "normal_0.01"]
    zero_init: bool
    normalize: bool
    checkpoint_activations: bool


def make_stem(layout: Layout, spec: Spec) -> nn.Sequential:
    """CIFAR: 3x3, the size stays. ImageNet: 7x7/2 and 3x3/2 max pool, a quarter of the size."""
    imagenet = layout.stem == "imagenet"
    kernel, stride = (7, 2) if imagenet else (3, 1)
    parts = layer(spec.in_channels, layout.stem_channels, kernel=kernel, stride=stride, normalize=spec.normalize)
    parts["relu"] = nn.ReLU(inplace=True)
    if imagenet:
        parts["pool"] = nn.MaxPool2d(3, stride=2, padding=1)
    return nn.Sequential(parts)


def make_stages(layout: Layout, spec: Spec) -> list[list[Residual]]:
    """The blocks of each stage; the first block of each stage but the first halves the maps."""
    stages = []
    width = layout.stem_channels
    for stage, (channels, num_blocks) in enumerate(zip(layout.channels, layout.blocks, strict=True)):
        blocks = []
        for index in range(num_blocks):
            stride = 2 if stage > 0 and index == 0 else 1
            blocks.append(_block(layout, spec, width, channels, stride))
            width = channels
        stages.append(blocks)
    return stages


def make_head(layout: Layout, spec: Spec) -> nn.Sequential:
    """Global average pool and the fully connected layer; the softmax belongs to the loss."""
    parts: OrderedDict[str, nn.Module] = OrderedDict()
    parts["pool"] = nn.AdaptiveAvgPool2d(1)
    parts["flatten"] = nn.Flatten()
    parts["fc"] = nn.Linear(layout.channels[-1], spec.num_classes)
    return nn.Sequential(parts)


def _block(layout: Layout, spec: Spec, in_channels: int, out_channels: int, stride: int) -> Residual:
    shape: dict[str, Any] = {"in_channels": in_channels, "out_channels": out_channels, "stride": stride, "normalize": spec.normalize}
    body = basic_body(**shape) if layout.body == "basic" else bottleneck_body(**shape, stride_in=spec.stride_in)
    shortcut = None
    if spec.shortcut is not None:
        shortcut = make_shortcut(spec.shortcut, **shape, zero_pad=spec.zero_pad, subsample=spec.subsample)
    return Residual(body, shortcut, nn.ReLU(inplace=True), checkpoint_activations=spec.checkpoint_activations)
