"""From our names and shapes to the arguments of `models.build`: depth, body, stem, widths, groups, shortcut option."""

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
_MOST_BLOCKS = 2_000
_CHECK = "model.{} says otherwise; right is what errs less on labeled images (docs/weights.md)"


class NotAResNet(ValueError):
    """Names and shapes that are of no network of the catalogue; the message says why."""


def infer(shapes: Shapes, dialect: Dialect) -> tuple[dict[str, Any], list[str]]:
    """(arguments of `models.build`, what could not be told). num_classes is None where there is no head. Raises NotAResNet."""
    blocks = _blocks(shapes)
    bottleneck = "stage1.0.body.conv3.weight" in shapes
    stem, first = _stem(shapes)
    channels = [
        _shape(shapes, f"stage{stage}.0.body.conv{3 if bottleneck else 2}.weight", 4)[0]
        for stage in range(1, len(blocks) + 1)
    ]
    spec: dict[str, Any] = {
        "in_channels": first[1],
        "num_classes": _shape(shapes, "head.fc.weight", 2)[0]
        if "head.fc.weight" in shapes
        else None,
        "stem": stem,
        "shortcut": _shortcut(shapes, blocks),
        "normalize": any(".bn" in name for name in shapes),
        "preactivation": "head.bn.weight" in shapes or any(".before." in name for name in shapes),
        "shortcut_pool": False,
    }
    notes: list[str] = []
    for key, value in dialect.spec.items():
        known = value if isinstance(value, list) else [value]
        if key in ("stem", "shortcut") and spec[key] not in known:
            raise NotAResNet(
                f"it has {key} {spec[key]!r}, and networks of this dialect {' or '.join(map(repr, known))}"
            )
        if key in ("shortcut_pool", "preactivation"):
            spec[key] = value
        if key == "stride_in" and bottleneck:
            spec[key] = known[0]
            usual = (
                f"{known[0]} is taken"
                if len(known) > 1
                else f"{known[0]} is what {dialect.name} does"
            )
            notes.append(
                f"the weights cannot tell whether bottlenecks stride in the 1x1 or the 3x3; {usual}, {_CHECK.format('stride_in')}"
            )
        if key in ("zero_pad", "subsample") and spec["shortcut"] == "A":
            spec[key] = value
    if spec["shortcut"] == "A":
        said = f"zeros are taken as {spec.get('zero_pad', 'append')!r}, maps as {spec.get('subsample', 'slice')!r}"
        notes.append(
            f"shortcuts without weights cannot be told from none (a plain network), nor where their zeros are; {said}, "
            + _CHECK.format("zero_pad")
        )
    if bottleneck:
        spec |= _groups(shapes)
    spec["name"], spec["width"] = _name(spec, tuple(blocks), channels, bottleneck=bottleneck)
    if not bottleneck:
        for switch in SWITCHES.values():
            if switch.scope == "bottlenecks":
                spec.pop(switch.name, None)
    return spec, notes


def _blocks(shapes: Shapes) -> list[int]:
    """Blocks of each stage; their numbers must have no gap."""
    found: dict[int, set[int]] = {}
    for name in shapes:
        if match := _BLOCK.match(name):
            if len(match[1]) > 2 or len(match[2]) > 4:
                raise NotAResNet(f"{name} is a block of no network")
            found.setdefault(int(match[1]), set()).add(int(match[2]))
    counts = [len(found.get(stage, ())) for stage in range(1, max(found, default=0) + 1)]
    whole = all(
        found.get(stage) == set(range(count)) for stage, count in enumerate(counts, start=1)
    )
    if not counts or not whole or sum(counts) > _MOST_BLOCKS:
        raise NotAResNet(f"its blocks {counts or 'none'} are no whole stages")
    return counts


def _stem(shapes: Shapes) -> tuple[str, tuple[int, ...]]:
    """(which stem, the shape of its first convolution)."""
    if "stem.conv1.weight" in shapes:
        return "deep", _shape(shapes, "stem.conv1.weight", 4)
    first = _shape(shapes, "stem.conv.weight", 4)
    kinds: dict[tuple[int, ...], str] = {(7, 7): "imagenet", (3, 3): "cifar"}
    if first[2:] not in kinds:
        raise NotAResNet(f"its first convolution is {first[2]} x {first[3]}, not 7 x 7 or 3 x 3")
    return kinds[first[2:]], first


def _shortcut(shapes: Shapes, blocks: list[int]) -> str:
    """C where every block projects, B where some do, A where none does."""
    projected = [
        f"stage{stage}.{block}.shortcut.conv.weight" in shapes
        for stage, count in enumerate(blocks, 1)
        for block in range(count)
    ]
    return (
        "C" if all(projected) and len(projected) > len(blocks) else "B" if any(projected) else "A"
    )


def _groups(shapes: Shapes) -> dict[str, Any]:
    """Of the 3x3 of the first bottleneck: [width, width / groups, 3, 3]."""
    width, per_group, *_ = _shape(shapes, "stage1.0.body.conv2.weight", 4)
    if not per_group or width % per_group:
        raise NotAResNet(f"its 3x3 convolutions of {width} channels see {per_group} each")
    groups = width // per_group
    return {"groups": groups, "base_width": width // groups}


def _name(
    spec: dict[str, Any], blocks: tuple[int, ...], channels: list[int], *, bottleneck: bool
) -> tuple[str, int]:
    """The name in the catalogue, and the multiple of its width. A variant's own name where all its switches agree."""
    body = "bottleneck" if bottleneck else "basic"
    bases = [f"resnet{depth}" for depth, row in IMAGENET_BLOCKS.items() if row == (body, blocks)]
    if not bases and body == "basic" and len(set(blocks)) == 1 and len(blocks) == 3:
        depth = 6 * blocks[0] + 2
        bases = [f"resnet{depth}" if depth not in IMAGENET_BLOCKS else f"resnet{depth}-cifar"]
    layout = architecture_of(bases[0]) if bases else None
    if layout is None:
        raise NotAResNet(f"no network of the catalogue has {body} blocks {blocks}")
    width, rest = divmod(channels[0], layout.channels[0])
    if rest or channels != [base * width for base in layout.channels]:
        raise NotAResNet(
            f"its stages have {channels} channels, and those of {bases[0]} {list(layout.channels)} or a multiple"
        )
    for variant in [*VARIANTS, f"wrn{6 * blocks[0] + 4}_{width}"]:
        own = architecture_of(variant)
        same = own is not None and (own.body, own.blocks, own.channels) == (
            layout.body,
            layout.blocks,
            layout.channels,
        )
        if own is not None and same and _agrees(own, spec, width):
            return variant, width
    return bases[0], width


def _agrees(architecture: Architecture, spec: dict[str, Any], width: int) -> bool:
    """Whether a variant's switches are exactly those of the spec."""
    shortcut, has_bottlenecks = spec["shortcut"], architecture.body == "bottleneck"
    inferred = spec | {"width": width}
    for name, value in resolve({}, architecture.switches).items():
        switch = SWITCHES[name]
        if not switch.decides_output:
            continue
        if not switch.applies(shortcut=shortcut, has_bottlenecks=has_bottlenecks):
            continue
        if inferred.get(name, switch.default) != value:
            return False
    return True


def _shape(shapes: Shapes, name: str, dimensions: int) -> tuple[int, ...]:
    shape = shapes.get(name)
    if shape is None or len(shape) != dimensions or 0 in shape:
        raise NotAResNet(f"it has no {name} of {dimensions} dimensions")
    return shape
