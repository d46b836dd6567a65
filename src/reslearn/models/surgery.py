"""Surgery on a stranger's network: layers left out, parameter-free shortcuts put in, layers set to the identity.

What the paper does by hand to plain networks, for any that can be laid open (`seams`): its shallower kin, its residual counterpart of
option A (Sec. 3.3), and the solution by construction, a shallow network's weights with identities between (Sec. 1). Parameters keep
their names.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor, fx, nn
from torch.nn import functional

from reslearn.models.blocks import Block, blocks
from reslearn.models.tracing import Opened, Segment, SurgeryError, module_of, trace

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
_WITH_SHORTCUTS = (nn.TransformerEncoderLayer, nn.TransformerDecoderLayer)


@dataclass(frozen=True, kw_only=True, eq=False)
class Operated:
    """A network operated on, what was done block by block, and what could not be, with the reason."""

    network: fx.GraphModule
    done: tuple[str, ...]
    not_done: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class Constructed:
    """A deep network that should compute what a shallow one does, and how far it is from it."""

    network: fx.GraphModule
    difference: float
    scale: float

    @property
    def is_unchanged(self) -> bool:
        """Same function up to rounding."""
        return self.difference <= 1e-4 * max(1.0, self.scale)


@final
class PaddedShortcut(nn.Module):
    """Option A for vectors, sequences and images [B, C, *space]: every `stride`-th place, zeros for new channels; no parameters.

    channel_axis: 1 for [B, C, *space]; -1 for features last ([B, F] or [B, T, F]).
    """

    def __init__(self, strides: Sequence[int], *, extra: int, channel_axis: int) -> None:
        super().__init__()
        self.strides, self.extra, self.channel_axis = tuple(strides), extra, channel_axis

    def forward(self, x: Tensor) -> Tensor:
        if any(stride > 1 for stride in self.strides):
            x = x[
                (slice(None), slice(None), *(slice(None, None, stride) for stride in self.strides))
            ]
        if not self.extra:
            return x
        after = 0 if self.channel_axis == -1 else x.ndim - 1 - self.channel_axis
        return functional.pad(x, (*(0, 0) * after, 0, self.extra))

    def extra_repr(self) -> str:
        return f"strides={self.strides}, zeros={self.extra}"


def remove_blocks(opened: Opened, names: Iterable[str], *, layers_per_block: int = 2) -> Operated:
    """A copy without the named blocks (`Block.name`); only those that keep the shape can go. The remaining weights are those of now.

    Raises SurgeryError for a block that is not there, or that changes the shape.
    """
    known = {block.name: block for block in blocks(opened, layers_per_block=layers_per_block)}
    wanted = sorted(set(names), key=lambda name: list(known).index(name) if name in known else -1)
    for name in wanted:
        if name not in known:
            raise SurgeryError(f"no block {name!r}: there are {', '.join(known) or 'none'}")
        if not known[name].keeps_shape:
            raise SurgeryError(
                f"block {name} turns {known[name].in_shape} into {known[name].out_shape}: it cannot be left out"
            )
    graph_module, nodes = _copy(opened)
    for name in reversed(wanted):
        nodes[known[name].end].replace_all_uses_with(nodes[known[name].start])
    graph_module.graph.eliminate_dead_code()
    graph_module.delete_all_unused_submodules()
    graph_module.recompile()
    return Operated(network=graph_module, done=tuple(wanted), not_done=())


def add_shortcuts(net: nn.Module, example: Tensor, *, layers_per_block: int = 2) -> Operated:
    """The residual counterpart of `net` (Eq. 1): a parameter-free shortcut around each block, its last activation after the addition.

    Parameters and state_dict keys are those of `net`. Where channels grow or maps shrink the shortcut is option A. A block that has a
    shortcut already is left as it is; one around which no parameter-free shortcut goes is named in `not_done`.
    Raises SurgeryError where the network cannot be laid open, or no block can be given a shortcut.
    """
    opened = trace(net, example)
    graph_module, nodes = _copy(opened)
    done: list[str] = []
    not_done: dict[str, list[str]] = {}  # blocks by reason
    for block in blocks(opened, layers_per_block=layers_per_block):
        if any(has_shortcut(segment) for segment in block.segments):
            not_done.setdefault("has a shortcut already", []).append(block.name)
            continue
        shortcut = _shortcut(block)
        if isinstance(shortcut, str):
            not_done.setdefault(shortcut, []).append(block.name)
            continue
        _add_shortcut(graph_module, nodes, block, shortcut)
        done.append(block.name)
    reasons = tuple(f"{_some(names)}: {reason}" for reason, names in not_done.items())
    if not done:
        why = "; ".join(reasons) or "there are no two layers in a row beside the first and the last"
        raise SurgeryError(f"no block could be given a shortcut: {why}")
    graph_module.recompile()
    return Operated(network=graph_module, done=tuple(done), not_done=reasons)


def _some(names: list[str]) -> str:
    """A hundred names are no use in a line."""
    return (
        ", ".join(names) if len(names) <= 3 else f"{names[0]}, {names[1]} and {len(names) - 2} more"
    )


def construct_from(
    opened: Opened,
    shallow: nn.Module,
    left_out: Iterable[str],
    example: Tensor,
    *,
    layers_per_block: int = 2,
) -> Constructed:
    """The paper's solution by construction: a copy of the deep network with the weights of `shallow`, and identities for the rest.

    `shallow` is what `remove_blocks` gave for `left_out`, trained or not. In evaluation mode the function is that of the shallow network up
    to rounding where the blocks are made of layers that keep their width, batch norm or none, and ReLU, on inputs >= 0; for other
    activations and norms it is not, which `difference` tells: the greatest of the outputs on `example`, and `scale` the greatest output.
    Raises SurgeryError for a block that cannot be set to the identity at all.
    """
    known = {block.name: block for block in blocks(opened, layers_per_block=layers_per_block)}
    deep = deepcopy(opened.graph_module)
    _, unexpected = deep.load_state_dict(shallow.state_dict(), strict=False)
    if unexpected:
        raise SurgeryError(
            f"{unexpected[0]} is in the shallow network and not in the deep one: is it made from it by remove_blocks?"
        )
    with torch.no_grad():
        for name in left_out:
            _set_identity(deep, known[name])
        expected, got = deepcopy(shallow).eval()(example), deepcopy(deep).eval()(example)
    return Constructed(
        network=deep,
        difference=float((got - expected).abs().max()),
        scale=float(expected.abs().max()),
    )


def _copy(opened: Opened) -> tuple[fx.GraphModule, dict[fx.Node, fx.Node]]:
    """A copy with weights of its own, and its nodes by those of `opened`."""
    graph_module = deepcopy(opened.graph_module)
    return graph_module, dict(
        zip(opened.graph_module.graph.nodes, graph_module.graph.nodes, strict=True)
    )


def has_shortcut(segment: Segment) -> bool:
    """Whether the value that enters is added, untouched, to what leaves; torch's own transformer layers, which stay whole, do that."""
    owner = segment.start.graph.owning_module
    assert isinstance(owner, fx.GraphModule)
    if any(
        isinstance(one, _WITH_SHORTCUTS)
        for name in segment.modules
        for one in owner.get_submodule(name).modules()
    ):
        return True
    adds = [
        node
        for node in segment.nodes
        if getattr(node.target, "__name__", node.target) in ("add", "add_", "iadd")
    ]
    return any(_carries(one, segment.start) for node in adds for one in node.all_input_nodes)


