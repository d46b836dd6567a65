"""A stranger's network laid open: the seams where one tensor carries all that flows, and the layers between them.

Surgery needs to know where a network can be cut. A seam is a value that every path from input to output goes through (a dominator of
the graph), so that what lies between two seams is a function of one tensor: a layer, a norm, an activation, or a part with branches of
its own. The network is recorded with torch.fx; modules keep their names and parameters, and the given network is not changed.
Shapes: those of `example`, batch dimension included.
"""

from __future__ import annotations

import inspect
import itertools
import operator
import re
import traceback
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, fx, nn
from torch.nn import functional

Role = Literal["layer", "branches", "norm", "activation", "dropout", "other"]
"""layer: one convolution or linear map; branches: more than one path, or a module of another kind with parameters; other: pools, views."""

_LAYERS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)
_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)
_ACTIVATIONS = (
    nn.ReLU,
    nn.ReLU6,
    nn.LeakyReLU,
    nn.PReLU,
    nn.ELU,
    nn.SELU,
    nn.CELU,
    nn.GELU,
    nn.SiLU,
    nn.Mish,
    nn.Tanh,
    nn.Sigmoid,
    nn.Softplus,
    nn.Hardswish,
    nn.Hardsigmoid,
    nn.Hardtanh,
    nn.Softsign,
    nn.LogSigmoid,
    nn.Tanhshrink,
)
_DROPOUTS = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.Identity)
ACTIVATION_NAMES = {
    "relu",
    "relu_",
    "leaky_relu",
    "elu",
    "selu",
    "celu",
    "gelu",
    "silu",
    "mish",
    "tanh",
    "sigmoid",
    "softplus",
    "hardswish",
    "hardsigmoid",
    "relu6",
    "hardtanh",
    "softsign",
    "logsigmoid",
}
_OUT_OF_PLACE = {
    operator.iadd: operator.add,
    operator.imul: operator.mul,
    operator.isub: operator.sub,
}


class SurgeryError(ValueError):
    """A network that cannot be laid open, or operated on as asked: names the module, and the line of the user's code where there is one."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Segment:
    """What lies between two seams: `start` is the value that enters, `end` the one that leaves, `nodes` those computed in between."""

    role: Role
    start: fx.Node
    end: fx.Node
    nodes: tuple[fx.Node, ...]
    modules: tuple[str, ...]
    """Names of the modules with parameters, in order."""
    in_shape: tuple[int, ...]
    out_shape: tuple[int, ...]

    @property
    def keeps_shape(self) -> bool:
        return self.in_shape == self.out_shape


@dataclass(frozen=True, kw_only=True, eq=False)
class Opened:
    """A network as a graph of its own copy, and its segments in the order of the computation."""

    graph_module: fx.GraphModule
    segments: tuple[Segment, ...]

    @property
    def num_layers(self) -> int:
        """Weighted layers, branches counted by their convolutions, linear maps and recurrent layers."""
        return sum(_count_layers(self.graph_module, segment) for segment in self.segments)


def trace(net: nn.Module, example: Tensor) -> Opened:
    """Record a copy of `net` and find its seams. `example` is a batch as the network takes it, two inputs or more.

    In-place operations are replaced, functional dropout becomes a module, so that the copy can be cut and still trained.
    Raises SurgeryError where the network cannot be recorded, takes or gives more than one tensor, behaves otherwise in training
    (dropout and norms aside), or uses one module with parameters twice.
    """
    copy = deepcopy(net)
    for module in copy.modules():
        if getattr(module, "inplace", False) is True:
            vars(module)["inplace"] = False
    graph_module = _record(copy)
    shapes = _shapes(graph_module, example)
    return Opened(graph_module=graph_module, segments=tuple(_segments(graph_module, shapes)))


def module_of(graph_module: fx.GraphModule, node: fx.Node) -> nn.Module | None:
    """The module that a node calls, None where it calls none."""
    return graph_module.get_submodule(str(node.target)) if node.op == "call_module" else None


class _Tracer(fx.Tracer):
    """Sees through everything but torch's own modules, and those of the user that it could not see through before."""

    def __init__(self, opaque: set[nn.Module]) -> None:
        super().__init__()
        self._opaque = opaque

    def trace_as_called(self, net: nn.Module) -> fx.Graph:
        """As `net(x)` computes: what a caller may leave out and is None or a switch (mask=None, features=False) has its default value,
        because a branch on it cannot be recorded otherwise. The recording takes it by the same name, and refuses another value."""
        parameters = inspect.signature(net.forward).parameters
        left_out = {
            name: one.default
            for name, one in parameters.items()
            if one.default is None or isinstance(one.default, bool)
        }
        graph = self.trace(net, left_out)
        for node in graph.nodes:
            name = str(node.target).rpartition("_")[0]
            if node.op == "placeholder" and str(node.target) not in parameters and name in left_out:
                node.target = name  # torch.fx has numbered it
        return graph

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return m in self._opaque or super().is_leaf_module(m, module_qualified_name)


