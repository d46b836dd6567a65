"""Any network as a sequence of segments: layers, norms, activations, and parts with branches.

Surgery needs to know where a network can be cut. A seam is a value that every path from input to
output passes (a dominator of the graph), so the part between two seams is a function of one tensor.

Shapes include the batch dimension of the example.
"""

from __future__ import annotations

import itertools
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, fx, nn

from reslearn.models.recording import SurgeryError, first_line, has_parameters, module_of, record

Role = Literal["layer", "branches", "norm", "activation", "dropout", "other"]
"""The kind of a segment.

"layer" is one convolution or linear map. "branches" has more than one path, or is a module of
another kind with parameters. "other" is a pool or a view.
"""

_LAYERS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)
_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)
_DROPOUTS = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.Identity)
_ACTIVATIONS = (
    *(nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.PReLU, nn.ELU, nn.SELU, nn.CELU, nn.GELU, nn.SiLU),
    *(nn.Mish, nn.Tanh, nn.Sigmoid, nn.Softplus, nn.Hardswish, nn.Hardsigmoid, nn.Hardtanh),
    *(nn.Softsign, nn.LogSigmoid, nn.Tanhshrink),
)
ACTIVATION_NAMES = {
    *("relu", "relu_", "leaky_relu", "elu", "selu", "celu", "gelu", "silu", "mish"),
    *(
        "tanh",
        "sigmoid",
        "softplus",
        "hardswish",
        "hardsigmoid",
        "relu6",
        "hardtanh",
        "softsign",
        "logsigmoid",
    ),
}


@dataclass(frozen=True, kw_only=True, eq=False)
class Segment:
    """The part of a network between two seams.

    Attributes:
        start: The value that enters.
        end: The value that leaves.
        nodes: The values computed in between, `end` included.
        modules: Names of the modules with parameters, in order.
    """

    role: Role
    start: fx.Node
    end: fx.Node
    nodes: tuple[fx.Node, ...]
    modules: tuple[str, ...]
    in_shape: tuple[int, ...]
    out_shape: tuple[int, ...]

    @property
    def keeps_shape(self) -> bool:
        """Whether input and output have the same shape."""
        return self.in_shape == self.out_shape


@dataclass(frozen=True, kw_only=True, eq=False)
class Trace:
    """A copy of a network as a graph, and its segments in the order of the computation."""

    graph_module: fx.GraphModule
    segments: tuple[Segment, ...]

    @property
    def num_layers(self) -> int:
        """Number of layers with weights, including those inside branches."""
        return sum(count_layers(self.graph_module, segment) for segment in self.segments)


def trace(net: nn.Module, example: Tensor) -> Trace:
    """Record a copy of `net` and find its seams. `net` itself is not changed.

    In-place operations are replaced and functional dropout becomes a module, so the copy can be
    cut and still be trained.

    Args:
        net: A network of one tensor.
        example: A batch of inputs, at least two.

    Raises:
        SurgeryError: If the network cannot be recorded, takes or returns more than one tensor,
            differs between training and evaluation in more than dropout and norms, or uses a module
            with parameters twice.
    """
    copy = deepcopy(net)
    for module in copy.modules():
        if getattr(module, "inplace", False) is True:
            vars(module)["inplace"] = False
    graph_module = record(copy)
    shapes = _run(graph_module, example)
    segments = _segments(graph_module, shapes)
    return Trace(graph_module=graph_module, segments=tuple(segments))


def count_layers(graph_module: fx.GraphModule, segment: Segment) -> int:
    """Return the number of layers with weights in a segment."""
    if segment.role == "layer":
        return 1
    if segment.role != "branches":
        return 0
    num_layers = 0
    for name in segment.modules:
        for module in graph_module.get_submodule(name).modules():
            if isinstance(module, nn.RNNBase):
                num_layers += module.num_layers
            elif isinstance(module, (nn.MultiheadAttention, *_LAYERS)):
                num_layers += 1
    return max(1, num_layers)


class _ShapeRecorder(fx.Interpreter):
    """Run a graph and record the shape of each value, or None for a value that is no tensor."""

    def __init__(self, graph_module: fx.GraphModule) -> None:
        super().__init__(graph_module)
        self.shapes: dict[fx.Node, tuple[int, ...] | None] = {}
        self.holds_tensor: set[fx.Node] = set()

    def run_node(self, n: fx.Node) -> Any:
        value = super().run_node(n)
        self.shapes[n] = tuple(value.shape) if isinstance(value, Tensor) else None
        values = value if isinstance(value, tuple | list) else (value,)
        if any(isinstance(part, Tensor) for part in values):
            self.holds_tensor.add(n)
        return value


def _run(graph_module: fx.GraphModule, example: Tensor) -> _ShapeRecorder:
    """Run a copy of the graph on `example`, and return the shapes by node."""
    copy = deepcopy(graph_module).eval()
    inputs = [node for node in copy.graph.nodes if node.op == "placeholder"]
    if not inputs or any(not node.args for node in inputs[1:]):
        raise SurgeryError(f"forward takes {len(inputs)} inputs: it must take one tensor")
    recorder = _ShapeRecorder(copy)
    try:
        with torch.no_grad():
            output = recorder.run(example)
    except Exception as error:
        raise SurgeryError(
            f"the network cannot take inputs of shape {tuple(example.shape)}: {first_line(error)}"
        ) from None
    if not isinstance(output, Tensor):
        raise SurgeryError(f"forward returns a {type(output).__name__}: it must return one tensor")
    original = dict(zip(copy.graph.nodes, graph_module.graph.nodes, strict=True))
    recorder.shapes = {original[node]: shape for node, shape in recorder.shapes.items()}
    recorder.holds_tensor = {original[node] for node in recorder.holds_tensor}
    return recorder


