"""Names to networks: `build("resnet56", num_classes=10)` and all switches at which re-implementations of the paper differ."""

from __future__ import annotations

import difflib
import re
import warnings
from dataclasses import asdict, replace
from fnmatch import fnmatchcase
from typing import TypeVar, get_args

from reslearn.models.bodies import StrideIn
from reslearn.models.families import (
    CIFAR_DEPTHS,
    DEEPEST,
    IMAGENET_BLOCKS,
    KINDS,
    VARIANTS,
    WIDE_CIFAR,
    WIDEST,
    Layout,
    Spec,
    Stem,
    layout_of,
    make_head,
    make_stages,
    make_stem,
)
from reslearn.models.initialization import Init, initialize
from reslearn.models.network import Network
from reslearn.models.shortcuts import ShortcutOption, Subsample, ZeroPad

Value = TypeVar("Value")


class UnknownModel(ValueError):
    """A name that stands for no network; the message says which was perhaps meant."""


def names(pattern: str = "*") -> list[str]:
    """Names that match a shell pattern: the paper's by kind and depth, then the variants. Any 6n+2 from 8 on can be built besides."""
    depths = sorted({*CIFAR_DEPTHS, *IMAGENET_BLOCKS})
    known = [*(f"{kind}{depth}" for kind in KINDS for depth in depths), *VARIANTS, *WIDE_CIFAR]
    return [name for name in known if fnmatchcase(name, pattern)]


def build(
    name: str,
    *,
    num_classes: int,
    in_channels: int = 3,
    shortcut: ShortcutOption | None = None,
    zero_pad: ZeroPad = "append",
    subsample: Subsample = "slice",
    stride_in: StrideIn | None = None,
    init: Init = "he_fan_out",
    zero_init: bool = False,
    normalize: bool = True,
    checkpoint_activations: bool = False,
    stem: Stem | None = None,
    groups: int | None = None,
    base_width: int | None = None,
    width: int | None = None,
    shortcut_pool: bool | None = None,
    preactivation: bool | None = None,
) -> Network:
    """The named network with fresh weights. Paper: every default, where the paper says (Sec. 3.3, 3.4, 4.1, 4.2).

    name: "plain" or "resnet" and the number of layers: 18, 34, 50, 101, 152 of ImageNet, any 6n+2 of CIFAR ("resnet50-cifar" and
    "resnet152-cifar" where both families have one); or a variant, such as resnext50_32x4d, resnet50d, wrn28_10, which is one of these
    with other switches. None as a switch takes what the name stands for. shortcut: option A, B or C; None takes the family's, B for
    bottleneck networks and A for all others. zero_pad, subsample: how option A fills new channels and halves maps. stride_in: where a
    bottleneck strides. init, zero_init: see `initialize`. normalize=False: no batch norm, convolutions get biases.
    checkpoint_activations: trade a forward pass for memory.
    Deviates, for weights that exist: stem "cifar", "imagenet" or "deep" (three 3x3 for the 7x7); groups and base_width of a
    bottleneck's 3x3 (ResNeXt, wide_resnet50_2); width multiplies the channels of all stages (wide CIFAR networks); shortcut_pool
    averages before a projection strides (ResNet-D); preactivation puts batch norm and ReLU before each convolution ("v2").
    Under `with torch.device("meta")` no weights are allocated.
    Raises UnknownModel, and ValueError for a value that is not allowed. Warns of a setting without effect and leaves it out of `spec`.
    """
    layout = _layout_or_raise(name)
    spec = Spec(
        name=name,
        num_classes=_positive("num_classes", num_classes),
        in_channels=_positive("in_channels", in_channels),
        shortcut=shortcut if shortcut is None else _one_of("shortcut", shortcut, ShortcutOption),
        zero_pad=_one_of("zero_pad", zero_pad, ZeroPad),
        subsample=_one_of("subsample", subsample, Subsample),
        stride_in=_one_of("stride_in", stride_in or layout.stride_in, StrideIn),
        init=_one_of("init", init, Init),
        zero_init=bool(zero_init),
        normalize=bool(normalize),
        checkpoint_activations=bool(checkpoint_activations),
        stem=_one_of("stem", stem or layout.stem, Stem),
        groups=_positive("groups", layout.groups if groups is None else groups),
        base_width=_positive("base_width", layout.base_width if base_width is None else base_width),
        width=_positive("width", layout.width if width is None else width),
        shortcut_pool=layout.shortcut_pool if shortcut_pool is None else bool(shortcut_pool),
        preactivation=layout.preactivation if preactivation is None else bool(preactivation),
    )
    _check_widths(spec)
    spec = _effective(spec, layout)
    net = Network(
        stem=make_stem(layout, spec),
        stages=make_stages(layout, spec),
        head=make_head(layout, spec),
        spec=asdict(spec),
    )
    initialize(net, spec.init, zero_init=spec.zero_init)
    return net