def _carries(node: fx.Node, start: fx.Node) -> bool:
    """Whether a value is `start`, by way of nothing that has parameters."""
    if node is start:
        return True
    owner = node.graph.owning_module
    assert isinstance(owner, fx.GraphModule)
    module = module_of(owner, node)
    if module is not None and next(module.parameters(), None) is not None:
        return False
    return len(node.all_input_nodes) == 1 and _carries(node.all_input_nodes[0], start)


def _shortcut(block: Block) -> nn.Module | str:
    """Identity or option A; a text where neither goes around the block."""
    before, after = block.in_shape, block.out_shape
    if before == after:
        return nn.Identity()
    if len(before) != len(after) or len(before) < 2:
        return f"{before[1:]} to {after[1:]}: no shortcut without parameters"
    features_last = _features_last(block)
    space_before, space_after = (
        (before[1:-1], after[1:-1]) if features_last else (before[2:], after[2:])
    )
    extra = after[-1] - before[-1] if features_last else after[1] - before[1]
    if extra < 0:
        return f"{before[1:]} to {after[1:]}: channels shrink, and no shortcut without parameters leaves some out"
    strides = [-(-long // short) for long, short in zip(space_before, space_after, strict=True)]
    shrunk = [-(-long // stride) for long, stride in zip(space_before, strides, strict=True)]
    if shrunk != list(space_after) or (features_last and any(stride > 1 for stride in strides)):
        return f"{before[1:]} to {after[1:]}: no whole stride makes one of the other"
    return PaddedShortcut(
        strides if not features_last else (), extra=extra, channel_axis=-1 if features_last else 1
    )


def _features_last(block: Block) -> bool:
    """[B, F] and [B, T, F] of linear maps, against [B, C, *space] of convolutions."""
    return len(block.in_shape) == 2 or not any(
        _is_convolution(node) for segment in block.segments for node in segment.nodes
    )


def _is_convolution(node: fx.Node) -> bool:
    owner = node.graph.owning_module
    return isinstance(owner, fx.GraphModule) and isinstance(module_of(owner, node), _CONVOLUTIONS)


def _add_shortcut(
    graph_module: fx.GraphModule, nodes: dict[fx.Node, fx.Node], block: Block, shortcut: nn.Module
) -> None:
    """start -> ... -> (+ shortcut(start)) -> last activation; without one, the addition is the end."""
    trailing = len(block.segments)
    while block.segments[trailing - 1].role in ("activation", "dropout"):
        trailing -= 1
    activations = [segment for segment in block.segments[trailing:] if segment.role == "activation"]
    summed = nodes[activations[0].start if activations else block.end]
    users = list(summed.users)
    start = nodes[block.start]
    with graph_module.graph.inserting_after(summed):
        added: fx.Node = graph_module.graph.call_function(torch.add, (summed, start))
    if not isinstance(shortcut, nn.Identity):
        name = f"shortcut_around_{block.name.replace('.', '_')}"
        graph_module.add_submodule(name, shortcut)
        with graph_module.graph.inserting_before(added):
            carried = graph_module.graph.call_module(name, (start,))
        added.args = (summed, carried)
    for user in users:
        user.replace_input_with(summed, added)
    if not activations:
        nodes[block.end] = added


def _set_identity(deep: fx.GraphModule, block: Block) -> None:
    """Weights of every layer such that it passes its input on, in evaluation mode."""
    for segment in block.segments:
        for name in segment.modules:
            module: Any = deep.get_submodule(name)
            if (
                isinstance(module, nn.Linear)
                and module.in_features == module.out_features
                and segment.role == "layer"
            ):
                nn.init.eye_(module.weight)
            elif (
                isinstance(module, _CONVOLUTIONS)
                and segment.keeps_shape
                and segment.role == "layer"
            ):
                nn.init.dirac_(module.weight, module.groups)
            elif isinstance(module, _BATCH_NORMS) and module.affine and module.track_running_stats:
                assert module.running_mean is not None and module.running_var is not None
                module.weight.copy_((module.running_var + module.eps).sqrt())
                module.bias.copy_(module.running_mean)
                continue
            else:
                raise SurgeryError(
                    f"{name} ({type(module).__name__}) cannot be set to the identity"
                )
            if module.bias is not None:
                nn.init.zeros_(module.bias)
