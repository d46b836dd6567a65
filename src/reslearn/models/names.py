"""Names to networks: `build("resnet56", num_classes=10)`, and errors for unknown names."""

from __future__ import annotations

import difflib
import re
import warnings
from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Any

from reslearn.models.network import Network, check_num_classes
from reslearn.models.resnet import (
    IMAGENET_BLOCKS,
    Architecture,
    build_network,
    cifar_architecture,
    imagenet_architecture,
)
from reslearn.models.variants import MAX_WIDTH, VARIANTS, WIDE_CIFAR, wide_cifar
from reslearn.switches import SWITCHES, check_count, resolve

KINDS = ("plain", "resnet")
CIFAR_DEPTHS = (8, 14, 20, 32, 44, 56, 110, 1202)  # those that `names` lists; any 6n+2 can be built
MAX_DEPTH = 9_998  # the paper stops at 1202; a typing error must not build a network for hours


class UnknownModelError(ValueError):
    """A name that stands for no network. The message says which one was probably meant."""


def build(name: str, *, num_classes: int, in_channels: int = 3, **switches: Any) -> Network:
    """Build the named network with new weights. Defaults are the paper's (Sec. 3.3 to 4.2).

    Under `with torch.device("meta")` no weights are allocated.

    Args:
        name: "plain" or "resnet" and the number of layers: 18, 34, 50, 101, 152 (ImageNet) or any
            6n+2 (CIFAR; "resnet50-cifar" and "resnet152-cifar" because both families have these
            depths). Or a variant of `names`, such as "resnet50d" or "wrn28_10", which is one of
            these networks with other switches.
        num_classes: Number of logits. 0: no classifier; the network returns pooled features.
        in_channels: Channels of the images.
        switches: Rows of `reslearn.switches.SWITCHES`, such as shortcut="B" or normalize=False. A
            switch that is None or left out has the value that the name stands for, or else the
            paper's.

    Raises:
        UnknownModelError: If `name` is no network. The message suggests one.
        ValueError: If a switch is unknown, or if a value is not allowed.

    Warns:
        UserWarning: If a switch has no effect in this network. Its value does not enter
            `Network.spec`.
    """
    architecture = architecture_of(name) if isinstance(name, str) else None
    if architecture is None:
        raise _unknown_model(name)
    check_num_classes(num_classes)
    check_count("in_channels", in_channels)
    options = resolve(switches, architecture.switches)
    _check_sizes(options)
    _check_zero_init(name, architecture, options)
    return build_network(
        name,
        architecture,
        _without_unused(name, architecture, options),
        num_classes=num_classes,
        in_channels=in_channels,
    )


def names(pattern: str = "*") -> list[str]:
    """Return the names that match a shell pattern: the paper's networks, then the variants."""
    depths = sorted({*CIFAR_DEPTHS, *IMAGENET_BLOCKS})
    listed = [f"plain{depth}" for depth in depths]
    listed += [f"resnet{depth}" for depth in depths]
    listed += [*VARIANTS, *WIDE_CIFAR]
    return [name for name in listed if fnmatchcase(name, pattern)]