def _record(copy: nn.Module) -> fx.GraphModule:
    """As it trains; a module of the user that cannot be recorded (its control flow depends on values) stays whole."""
    opaque: set[nn.Module] = set()
    while True:
        try:
            was_training = copy.training
            codes = []
            for mode in (False, True):
                graph = _Tracer(opaque).trace_as_called(copy.train(mode))
                codes.append(_without_training_flags(graph))
            copy.train(was_training)
            break
        except Exception as error:  # what a stranger's forward raises when it is given a stand-in is anybody's guess
            culprit, line = _culprit(error, copy)
            if culprit is None or culprit is copy or culprit in opaque:
                raise SurgeryError(
                    f"the network cannot be recorded: {_first_line(error)}{line}"
                ) from None
            opaque.add(culprit)
    if codes[0] != codes[1]:
        differing = (
            index for index, (one, other) in enumerate(zip(*codes, strict=False)) if one != other
        )
        line = _line_of_node(copy, opaque, next(differing, min(len(code) for code in codes)))
        raise SurgeryError(
            f"the network computes something else in training than in evaluation (an `if self.training:`){line}: no surgery on it"
        )
    graph_module = fx.GraphModule(copy, graph)
    _refuse_shared_modules(graph_module, copy, opaque)
    _make_trainable(graph_module)
    return graph_module


def _without_training_flags(graph: fx.Graph) -> list[str]:
    return [
        f"{node.op} {node.target} {node.args[:2] if node.target is functional.dropout else node.args}"
        for node in graph.nodes
    ]


def _make_trainable(graph_module: fx.GraphModule) -> None:
    """Nothing in place, and dropout that listens to train() and eval()."""
    for node in list(graph_module.graph.nodes):
        if node.op == "call_function" and node.target in _OUT_OF_PLACE:
            node.target = _OUT_OF_PLACE[node.target]
        if node.op == "call_function" and node.kwargs.get("inplace"):
            node.kwargs = {**node.kwargs, "inplace": False}
        if node.op == "call_function" and node.target is functional.dropout:
            name = f"dropout_of_{node.name}"
            probability = node.kwargs.get("p", node.args[1] if len(node.args) > 1 else 0.5)
            graph_module.add_submodule(name, nn.Dropout(probability))
            with graph_module.graph.inserting_after(node):
                new = graph_module.graph.call_module(name, (node.args[0],))
            node.replace_all_uses_with(new)
            graph_module.graph.erase_node(node)
        elif "training" in node.kwargs:
            raise SurgeryError(
                f"{node.target.__name__} is called with training={node.kwargs['training']}: use the module instead"
            )
    graph_module.recompile()


def _culprit(error: BaseException, root: nn.Module) -> tuple[nn.Module | None, str]:
    """The innermost module of the user in whose forward it went wrong, and the line there."""
    found: nn.Module | None = None
    line = ""
    known = set(root.modules())
    for frame, number in traceback.walk_tb(error.__traceback__):
        owner = frame.f_locals.get("self")
        inside = "/torch/" in frame.f_code.co_filename
        if isinstance(owner, nn.Module) and owner in known and not inside:
            found = owner
        if not inside and "reslearn/models/tracing.py" not in frame.f_code.co_filename:
            line = f" ({frame.f_code.co_filename}:{number})"
    return found, line