def _segments(graph_module: fx.GraphModule, recorder: _ShapeRecorder) -> list[Segment]:
    nodes = list(graph_module.graph.nodes)
    data_nodes = _data_nodes(nodes, recorder.holds_tensor)
    seams = _seams(nodes, data_nodes, recorder)
    segments = []
    for start, end in itertools.pairwise(seams):
        segments.append(_segment(graph_module, data_nodes, recorder, start, end))
    inside: set[fx.Node] = set()
    for first, last in _attention_by_hand(segments):
        inside |= {segment.end for segment in segments[first:last]}
    if not inside:
        return segments
    merged = []
    for start, end in itertools.pairwise(seam for seam in seams if seam not in inside):
        merged.append(_segment(graph_module, data_nodes, recorder, start, end))
    return merged


def _data_nodes(nodes: list[fx.Node], holds_tensor: set[fx.Node]) -> set[fx.Node]:
    """Return the nodes that depend on the values of the input, not only on its shape."""
    data_nodes: set[fx.Node] = set()
    for node in nodes:
        depends_on_input = not data_nodes.isdisjoint(node.all_input_nodes)
        is_data = node.op == "placeholder" or (depends_on_input and node.op != "output")
        if is_data and node in holds_tensor:
            data_nodes.add(node)
    return data_nodes


def _seams(
    nodes: list[fx.Node], data_nodes: set[fx.Node], recorder: _ShapeRecorder
) -> list[fx.Node]:
    """Return the values after which no earlier value is used again."""
    position = {node: index for index, node in enumerate(nodes)}
    last_use: dict[fx.Node, int] = {}
    for node in data_nodes:
        users = [user for user in node.users if user in data_nodes or user.op == "output"]
        last_use[node] = max((position[user] for user in users), default=-1)
    seams: list[fx.Node] = []
    live: set[fx.Node] = set()
    for node in nodes:
        if node not in data_nodes:
            continue
        live = {earlier for earlier in live if last_use[earlier] > position[node]}
        if last_use[node] > position[node]:
            live.add(node)
        if live == {node} and recorder.shapes[node] is not None:
            seams.append(node)
    return seams


def _attention_by_hand(segments: list[Segment]) -> list[tuple[int, int]]:
    """Return first and last segment of each attention that is written without a module for it.

    Its heads are an axis of their own, so a tensor with another number of axes lies inside. The
    layer that follows the joined heads mixes them and belongs to the attention.
    """
    spans = []
    for first, segment in enumerate(segments):
        num_axes = len(segment.in_shape)
        if segment.role != "branches" or len(segment.out_shape) == num_axes:
            continue
        last = first
        while len(segments[last].out_shape) != num_axes and last + 1 < len(segments):
            if segments[last + 1].role != "other":
                break
            last += 1
        if len(segments[last].out_shape) != num_axes:
            continue
        if last + 1 < len(segments):
            following = segments[last + 1]
            if following.role == "layer" and following.out_shape == segment.in_shape:
                last += 1
        if last > first:
            spans.append((first, last))
    return spans


def _segment(
    graph_module: fx.GraphModule,
    data_nodes: set[fx.Node],
    recorder: _ShapeRecorder,
    start: fx.Node,
    end: fx.Node,
) -> Segment:
    all_nodes = list(graph_module.graph.nodes)
    between = all_nodes[all_nodes.index(start) + 1 : all_nodes.index(end) + 1]
    nodes = tuple(node for node in between if node in data_nodes)
    modules = tuple(
        str(node.target) for node in nodes if has_parameters(module_of(graph_module, node))
    )
    in_shape, out_shape = recorder.shapes[start], recorder.shapes[end]
    assert in_shape is not None and out_shape is not None
    return Segment(
        role=_role(graph_module, nodes, modules, keeps_shape=in_shape == out_shape),
        start=start,
        end=end,
        nodes=nodes,
        modules=modules,
        in_shape=in_shape,
        out_shape=out_shape,
    )


def _role(
    graph_module: fx.GraphModule,
    nodes: tuple[fx.Node, ...],
    modules: tuple[str, ...],
    *,
    keeps_shape: bool,
) -> Role:
    if len(nodes) > 1:
        return "branches" if modules else "other"
    module = module_of(graph_module, nodes[0])
    is_function = module is None and keeps_shape
    if isinstance(module, _LAYERS):
        return "layer"
    if isinstance(module, _NORMS):
        return "norm"
    if isinstance(module, _ACTIVATIONS):
        return "activation"
    if is_function and _function_name(nodes[0]) in ACTIVATION_NAMES:
        return "activation"
    if isinstance(module, _DROPOUTS):
        return "dropout"
    return "branches" if modules else "other"


def _function_name(node: fx.Node) -> str:
    return node.target if isinstance(node.target, str) else getattr(node.target, "__name__", "")
