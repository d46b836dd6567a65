"""The two families of the paper as tables, and how a row of a table becomes stem, stages and head.

CIFAR (Sec. 4.2, Table 6): 3x3 stem, three stages of n basic blocks with 16, 32, 64 channels on maps 32, 16, 8: 6n+2 layers.
ImageNet (Table 1): 7x7/2 stem and 3x3/2 max pool, four stages on maps 56, 28, 14, 7. Stride 2 in the first block of each
stage but the first. The plain network of the same depth has the same bodies and no shortcuts.

Deviates: below the paper's tables stand the variants that people have weights of. Each is a row of switches and no code of its own.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from dataclasses import dataclass, replace
from typing import Any, Literal

from torch import nn

from reslearn.models.bodies import (
    Body,
    Parts,
    StrideIn,
    basic_body,
    bottleneck_body,
    layer,
    normalised_relu,
    preactivated,
)
from reslearn.models.residual import Residual
from reslearn.models.shortcuts import ShortcutOption, Subsample, ZeroPad, make_shortcut

Stem = Literal["cifar", "imagenet", "deep"]
KINDS = ("plain", "resnet")
CIFAR_DEPTHS = (8, 14, 20, 32, 44, 56, 110, 1202)  # those listed by name; any 6n+2 can be built
IMAGENET_BLOCKS: dict[int, tuple[Body, tuple[int, ...]]] = {
    18: ("basic", (2, 2, 2, 2)),
    34: ("basic", (3, 4, 6, 3)),
    50: ("bottleneck", (3, 4, 6, 3)),
    101: ("bottleneck", (3, 4, 23, 3)),
    152: ("bottleneck", (3, 8, 36, 3)),
}
_D: dict[str, Any] = {"stem": "deep", "shortcut_pool": True, "shortcut": "B"}
# Deviates: name, depth of Table 1, switches. The names are those of torchvision or, where it has none, timm.
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
    "resnetv2_18": (18, {"preactivation": True, "shortcut": "B"}),
    "resnetv2_34": (34, {"preactivation": True, "shortcut": "B"}),
    "resnetv2_50": (50, {"preactivation": True, "stride_in": "3x3"}),
    "resnetv2_101": (101, {"preactivation": True, "stride_in": "3x3"}),
    "resnetv2_152": (152, {"preactivation": True, "stride_in": "3x3"}),
}
WIDE_CIFAR = (
    "wrn16_4",
    "wrn28_10",
    "wrn40_2",
)  # those listed by name; any wrn<6n+4>_<width> can be built
WIDEST = 64  # of a width multiplier: nobody has gone beyond 20


@dataclass(frozen=True, kw_only=True)
class Layout:
    """What a name stands for: widths and numbers of blocks by stage, and what its switches are unless given.

    `channels` are those that leave the stage's blocks, at a width of 1.
    """

    plain: bool
    stem: Stem
    body: Body
    stem_channels: int
    channels: tuple[int, ...]
    blocks: tuple[int, ...]
    shortcut: ShortcutOption | None = None
    stride_in: StrideIn = "1x1"
    groups: int = 1
    base_width: int = 64
    width: int = 1
    shortcut_pool: bool = False
    preactivation: bool = False

    @property
    def default_shortcut(self) -> ShortcutOption:
        """Paper: A in Tables 2 and 6, B in the bottleneck networks of Table 3."""
        return self.shortcut or ("B" if self.body == "bottleneck" else "A")


# Not the paper's (it stops at 1202): a slip of the finger may not ask for millions of layers, which take hours to be made.
DEEPEST = 9_998


def layout_of(name: str) -> Layout | None:
    """The layout of a name like "plain18", "resnet56", or None. 50 and 152 are also 6n+2: those of CIFAR are "resnet50-cifar".

    "wrn28_10" is a wide CIFAR network with pre-activation: 6n+4 layers, of which three project, ten times as wide.
    """
    if name in VARIANTS:
        depth, switches = VARIANTS[name]
        body, blocks = IMAGENET_BLOCKS[depth]
        return replace(_imagenet(body, blocks, plain=False), **switches)
    if wide := re.fullmatch(r"wrn([1-9]\d*)_([1-9]\d?)", name):
        depth, width = int(wide[1]), int(wide[2])
        if not 10 <= depth <= DEEPEST or depth % 6 != 4 or width > WIDEST:
            return None
        return replace(
            _cifar((depth - 4) // 6, plain=False), preactivation=True, shortcut="B", width=width
        )
    match = re.fullmatch(r"(plain|resnet)([1-9]\d*)(-cifar)?", name)
    if match is None:
        return None
    plain, depth, suffixed = match[1] == "plain", int(match[2]), match[3] is not None
    if depth in IMAGENET_BLOCKS and not suffixed:
        body, blocks = IMAGENET_BLOCKS[depth]
        return _imagenet(body, blocks, plain=plain)
    if not 8 <= depth <= DEEPEST or depth % 6 != 2 or (suffixed and depth not in IMAGENET_BLOCKS):
        return None
    return _cifar((depth - 2) // 6, plain=plain)


def _imagenet(body: Body, blocks: tuple[int, ...], *, plain: bool) -> Layout:
    channels = (64, 128, 256, 512) if body == "basic" else (256, 512, 1024, 2048)
    return Layout(
        plain=plain, stem="imagenet", body=body, stem_channels=64, channels=channels, blocks=blocks
    )


def _cifar(n: int, *, plain: bool) -> Layout:
    return Layout(
        plain=plain,
        stem="cifar",
        body="basic",
        stem_channels=16,
        channels=(16, 32, 64),
        blocks=(n, n, n),
    )


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
    stem: Stem
    groups: int
    base_width: int
    width: int
    shortcut_pool: bool
    preactivation: bool


def make_stem(layout: Layout, spec: Spec) -> nn.Sequential:
    """CIFAR: 3x3, the size stays. ImageNet: 7x7/2 and 3x3/2 max pool, a quarter of the size. Deep: three 3x3 for the 7x7 (ResNet-D).

    With pre-activation the first block normalizes what the stem's last convolution puts out.
    """
    parts: Parts = OrderedDict()
    width, channels = spec.in_channels, layout.stem_channels
    if spec.stem == "deep":
        for number, stride in (("1", 2), ("2", 1)):
            parts |= layer(
                width,
                channels // 2,
                kernel=3,
                stride=stride,
                normalize=spec.normalize,
                suffix=number,
            )
            parts[f"relu{number}"] = nn.ReLU(inplace=True)
            width = channels // 2
        last = layer(width, channels, kernel=3, stride=1, normalize=spec.normalize, suffix="3")
    else:
        kernel, stride = (7, 2) if spec.stem == "imagenet" else (3, 1)
        last = layer(width, channels, kernel=kernel, stride=stride, normalize=spec.normalize)
    parts |= OrderedDict(list(last.items())[:1]) if spec.preactivation else last
    if not spec.preactivation:
        parts["relu"] = nn.ReLU(inplace=True)
    if spec.stem != "cifar":
        parts["pool"] = nn.MaxPool2d(3, stride=2, padding=1)
    return nn.Sequential(parts)


def make_stages(layout: Layout, spec: Spec) -> list[list[Residual]]:
    """The blocks of each stage; the first block of each stage but the first halves the maps."""
    stages = []
    width = layout.stem_channels
    for stage, (base, num_blocks) in enumerate(zip(layout.channels, layout.blocks, strict=True)):
        blocks, channels = [], base * spec.width
        for index in range(num_blocks):
            stride = 2 if stage > 0 and index == 0 else 1
            blocks.append(_block(layout, spec, width, channels, stride))
            width = channels
        stages.append(blocks)
    return stages


def make_head(layout: Layout, spec: Spec) -> nn.Sequential:
    """Global average pool and the fully connected layer; the softmax belongs to the loss. With pre-activation first batch norm and ReLU."""
    channels = layout.channels[-1] * spec.width
    parts = (
        normalised_relu(channels, normalize=spec.normalize) if spec.preactivation else OrderedDict()
    )
    parts["pool"] = nn.AdaptiveAvgPool2d(1)
    parts["flatten"] = nn.Flatten()
    parts["fc"] = nn.Linear(channels, spec.num_classes)
    return nn.Sequential(parts)


def _block(
    layout: Layout, spec: Spec, in_channels: int, out_channels: int, stride: int
) -> Residual:
    shape: dict[str, Any] = {
        "in_channels": in_channels,
        "out_channels": out_channels,
        "stride": stride,
        "normalize": spec.normalize,
    }
    if layout.body == "basic":
        body = basic_body(**shape)
    else:
        body = bottleneck_body(
            **shape, stride_in=spec.stride_in, groups=spec.groups, base_width=spec.base_width
        )
    shortcut = None
    if spec.shortcut is not None:
        shortcut = make_shortcut(
            spec.shortcut,
            **shape,
            zero_pad=spec.zero_pad,
            subsample=spec.subsample,
            pool=spec.shortcut_pool,
            preactivation=spec.preactivation,
        )
    if not spec.preactivation:
        return Residual(
            body,
            shortcut,
            nn.ReLU(inplace=True),
            checkpoint_activations=spec.checkpoint_activations,
        )
    body, before = preactivated(body, in_channels, normalize=spec.normalize), None
    if shortcut is not None and not isinstance(shortcut, nn.Identity):
        # Where the shape changes, body and shortcut see the same normalized input; elsewhere the shortcut carries x itself.
        parts = list(body.named_children())
        first = next(
            index for index, (_, module) in enumerate(parts) if isinstance(module, nn.Conv2d)
        )
        before, body = (
            nn.Sequential(OrderedDict(parts[:first])),
            nn.Sequential(OrderedDict(parts[first:])),
        )
    return Residual(
        body,
        shortcut,
        nn.Identity(),
        before=before,
        checkpoint_activations=spec.checkpoint_activations,
    )
