"""Infer the arguments of `models.build` from native names and shapes of tensors."""

import re
from collections.abc import Mapping
from typing import Any

from reslearn.interop.dialect import Dialect
from reslearn.models.names import architecture_of
from reslearn.models.resnet import IMAGENET_BLOCKS, Architecture
from reslearn.models.variants import VARIANTS
from reslearn.switches import SWITCHES, resolve

Shapes = Mapping[str, tuple[int, ...]]
_BLOCK = re.compile(r"stage(\d+)\.(\d+)\.")
_MAX_BLOCKS = 2_000
_STEMS: dict[tuple[int, ...], str] = {(7, 7): "imagenet", (3, 3): "cifar"}


class NotAResNet(ValueError):
    """Names and shapes fit no network of the catalog. The message says why."""


class OtherDialect(NotAResNet):
    """A table has the names of a dialect, and shapes that no network of this dialect has."""


def infer(shapes: Shapes, dialect: Dialect) -> tuple[dict[str, Any], list[str]]:
    """Infer depth, body, stem, widths, groups and shortcut option.

    Args:
        shapes: Native shapes of all tensors by native name.
        dialect: Gives the switches that shapes do not show.

    Returns:
        Arguments of `models.build`, with num_classes None if there is no head, and a note for each
        switch that the weights do not show.

    Raises:
        NotAResNet: If the shapes belong to no network of the catalog.
    """
    block_counts = _block_counts(shapes)
    is_bottleneck = "stage1.0.body.conv3.weight" in shapes
    last_conv = "conv3" if is_bottleneck else "conv2"
    channels = [
        _shape(shapes, f"stage{stage}.0.body.{last_conv}.weight", 4)[0]
        for stage in range(1, len(block_counts) + 1)
    ]
    spec = _visible_switches(shapes, block_counts)
    _apply_dialect(spec, dialect, is_bottleneck=is_bottleneck)
    if is_bottleneck:
        spec |= _groups(shapes)
    body = "bottleneck" if is_bottleneck else "basic"
    base, architecture = _base_network(body, block_counts, channels)
    spec["width"] = _width_multiple(base, architecture, channels)
    spec["name"] = _variant(spec, architecture) or base
    notes = _notes(spec, dialect, is_bottleneck=is_bottleneck)
    if not is_bottleneck:
        for switch in SWITCHES.values():
            if switch.scope == "bottlenecks":
                spec.pop(switch.name, None)
    return spec, notes


def _visible_switches(shapes: Shapes, block_counts: tuple[int, ...]) -> dict[str, Any]:
    """Return the switches that names and shapes show."""
    stem, first_shape = _stem(shapes)
    has_head = "head.fc.weight" in shapes
    has_batch_norm_before = any(".before." in name for name in shapes)
    return {
        "in_channels": first_shape[1],
        "num_classes": _shape(shapes, "head.fc.weight", 2)[0] if has_head else None,
        "stem": stem,
        "shortcut": _shortcut(shapes, block_counts),
        "normalize": any(".bn" in name for name in shapes),
        "preactivation": "head.bn.weight" in shapes or has_batch_norm_before,
        "shortcut_pool": False,
    }


def _apply_dialect(spec: dict[str, Any], dialect: Dialect, *, is_bottleneck: bool) -> None:
    """Set the switches that the dialect decides; raise OtherDialect if the shapes contradict it."""
    for key, value in dialect.spec.items():
        allowed_values = _as_list(value)
        if key in ("stem", "shortcut") and spec[key] not in allowed_values:
            raise OtherDialect(
                f"it has {key} {spec[key]!r}, and networks of this dialect have "
                f"{' or '.join(map(repr, allowed_values))}"
            )
        if key in ("shortcut_pool", "preactivation"):
            spec[key] = value
        if key == "stride_in" and is_bottleneck:
            spec[key] = allowed_values[0]
        if key in ("zero_pad", "subsample") and spec["shortcut"] == "A":
            spec[key] = allowed_values[0]


def _notes(spec: Mapping[str, Any], dialect: Dialect, *, is_bottleneck: bool) -> list[str]:
    """Return a sentence for each assumption about the network."""
    notes: list[str] = []
    if is_bottleneck and "stride_in" in dialect.spec:
        usual = spec["stride_in"]
        is_certain = len(_as_list(dialect.spec["stride_in"])) == 1
        reason = f"{dialect.name} uses {usual}" if is_certain else f"{usual} is assumed"
        notes.append(
            "the weights do not show whether bottlenecks stride in the 1x1 or the 3x3 convolution; "
            f"{reason}; {_override('stride_in')}"
        )
    if spec["shortcut"] == "A":
        zero_pad, subsample = spec.get("zero_pad", "append"), spec.get("subsample", "slice")
        notes.append(
            "the weights do not show whether the network has shortcuts without weights or none "
            f"(a plain network), nor how shortcuts pad; zero_pad {zero_pad!r} and subsample "
            f"{subsample!r} are assumed; {_override('zero_pad')}"
        )
    return notes


def _override(key: str) -> str:
    return (
        f"--set model.{key} overrides it; reslearn evaluate FILE DATA finds the right value on "
        "labeled images"
    )