def _line_of_node(copy: nn.Module, opaque: set[nn.Module], index: int) -> str:
    """The line of the user's code behind a node of the graph, by recording once more, which takes longer; nothing where torch made it."""
    tracer = _Tracer(opaque)
    tracer.record_stack_traces = True
    nodes = list(tracer.trace_as_called(copy).nodes)
    frames = re.findall(
        r'File "(.+?)", line (\d+)', nodes[min(index, len(nodes) - 1)].stack_trace or ""
    )
    lines = [
        f" ({file}:{number})"
        for file, number in frames
        if "/torch/" not in file and "reslearn/models/tracing.py" not in file
    ]
    return lines[-1] if lines else ""


def _first_line(error: BaseException) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__


def _refuse_shared_modules(
    graph_module: fx.GraphModule, copy: nn.Module, opaque: set[nn.Module]
) -> None:
    called: set[nn.Module] = set()
    for index, node in enumerate(graph_module.graph.nodes):
        module = module_of(graph_module, node)
        if module is not None and _has_parameters(module):
            if module in called:
                line = _line_of_node(copy, opaque, index)
                raise SurgeryError(
                    f"{node.target} is used more than once{line}: its weights are in several places, and no layer can be cut alone"
                )
            called.add(module)


class _Shapes(fx.Interpreter):
    """Runs the graph and remembers what each node gave: the shape of a tensor, None for anything else."""

    def __init__(self, graph_module: fx.GraphModule) -> None:
        super().__init__(graph_module)
        self.shapes: dict[fx.Node, tuple[int, ...] | None] = {}
        self.tensors: set[fx.Node] = set()

    def run_node(self, n: fx.Node) -> Any:
        value = super().run_node(n)
        self.shapes[n] = tuple(value.shape) if isinstance(value, Tensor) else None
        if isinstance(value, Tensor) or (
            isinstance(value, tuple | list) and any(isinstance(one, Tensor) for one in value)
        ):
            self.tensors.add(n)
        return value


def _shapes(graph_module: fx.GraphModule, example: Tensor) -> _Shapes:
    twin = deepcopy(graph_module).eval()
    inputs = [node for node in twin.graph.nodes if node.op == "placeholder"]
    if not inputs or any(not node.args for node in inputs[1:]):
        raise SurgeryError(f"forward takes {len(inputs)} inputs: a network of one tensor is needed")
    ran = _Shapes(twin)
    try:
        with torch.no_grad():
            result = ran.run(example)
    except Exception as error:
        raise SurgeryError(
            f"the network cannot take inputs of shape {tuple(example.shape)}: {_first_line(error)}"
        ) from None
    if not isinstance(result, Tensor):
        raise SurgeryError(
            f"forward gives a {type(result).__name__}: a network that gives one tensor is needed"
        )
    ours = dict(zip(twin.graph.nodes, graph_module.graph.nodes, strict=True))
    ran.shapes = {ours[node]: shape for node, shape in ran.shapes.items()}
    ran.tensors = {ours[node] for node in ran.tensors}
    return ran


def _segments(graph_module: fx.GraphModule, ran: _Shapes) -> list[Segment]:
    nodes = list(graph_module.graph.nodes)
    carrying = _carrying(nodes, ran.tensors)
    position = {node: index for index, node in enumerate(nodes)}
    last_use = {
        node: max(
            (position[user] for user in node.users if user in carrying or user.op == "output"),
            default=-1,
        )
        for node in carrying
    }
    seams: list[fx.Node] = []
    live: set[fx.Node] = set()
    for node in nodes:
        if node not in carrying:
            continue
        live = {other for other in live if last_use[other] > position[node]}
        if last_use[node] > position[node]:
            live.add(node)
        if live == {node} and ran.shapes[node] is not None:
            seams.append(node)
    found = [_segment(graph_module, carrying, ran, *pair) for pair in itertools.pairwise(seams)]
    whole = [(start, end) for start, end in _inside_heads(found) if start < end]
    inside = {found[index].end for start, end in whole for index in range(start, end)}
    kept = [seam for seam in seams if seam not in inside]
    return (
        [_segment(graph_module, carrying, ran, *pair) for pair in itertools.pairwise(kept)]
        if inside
        else found
    )


