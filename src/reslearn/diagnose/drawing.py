"""The drawing of a stranger's network: its layers, its blocks, where shortcuts went, what the shallower network lacks."""

from __future__ import annotations

from collections.abc import Sequence

from torch import fx, nn

from reslearn.diagnose.conditions import Conditions
from reslearn.diagnose.problem import Problem
from reslearn.models import (
    Block,
    Opened,
    Segment,
    SurgeryError,
    blocks,
    has_shortcut,
    layers,
    trace,
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
    "Layers from top to bottom, with the size of what leaves them; paths side by side are drawn one below the other. "
    "Framed are the blocks, named as their first layer. "
    "An arc is a shortcut, dotted where sizes change, as in the paper's figure 3 (option A). Left out: in the shallower network."
)


def network_diagram(problem: Problem, conditions: Conditions) -> Diagram | None:
    """None where the network cannot be laid open."""
    try:
        opened = trace(problem.net(0), problem.example)
    except SurgeryError:
        return None
    block_of = {id(segment): block for block in blocks(opened) for segment in block.segments}
    all_layers = [layer for layer in layers(opened) if layer is not None]
    layer_of = {id(segment): layer for layer in all_layers for segment in layer.segments}
    groups: list[LayerGroup] = []
    seen: set[str] = set()
    for segment in opened.segments:
        block, layer = block_of.get(id(segment)), layer_of.get(id(segment))
        whole = block or layer
        if whole is None:
            text = _described(opened, segment)
            groups += (
                [
                    LayerGroup(
                        [
                            Box(
                                text,
                                _size(segment.out_shape) * (segment.in_shape != segment.out_shape),
                            )
                        ]
                    )
                ]
                if text
                else []
            )
        elif whole.name not in seen:
            seen.add(whole.name)
            own = [
                one
                for one in all_layers
                if one is whole or block_of.get(id(one.segments[0])) is whole
            ]
            groups += _groups(opened, whole, own, conditions, is_block=block is not None)
    return Diagram("The network", _CAPTION, groups, mark="left out")


def _groups(
    opened: Opened, whole: Block, own: Sequence[Block], conditions: Conditions, *, is_block: bool
) -> list[LayerGroup]:
    """A block, or a layer that belongs to none; one with shortcuts of its own is drawn layer by layer, each with its arc."""
    marked = whole.name in conditions.left_out
    if any(has_shortcut(segment) for segment in whole.segments):
        groups = []
        for layer in own:
            after = _after(layer)
            boxes = _boxes(opened, [segment for segment in layer.segments if segment not in after])
            arc_label = "" if layer.keeps_shape else "sizes change"
            groups.append(
                LayerGroup(boxes, layer.name, "existing", arc_label, _joined(opened, after), marked)
            )
        return groups
    if not is_block:
        return [LayerGroup([box for layer in own for box in _boxes(opened, layer.segments)])]
    after = _after(whole)
    kept = [[one for one in layer.segments if one not in after] for layer in own]
    boxes = [box for segments in kept for box in _boxes(opened, segments)]
    is_new = whole.name in conditions.shortcuts_around
    arc_label = "" if whole.keeps_shape or not is_new else "option A"
    return [
        LayerGroup(
            boxes,
            whole.name,
            "new" if is_new else "none",
            arc_label,
            _joined(opened, after),
            marked,
        )
    ]


def _after(block: Block) -> list[Segment]:
    """From the last activation on: what follows the addition of a shortcut."""
    trailing = len(block.segments)
    while block.segments[trailing - 1].role in ("activation", "dropout"):
        trailing -= 1
    found = list(block.segments[trailing:])
    while found and found[0].role != "activation":
        found.pop(0)
    return found


def _joined(opened: Opened, segments: Sequence[Segment]) -> str:
    return " · ".join(text for segment in segments if (text := _described(opened, segment)))


def _boxes(opened: Opened, segments: Sequence[Segment]) -> list[Box]:
    """Of one layer: a box; of one with branches: a box for each convolution or linear map in it."""
    texts: list[str] = []
    weighted = False
    for segment in segments:
        for node in segment.nodes:
            text, is_layer = _node(opened, node, segment)
            if text and (not texts or (is_layer and weighted)):
                texts.append(text)
            elif text:
                texts[-1] += f" · {text}"
            weighted = weighted or (bool(text) and is_layer)
    return [Box(text, _size(segments[-1].out_shape) if text is texts[-1] else "") for text in texts]


def _described(opened: Opened, segment: Segment) -> str:
    return " · ".join(text for node in segment.nodes if (text := _node(opened, node, segment)[0]))


def _node(opened: Opened, node: fx.Node, segment: Segment) -> tuple[str, bool]:
    """What it does, in a few words, and whether it is a layer; of functions within branches only what changes values one by one."""
    if node.op != "call_module":
        name = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", "")
        return (
            "" if segment.role == "branches" and name not in ACTIVATION_NAMES else name.rstrip("_")
        ), False
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
    """Without the batch."""
    return "×".join(str(size) for size in shape[1:])