def _as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _block_counts(shapes: Shapes) -> tuple[int, ...]:
    """Return the number of blocks of each stage. Numbers of stages and blocks must have no gap."""
    stages: dict[int, set[int]] = {}
    for name in shapes:
        if match := _BLOCK.match(name):
            if len(match[1]) > 2 or len(match[2]) > 4:
                raise NotAResNet(f"{name} is a block of no network")
            stages.setdefault(int(match[1]), set()).add(int(match[2]))
    counts = [len(stages.get(stage, ())) for stage in range(1, max(stages, default=0) + 1)]
    has_gap = any(
        stages.get(stage) != set(range(count)) for stage, count in enumerate(counts, start=1)
    )
    if not counts or has_gap or sum(counts) > _MAX_BLOCKS:
        raise NotAResNet(f"its blocks by stage ({counts or 'none'}) are incomplete or too many")
    return tuple(counts)


def _stem(shapes: Shapes) -> tuple[str, tuple[int, ...]]:
    """Return the stem and the shape of its first convolution."""
    if "stem.conv1.weight" in shapes:
        return "deep", _shape(shapes, "stem.conv1.weight", 4)
    shape = _shape(shapes, "stem.conv.weight", 4)
    kernel = shape[2:]
    if kernel not in _STEMS:
        raise NotAResNet(f"its first convolution is {kernel[0]} x {kernel[1]}, not 7 x 7 or 3 x 3")
    return _STEMS[kernel], shape


def _shortcut(shapes: Shapes, block_counts: tuple[int, ...]) -> str:
    """Return option C if every block has a projection, B if some have, A if none has."""
    num_projections = 0
    for stage, count in enumerate(block_counts, start=1):
        for block in range(count):
            num_projections += f"stage{stage}.{block}.shortcut.conv.weight" in shapes
    if num_projections == 0:
        return "A"
    # With one block per stage, options B and C have the same projections. B is the usual option.
    has_several_blocks = sum(block_counts) > len(block_counts)
    return "C" if num_projections == sum(block_counts) and has_several_blocks else "B"


def _groups(shapes: Shapes) -> dict[str, Any]:
    """Return groups and base width, from the 3x3 convolution [width, width / groups, 3, 3]."""
    width, width_per_group, *_ = _shape(shapes, "stage1.0.body.conv2.weight", 4)
    if not width_per_group or width % width_per_group:
        raise NotAResNet(
            f"its 3x3 convolutions have {width} channels and {width_per_group} inputs per group"
        )
    groups = width // width_per_group
    return {"groups": groups, "base_width": width // groups}


def _base_network(
    body: str, block_counts: tuple[int, ...], channels: list[int]
) -> tuple[str, Architecture]:
    """Return the name and the architecture of the paper's network with these blocks."""
    name = ""
    for depth, row in IMAGENET_BLOCKS.items():
        if row == (body, block_counts):
            name = f"resnet{depth}"
            break
    is_cifar = body == "basic" and len(block_counts) == 3 and len(set(block_counts)) == 1
    if not name and is_cifar:
        depth = 6 * block_counts[0] + 2
        # A CIFAR network may have as many layers as a network of Table 1.
        name = f"resnet{depth}-cifar" if depth in IMAGENET_BLOCKS else f"resnet{depth}"
    architecture = architecture_of(name) if name else None
    if architecture is None:
        depth = _num_layers(body, block_counts)
        raise NotAResNet(
            f"it has {depth} layers: no network of the catalog has {body} blocks {block_counts} in "
            f"stages of {channels} channels"
        )
    return name, architecture


def _num_layers(body: str, block_counts: tuple[int, ...]) -> int:
    """Return the depth as the paper counts it: convolutions of the bodies, stem and head."""
    return (3 if body == "bottleneck" else 2) * sum(block_counts) + 2


def _width_multiple(name: str, architecture: Architecture, channels: list[int]) -> int:
    """Return the multiple of the usual width; raise NotAResNet if the stages are no multiple."""
    usual = architecture.channels
    width, remainder = divmod(channels[0], usual[0])
    if remainder or channels != [num_channels * width for num_channels in usual]:
        raise NotAResNet(
            f"its stages have {channels} channels; the stages of {name} have {list(usual)} or a "
            "multiple"
        )
    return width


def _variant(spec: Mapping[str, Any], base: Architecture) -> str | None:
    """Return the name of the variant whose switches all agree with the spec, if there is one."""
    wide = f"wrn{6 * base.blocks[0] + 4}_{spec['width']}"
    for name in (*VARIANTS, wide):
        variant = architecture_of(name)
        if variant is not None and _has_same_blocks(variant, base) and _agrees(variant, spec):
            return name
    return None


def _has_same_blocks(variant: Architecture, base: Architecture) -> bool:
    return (variant.body, variant.blocks, variant.channels) == (
        base.body,
        base.blocks,
        base.channels,
    )


def _agrees(variant: Architecture, spec: Mapping[str, Any]) -> bool:
    """Return whether the switches of a variant are exactly the switches of the spec."""
    has_bottlenecks = variant.body == "bottleneck"
    for name, value in resolve({}, variant.switches).items():
        switch = SWITCHES[name]
        has_effect = switch.applies(has_bottlenecks=has_bottlenecks, shortcut=spec["shortcut"])
        is_relevant = has_effect and switch.decides_output
        if is_relevant and spec.get(name, switch.default) != value:
            return False
    return True


def _shape(shapes: Shapes, name: str, num_dimensions: int) -> tuple[int, ...]:
    shape = shapes.get(name)
    if shape is None or len(shape) != num_dimensions or 0 in shape:
        raise NotAResNet(f"it has no {name} of {num_dimensions} dimensions")
    return shape