def _inside_heads(segments: list[Segment]) -> list[tuple[int, int]]:
    """First and last of those that belong together since a tensor with another number of axes lies between them: attention written by hand,
    whose heads are an axis of their own until they are joined and, by the layer that follows, mixed."""
    found = []
    for first, segment in enumerate(segments):
        if segment.role != "branches" or len(segment.out_shape) == len(segment.in_shape):
            continue
        last = first
        while (
            len(segments[last].out_shape) != len(segment.in_shape)
            and last + 1 < len(segments)
            and segments[last + 1].role == "other"
        ):
            last += 1
        if len(segments[last].out_shape) != len(segment.in_shape):
            continue
        if (
            last + 1 < len(segments)
            and segments[last + 1].role == "layer"
            and segments[last + 1].out_shape == segment.in_shape
        ):
            last += 1
        found.append((first, last))
    return found


def _carrying(nodes: list[fx.Node], tensors: set[fx.Node]) -> set[fx.Node]:
    """Values computed from the values of the input, not from its shape alone."""
    found: set[fx.Node] = set()
    for node in nodes:
        if (
            node in tensors
            and (node.op == "placeholder" or any(one in found for one in node.all_input_nodes))
            and node.op != "output"
        ):
            found.add(node)
    return found


def _segment(
    graph_module: fx.GraphModule, carrying: set[fx.Node], ran: _Shapes, start: fx.Node, end: fx.Node
) -> Segment:
    nodes: list[fx.Node] = []
    for node in graph_module.graph.nodes:
        if nodes or node is start:
            nodes.append(node)
        if node is end:
            break
    own = tuple(node for node in nodes[1:] if node in carrying)
    weighted = tuple(
        str(node.target) for node in own if _has_parameters(module_of(graph_module, node))
    )
    in_shape, out_shape = ran.shapes[start], ran.shapes[end]
    assert in_shape is not None and out_shape is not None
    role = _role(graph_module, own, weighted, keeps_shape=in_shape == out_shape)
    return Segment(
        role=role,
        start=start,
        end=end,
        nodes=own,
        modules=weighted,
        in_shape=in_shape,
        out_shape=out_shape,
    )


def _role(
    graph_module: fx.GraphModule,
    nodes: tuple[fx.Node, ...],
    weighted: tuple[str, ...],
    *,
    keeps_shape: bool,
) -> Role:
    if len(nodes) > 1:
        return "branches" if weighted else "other"
    module = module_of(graph_module, nodes[0])
    if isinstance(module, _LAYERS):
        return "layer"
    if isinstance(module, _NORMS):
        return "norm"
    if isinstance(module, _ACTIVATIONS) or (
        module is None and keeps_shape and _function_name(nodes[0]) in ACTIVATION_NAMES
    ):
        return "activation"
    if isinstance(module, _DROPOUTS):
        return "dropout"
    return "branches" if weighted else "other"


def _has_parameters(module: nn.Module | None) -> bool:
    return module is not None and next(module.parameters(), None) is not None


def _function_name(node: fx.Node) -> str:
    return node.target if isinstance(node.target, str) else getattr(node.target, "__name__", "")


def _count_layers(graph_module: fx.GraphModule, segment: Segment) -> int:
    if segment.role == "layer":
        return 1
    if segment.role != "branches":
        return 0
    counted = (nn.MultiheadAttention, *_LAYERS)
    inside = [
        module for name in segment.modules for module in graph_module.get_submodule(name).modules()
    ]
    recurrent = sum(module.num_layers for module in inside if isinstance(module, nn.RNNBase))
    return max(1, recurrent + sum(isinstance(module, counted) for module in inside))
