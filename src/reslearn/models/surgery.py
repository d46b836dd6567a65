"""Changes to any traced network: remove blocks, add shortcuts, set layers to the identity.

These are the paper's comparisons for a network of the user: a shallower network, the residual
counterpart with option A (Sec. 3.3), and the solution by construction, a shallow network with
identity layers in between (Sec. 1). Parameters keep their names.
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
from reslearn.models.recording import SurgeryError, has_parameters, module_of
from reslearn.models.tracing import Segment, Trace, trace

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
_WITH_SHORTCUTS = (nn.TransformerEncoderLayer, nn.TransformerDecoderLayer)


@dataclass(frozen=True, kw_only=True, eq=False)
class SurgeryResult:
    """A changed network.

    Attributes:
        changed: Names of the blocks that were changed.
        skipped: Texts "names: reason" for the blocks that could not be changed.
    """

    network: fx.GraphModule
    changed: tuple[str, ...]
    skipped: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class ConstructedNetwork:
    """A deep network that should compute the function of a shallow one, and how well it does.

    Attributes:
        difference: Largest absolute difference of the outputs on the example.
        scale: Largest absolute output of the shallow network.
    """

    network: fx.GraphModule
    difference: float
    scale: float

    @property
    def is_unchanged(self) -> bool:
        """Whether the function is the same up to rounding."""
        return self.difference <= 1e-4 * max(1.0, self.scale)


def remove_blocks(
    traced: Trace, names: Iterable[str], *, layers_per_block: int = 2
) -> SurgeryResult:
    """Copy a network without some of its blocks. The other weights are copies of the current ones.

    Args:
        traced: The network.
        names: Names of blocks (`Block.name`) that keep the shape of their input.
        layers_per_block: Size of a block, as in `blocks`.

    Raises:
        SurgeryError: If there is no such block, or if it changes the shape.
    """
    by_name = {block.name: block for block in blocks(traced, layers_per_block=layers_per_block)}
    requested = set(names)
    for name in sorted(requested - by_name.keys()):
        raise SurgeryError(f"no block {name!r}: there are {', '.join(by_name) or 'none'}")
    removed = [block for block in by_name.values() if block.name in requested]
    for block in removed:
        if not block.keeps_shape:
            raise SurgeryError(
                f"block {block.name} maps {block.in_shape} to {block.out_shape}: "
                "only a block that keeps the shape can be removed"
            )
    graph_module, copies = _copy(traced)
    for block in reversed(removed):
        copies[block.end].replace_all_uses_with(copies[block.start])
    graph_module.graph.eliminate_dead_code()
    graph_module.delete_all_unused_submodules()
    graph_module.recompile()
    changed = tuple(block.name for block in removed)
    return SurgeryResult(network=graph_module, changed=changed, skipped=())


def add_shortcuts(net: nn.Module, example: Tensor, *, layers_per_block: int = 2) -> SurgeryResult:
    """Copy a network and add a parameter-free shortcut around each block (Eq. 1).

    The shortcut is the identity, or option A where channels grow or maps shrink. The last
    activation of a block follows the addition. Parameters and state_dict keys stay the same.
    A block that has a shortcut, or around which no parameter-free shortcut is possible, is skipped.

    Args:
        net: A network that `trace` accepts.
        example: A batch of inputs.
        layers_per_block: Size of a block, as in `blocks`.

    Raises:
        SurgeryError: If the network cannot be traced, or if no block gets a shortcut.
    """
    traced = trace(net, example)
    graph_module, copies = _copy(traced)
    changed: list[str] = []
    skipped: dict[str, list[str]] = {}  # names of blocks by reason
    for block in blocks(traced, layers_per_block=layers_per_block):
        if any(has_shortcut(segment) for segment in block.segments):
            skipped.setdefault("has a shortcut already", []).append(block.name)
            continue
        shortcut = _shortcut(block)
        if isinstance(shortcut, str):
            skipped.setdefault(shortcut, []).append(block.name)
            continue
        _insert_shortcut(graph_module, copies, block, shortcut)
        changed.append(block.name)
    reasons = tuple(f"{_some(names)}: {reason}" for reason, names in skipped.items())
    if not changed:
        default = "there are no two layers in a row between the first and the last"
        raise SurgeryError(f"no block could get a shortcut: {'; '.join(reasons) or default}")
    graph_module.recompile()
    return SurgeryResult(network=graph_module, changed=tuple(changed), skipped=reasons)


def construct_from(
    traced: Trace,
    shallow: nn.Module,
    removed: Iterable[str],
    example: Tensor,
    *,
    layers_per_block: int = 2,
) -> ConstructedNetwork:
    """Build the solution by construction: the weights of `shallow`, and identities for the rest.

    In evaluation mode, both networks compute the same function up to rounding if the blocks consist
    of layers that keep their width, ReLU, and batch norm or no norm. With other activations and
    norms they do not, which `ConstructedNetwork.difference` shows.

    Args:
        traced: The deep network.
        shallow: The network that `remove_blocks` returned for `removed`, trained or not.
        removed: Names of the removed blocks.
        example: A batch of inputs.
        layers_per_block: Size of a block, as in `blocks`.

    Raises:
        SurgeryError: If a block cannot be set to the identity.
    """
    by_name = {block.name: block for block in blocks(traced, layers_per_block=layers_per_block)}
    deep = deepcopy(traced.graph_module)
    _, unexpected = deep.load_state_dict(shallow.state_dict(), strict=False)
    if unexpected:
        raise SurgeryError(
            f"{unexpected[0]} is in the shallow network and not in the deep one: the shallow "
            "network must come from remove_blocks"
        )
    with torch.no_grad():
        for name in removed:
            _set_identity(deep, by_name[name])
        expected = deepcopy(shallow).eval()(example)
        output = deepcopy(deep).eval()(example)
    return ConstructedNetwork(
        network=deep,
        difference=float((output - expected).abs().max()),
        scale=float(expected.abs().max()),
    )


def has_shortcut(segment: Segment) -> bool:
    """Return whether the input of a segment is added, unchanged, to its output.

    torch's own transformer layers, which are not recorded inside, have shortcuts.
    """
    owner = segment.start.graph.owning_module
    assert isinstance(owner, fx.GraphModule)
    for name in segment.modules:
        if any(isinstance(part, _WITH_SHORTCUTS) for part in owner.get_submodule(name).modules()):
            return True
    names = ("add", "add_", "iadd")
    additions = [
        node for node in segment.nodes if getattr(node.target, "__name__", node.target) in names
    ]
    for addition in additions:
        if any(_carries(addend, segment.start) for addend in addition.all_input_nodes):
            return True
    return False


@final
class PaddedShortcut(nn.Module):
    """Option A for vectors, sequences and images: every stride-th position, zeros for new channels.

    Args:
        strides: Stride of each dimension in space. Empty for inputs with features last.
        extra: Number of new channels.
        channel_axis: 1 for [B, C, *space]; -1 for features last, [B, F] or [B, T, F].
    """

    def __init__(self, strides: Sequence[int], *, extra: int, channel_axis: int) -> None:
        super().__init__()
        self.strides, self.extra, self.channel_axis = tuple(strides), extra, channel_axis

    def forward(self, x: Tensor) -> Tensor:
        if any(stride > 1 for stride in self.strides):
            space = [slice(None, None, stride) for stride in self.strides]
            x = x[(slice(None), slice(None), *space)]
        if not self.extra:
            return x
        num_axes_after = 0 if self.channel_axis == -1 else x.ndim - 1 - self.channel_axis
        return functional.pad(x, (*(0, 0) * num_axes_after, 0, self.extra))

    def extra_repr(self) -> str:
        return f"strides={self.strides}, zeros={self.extra}"


def _some(names: list[str]) -> str:
    if len(names) <= 3:
        return ", ".join(names)
    return f"{names[0]}, {names[1]} and {len(names) - 2} more"


def _copy(traced: Trace) -> tuple[fx.GraphModule, dict[fx.Node, fx.Node]]:
    """Return a copy with its own weights, and its nodes by the nodes of `traced`."""
    graph_module = deepcopy(traced.graph_module)
    nodes = zip(traced.graph_module.graph.nodes, graph_module.graph.nodes, strict=True)
    return graph_module, dict(nodes)


def _carries(node: fx.Node, start: fx.Node) -> bool:
    """Return whether a value is computed from `start` without parameters and other values."""
    if node is start:
        return True
    owner = node.graph.owning_module
    assert isinstance(owner, fx.GraphModule)
    if has_parameters(module_of(owner, node)):
        return False
    return len(node.all_input_nodes) == 1 and _carries(node.all_input_nodes[0], start)


def _shortcut(block: Block) -> nn.Module | str:
    """Return the identity or option A for a block, or the reason why neither is possible."""
    before, after = block.in_shape, block.out_shape
    if before == after:
        return nn.Identity()
    change = f"{before[1:]} to {after[1:]}"
    if len(before) != len(after) or len(before) < 2:
        return f"{change}: no shortcut without parameters is possible"
    if _has_features_last(block):
        extra, space_before, space_after = after[-1] - before[-1], before[1:-1], after[1:-1]
    else:
        extra, space_before, space_after = after[1] - before[1], before[2:], after[2:]
    if extra < 0:
        return f"{change}: a shortcut without parameters cannot drop channels"
    strides = [-(-long // short) for long, short in zip(space_before, space_after, strict=True)]
    shrunk = [-(-long // stride) for long, stride in zip(space_before, strides, strict=True)]
    has_stride = any(stride > 1 for stride in strides)
    if shrunk != list(space_after) or (_has_features_last(block) and has_stride):
        return f"{change}: no whole stride maps one to the other"
    if _has_features_last(block):
        return PaddedShortcut((), extra=extra, channel_axis=-1)
    return PaddedShortcut(strides, extra=extra, channel_axis=1)


def _has_features_last(block: Block) -> bool:
    """Return whether shapes are [B, F] or [B, T, F], and not [B, C, *space]."""
    if len(block.in_shape) == 2:
        return True
    for segment in block.segments:
        if any(_is_convolution(node) for node in segment.nodes):
            return False
    return True


def _is_convolution(node: fx.Node) -> bool:
    owner = node.graph.owning_module
    return isinstance(owner, fx.GraphModule) and isinstance(module_of(owner, node), _CONVOLUTIONS)


def _insert_shortcut(
    graph_module: fx.GraphModule, copies: dict[fx.Node, fx.Node], block: Block, shortcut: nn.Module
) -> None:
    """Add shortcut(start) before the last activation of a block, or at its end if there is none.

    `copies` maps the nodes of the block to nodes of `graph_module`, and is updated.
    """
    num_inner = len(block.segments)
    while block.segments[num_inner - 1].role in ("activation", "dropout"):
        num_inner -= 1
    trailing = block.segments[num_inner:]
    activations = [segment for segment in trailing if segment.role == "activation"]
    response = copies[activations[0].start if activations else block.end]
    users = list(response.users)
    start = copies[block.start]
    with graph_module.graph.inserting_after(response):
        added: fx.Node = graph_module.graph.call_function(torch.add, (response, start))
    if not isinstance(shortcut, nn.Identity):
        name = f"shortcut_around_{block.name.replace('.', '_')}"
        graph_module.add_submodule(name, shortcut)
        with graph_module.graph.inserting_before(added):
            shortcut_node = graph_module.graph.call_module(name, (start,))
        added.args = (response, shortcut_node)
    for user in users:
        user.replace_input_with(response, added)
    if not activations:
        copies[block.end] = added


def _set_identity(deep: fx.GraphModule, block: Block) -> None:
    """Set the weights of a block so that each layer returns its input in evaluation mode."""
    for segment in block.segments:
        for name in segment.modules:
            _set_module_identity(name, deep.get_submodule(name), segment)


def _set_module_identity(name: str, module: Any, segment: Segment) -> None:
    is_layer = segment.role == "layer"
    if isinstance(module, _BATCH_NORMS) and module.affine and module.track_running_stats:
        assert module.running_mean is not None and module.running_var is not None
        module.weight.copy_((module.running_var + module.eps).sqrt())
        module.bias.copy_(module.running_mean)
        return
    if is_layer and isinstance(module, nn.Linear) and module.in_features == module.out_features:
        nn.init.eye_(module.weight)
    elif is_layer and isinstance(module, _CONVOLUTIONS) and segment.keeps_shape:
        nn.init.dirac_(module.weight, module.groups)
    else:
        raise SurgeryError(f"{name} ({type(module).__name__}) cannot be set to the identity")
    if module.bias is not None:
        nn.init.zeros_(module.bias)
