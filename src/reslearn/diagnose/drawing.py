"""The drawing of the user's network: layers, blocks, shortcuts, and removed blocks."""

from __future__ import annotations

from collections.abc import Sequence

from torch import fx, nn

from reslearn.diagnose.containers import traced_network
from reslearn.diagnose.problem import Problem
from reslearn.diagnose.variant import Variants
from reslearn.models import (
    Block,
    Segment,
    SurgeryError,
    Trace,
    blocks,
    has_shortcut,
    layers,
)
from reslearn.models.tracing import ACTIVATION_NAMES
from reslearn.report import Box, Diagram, LayerGroup

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_NAMES: dict[type[nn.Module], str] = {
    nn.BatchNorm1d: "batch norm",
    nn.BatchNorm2d: "batch norm",
    nn.BatchNorm3d: "batch norm",
    nn.LayerNorm: "layer norm",
    nn.GroupNorm: "group norm",
    nn.RMSNorm: "RMS norm",
    nn.Identity: "",
}
_CAPTION = (
    "Layers from top to bottom, with the shape of their outputs. Parallel branches are drawn one "
    "below the other. Frames are blocks, named after their first layer. An arc is a shortcut. It "
    "is dotted if sizes change, as in Figure 3 of the paper (option A). Removed: not in the "
    "shallow variant."
)


def network_diagram(problem: Problem, variants: Variants) -> Diagram | None:
    """Draw the network; return None if it cannot be traced."""
    try:
        opened = traced_network(problem, 0)
    except SurgeryError:
        return None
    block_of = {}
    for block in blocks(opened):
        for segment in block.segments:
            block_of[id(segment)] = block
    all_layers = [layer for layer in layers(opened) if layer is not None]
    layer_of = {}
    for layer in all_layers:
        for segment in layer.segments:
            layer_of[id(segment)] = layer
    groups: list[LayerGroup] = []
    drawn: set[str] = set()
    for segment in opened.segments:
        segment_block = block_of.get(id(segment))
        unit = segment_block or layer_of.get(id(segment))
        if unit is None:
            groups += _unweighted(opened, segment)
        elif unit.name not in drawn:
            drawn.add(unit.name)
            if segment_block is None:
                groups.append(_layer(opened, unit))
            else:
                block_layers = [
                    layer for layer in all_layers if block_of.get(id(layer.segments[0])) is unit
                ]
                groups += _block(opened, unit, block_layers, variants)
    return Diagram("The network", _CAPTION, groups, mark="removed")


def _unweighted(opened: Trace, segment: Segment) -> list[LayerGroup]:
    """Return the box of a segment that belongs to no layer, if it does something."""
    text = _description(opened, segment)
    if not text:
        return []
    changes_shape = segment.in_shape != segment.out_shape
    return [LayerGroup([Box(text, _size(segment.out_shape) if changes_shape else "")])]


def _layer(opened: Trace, layer: Block) -> LayerGroup:
    """Return the group of a layer that belongs to no block."""
    if any(has_shortcut(segment) for segment in layer.segments):
        return _layer_with_shortcut(opened, layer, is_removed=False)
    return LayerGroup(_boxes(opened, layer.segments))


def _block(
    opened: Trace, block: Block, block_layers: Sequence[Block], variants: Variants
) -> list[LayerGroup]:
    """Return the group of a block.

    A block that has shortcuts already is drawn layer by layer, each with its arc.
    """
    is_removed = block.name in variants.removed_blocks
    if any(has_shortcut(segment) for segment in block.segments):
        return [_layer_with_shortcut(opened, layer, is_removed) for layer in block_layers]
    last = _after_addition(block)
    boxes = []
    for layer in block_layers:
        boxes += _boxes(opened, [segment for segment in layer.segments if segment not in last])
    is_new = block.name in variants.shortcuts_around
    return [
        LayerGroup(
            boxes,
            block.name,
            "new" if is_new else "none",
            "option A" if is_new and not block.keeps_shape else "",
            _descriptions(opened, last),
            is_removed,
        )
    ]


def _layer_with_shortcut(opened: Trace, layer: Block, is_removed: bool) -> LayerGroup:
    last = _after_addition(layer)
    boxes = _boxes(opened, [segment for segment in layer.segments if segment not in last])
    arc_label = "" if layer.keeps_shape else "sizes change"
    after = _descriptions(opened, last)
    return LayerGroup(boxes, layer.name, "existing", arc_label, after, is_removed)


def _after_addition(block: Block) -> list[Segment]:
    """Return the segments that follow the addition of a shortcut: the last activation onward."""
    start = len(block.segments)
    while block.segments[start - 1].role in ("activation", "dropout"):
        start -= 1
    last = list(block.segments[start:])
    while last and last[0].role != "activation":
        last.pop(0)
    return last


def _descriptions(opened: Trace, segments: Sequence[Segment]) -> str:
    return _join([_description(opened, segment) for segment in segments])


def _description(opened: Trace, segment: Segment) -> str:
    return _join([_node(opened, node, segment)[0] for node in segment.nodes])


def _join(texts: Sequence[str]) -> str:
    return " · ".join(text for text in texts if text)


def _boxes(opened: Trace, segments: Sequence[Segment]) -> list[Box]:
    """Return one box for a layer, or one for each weighted map in a layer with branches."""
    texts: list[str] = []
    has_weights = False
    for segment in segments:
        for node in segment.nodes:
            text, is_layer = _node(opened, node, segment)
            if not text:
                continue
            if not texts or (is_layer and has_weights):
                texts.append(text)
            else:
                texts[-1] += f" · {text}"
            has_weights = has_weights or is_layer
    boxes = [Box(text, "") for text in texts[:-1]]
    return [*boxes, *(Box(text, _size(segments[-1].out_shape)) for text in texts[-1:])]


def _node(opened: Trace, node: fx.Node, segment: Segment) -> tuple[str, bool]:
    """Return a short description of a node, and whether it is a layer.

    Functions inside branches are described only if they are activations.
    """
    if node.op != "call_module":
        name = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", "")
        if segment.role == "branches" and name not in ACTIVATION_NAMES:
            return "", False
        return name.rstrip("_"), False
    module = opened.graph_module.get_submodule(str(node.target))
    if isinstance(module, _CONVOLUTIONS):
        kernel = "×".join(str(size) for size in module.kernel_size)
        stride = "" if max(module.stride) == 1 else f", stride {max(module.stride)}"
        groups = "" if module.groups == 1 else f", {module.groups} groups"
        return f"conv {kernel}, {module.in_channels} → {module.out_channels}{stride}{groups}", True
    if isinstance(module, nn.Linear):
        return f"linear {module.in_features} → {module.out_features}", True
    if isinstance(module, nn.MultiheadAttention):
        return f"attention, {module.num_heads} heads", True
    is_layer = next(module.parameters(), None) is not None and type(module) not in _NAMES
    return _NAMES.get(type(module), type(module).__name__), is_layer


def _size(shape: tuple[int, ...]) -> str:
    """Return a shape as text, without the batch dimension."""
    return "×".join(str(size) for size in shape[1:])