def _effective(spec: Spec, layout: Layout) -> Spec:
    """The spec with the family's shortcut filled in and settings without effect at their defaults, each with a warning."""
    if spec.zero_init and layout.plain:
        raise ValueError(
            f"zero_init=True: {spec.name} has no shortcuts, so its blocks would pass nothing on"
        )
    if spec.zero_init and not spec.normalize:
        raise ValueError(
            "zero_init=True sets the last batch norm of each block to zero, so normalize must be True"
        )
    if spec.zero_init and spec.preactivation:
        raise ValueError(
            "zero_init=True: with preactivation no batch norm ends a body, so there is none to set to zero"
        )
    option = None if layout.plain else spec.shortcut or layout.default_shortcut
    effective = replace(spec, shortcut=option)
    if option != "A":
        effective = replace(effective, zero_pad="append", subsample="slice")
    if option not in ("B", "C"):
        effective = replace(effective, shortcut_pool=False)
    if layout.body == "basic":
        effective = replace(effective, stride_in="1x1", groups=1, base_width=64)
    taken = asdict(effective)
    for key, value in asdict(spec).items():
        if value is not None and value != taken[key]:
            warnings.warn(
                f"{key}={value!r} has no effect in {spec.name} with shortcut={option!r}",
                stacklevel=3,
            )
    return effective


def _check_widths(spec: Spec) -> None:
    """A slip of the finger, or a file of a few bytes, may not ask for a network that no machine holds."""
    if spec.width > WIDEST:
        raise ValueError(f"width={spec.width}: at most {WIDEST} times the width of the paper")
    if spec.groups * spec.base_width > 64 * WIDEST:
        raise ValueError(
            f"groups={spec.groups}, base_width={spec.base_width}: together at most {64 * WIDEST} channels"
        )


def _layout_or_raise(name: str) -> Layout:
    layout = layout_of(name) if isinstance(name, str) else None
    if layout is not None:
        return layout
    nearest = _nearest(str(name))
    meant = f"did you mean {nearest!r}? " if nearest else ""
    imagenet = ", ".join(map(str, IMAGENET_BLOCKS))
    raise UnknownModel(
        f"unknown model {name!r}: {meant}known are plain and resnet with {imagenet} (ImageNet) "
        f"or any 6n+2 = 8, 14, 20, ... {DEEPEST} (CIFAR) layers, and the variants of `reslearn list models`"
    )


def _nearest(name: str) -> str | None:
    """resnet21 to resnet20, ResNet-56 to resnet56, plian18 to plain18; a depth that can be built is kept."""
    kept = _of_near_depth(re.sub(r"[\s_-]", "", name.lower()))
    if re.fullmatch(r"(plain|resnet)\D?\d*(-cifar)?", name.lower()):
        return kept
    written, variants = name.lower().replace("-", "_"), [*VARIANTS, *WIDE_CIFAR]
    begun = [variant for variant in variants if len(written) > 3 and variant.startswith(written)]
    near = begun or difflib.get_close_matches(written, [*variants, kept or ""], n=1, cutoff=0.75)
    return near[0] if near else kept


def _of_near_depth(name: str) -> str | None:
    match = re.fullmatch(r"([a-z]*?)(\d+)[a-z]*", name)
    kind = difflib.get_close_matches(match[1], KINDS, n=1) if match else []
    if match is None or not kind:
        return next(iter(difflib.get_close_matches(name, names(), n=1)), None)
    depth = min(int(match[2]), CIFAR_DEPTHS[-1])
    depths = (6 * max(1, round((depth - 2) / 6)) + 2, *IMAGENET_BLOCKS)
    return f"{kind[0]}{min(depths, key=lambda known: abs(known - depth))}"


def _one_of(key: str, value: Value, options: object) -> Value:
    allowed = get_args(options)
    if value not in allowed:
        raise ValueError(f"{key}={value!r}: allowed are {', '.join(map(repr, allowed))}")
    return value


def _positive(key: str, value: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"{key}={value!r}: must be a whole number from 1 on")
    return value