def architecture_of(name: str) -> Architecture | None:
    """Return the architecture of a name such as "plain18" or "wrn28_10", None if unknown."""
    if name in VARIANTS:
        depth, switches = VARIANTS[name]
        return imagenet_architecture(depth, is_plain=False, switches=switches)
    if name.startswith("wrn") and (wide := wide_cifar(name)):
        depth, switches = wide
        if not 10 <= depth <= MAX_DEPTH:
            return None
        return cifar_architecture((depth - 4) // 6, is_plain=False, switches=switches)
    match = re.fullmatch(r"(plain|resnet)([1-9]\d*)(-cifar)?", name)
    if match is None:
        return None
    is_plain, depth, has_suffix = match[1] == "plain", int(match[2]), match[3] is not None
    if depth in IMAGENET_BLOCKS and not has_suffix:
        return imagenet_architecture(depth, is_plain=is_plain, switches={})
    if has_suffix and depth not in IMAGENET_BLOCKS:
        return None
    if not 8 <= depth <= MAX_DEPTH or depth % 6 != 2:
        return None
    return cifar_architecture((depth - 2) // 6, is_plain=is_plain, switches={})


def _check_sizes(options: Mapping[str, Any]) -> None:
    """Refuse a network that no machine can hold; a small file may ask for one."""
    if options["width"] > MAX_WIDTH:
        raise ValueError(
            f"width={options['width']}: at most {MAX_WIDTH} times the width of the paper"
        )
    groups, base_width = options["groups"], options["base_width"]
    if groups * base_width > 64 * MAX_WIDTH:
        raise ValueError(
            f"groups={groups}, base_width={base_width}: the product is at most {64 * MAX_WIDTH}"
        )


def _check_zero_init(name: str, architecture: Architecture, options: Mapping[str, Any]) -> None:
    if not options["zero_init"]:
        return
    if architecture.is_plain:
        raise ValueError(
            f"zero_init=True: {name} has no shortcuts, so its blocks would output zero"
        )
    if not options["normalize"]:
        raise ValueError(
            "zero_init=True sets the last batch norm of each body to zero: normalize must be True"
        )
    if options["preactivation"]:
        raise ValueError(
            "zero_init=True: with preactivation=True no batch norm is at the end of a body"
        )


def _without_unused(
    name: str, architecture: Architecture, options: Mapping[str, Any]
) -> dict[str, Any]:
    """Set each switch without effect to the paper's value, and warn about it."""
    effective = dict(options)
    if architecture.is_plain:
        effective["shortcut"] = None
    shortcut, has_bottlenecks = effective["shortcut"], architecture.body == "bottleneck"
    for switch in SWITCHES.values():
        if not switch.applies(has_bottlenecks=has_bottlenecks, shortcut=shortcut):
            effective[switch.name] = switch.default
    for key, value in options.items():
        if value != effective[key]:
            warnings.warn(
                f"{key}={value!r} has no effect in {name} with shortcut={shortcut!r}", stacklevel=3
            )
    return effective


def _unknown_model(name: object) -> UnknownModelError:
    nearest = _nearest_name(str(name).lower())
    hint = f"did you mean {nearest!r}? " if nearest else ""
    imagenet_depths = ", ".join(map(str, IMAGENET_BLOCKS))
    return UnknownModelError(
        f"unknown model {name!r}: {hint}allowed are plain and resnet with {imagenet_depths} "
        f"(ImageNet) or any 6n+2 = 8, 14, 20, ... {MAX_DEPTH} (CIFAR) layers, and the variants "
        "of `reslearn list models`"
    )


def _nearest_name(name: str) -> str | None:
    """Return the nearest name: resnet20 for resnet21, plain18 for plian18."""
    of_kind = _nearest_depth(re.sub(r"[\s_-]", "", name))
    if re.fullmatch(r"(plain|resnet)\D?\d*(-cifar)?", name):
        return of_kind
    name = name.replace("-", "_")
    variants = [*VARIANTS, *WIDE_CIFAR]
    for variant in variants:
        if len(name) > 3 and variant.startswith(name):
            return variant
    similar = difflib.get_close_matches(name, [*variants, of_kind or ""], n=1, cutoff=0.75)
    return similar[0] if similar else of_kind


def _nearest_depth(name: str) -> str | None:
    """Return the plain or residual network that `name` resembles, with the nearest depth."""
    match = re.fullmatch(r"([a-z]*?)(\d+)[a-z]*", name)
    kinds = difflib.get_close_matches(match[1], KINDS, n=1) if match else []
    if match is None or not kinds:
        similar = difflib.get_close_matches(name, names(), n=1)
        return similar[0] if similar else None
    depth = min(int(match[2]), CIFAR_DEPTHS[-1])
    nearest_cifar_depth = 6 * max(1, round((depth - 2) / 6)) + 2
    depths = (nearest_cifar_depth, *IMAGENET_BLOCKS)
    return f"{kinds[0]}{min(depths, key=lambda candidate: abs(candidate - depth))}"
