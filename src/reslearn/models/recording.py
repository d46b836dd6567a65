"""Recording of any network as a graph of torch.fx that can be cut and still be trained.

Modules keep their names and parameters. A module of the user whose control flow depends on values
cannot be recorded, so it becomes one node of the graph.
"""

from __future__ import annotations

import inspect
import operator
import re
import traceback

from torch import fx, nn
from torch.nn import functional

_OUT_OF_PLACE = {
    operator.iadd: operator.add,
    operator.imul: operator.mul,
    operator.isub: operator.sub,
}


class SurgeryError(ValueError):
    """A network that cannot be traced or changed as asked.

    The message names the module, and the line of the user's code if there is one.
    """


def record(net: nn.Module) -> fx.GraphModule:
    """Record `net` as it trains, without in-place operations and with dropout as a module.

    Raises:
        SurgeryError: If the network cannot be recorded, if training and evaluation differ in more
            than dropout and norms, or if a module with parameters is called more than once.
    """
    was_training = net.training
    opaque: set[nn.Module] = set()
    while True:
        try:
            graphs = [_Tracer(opaque).trace_call(net.train(mode)) for mode in (False, True)]
            break
        except Exception as error:  # a forward may raise anything when it gets a placeholder
            module, line = _failed_module(error, net)
            if module is None or module is net or module in opaque:
                raise SurgeryError(
                    f"the network cannot be recorded: {first_line(error)}{line}"
                ) from None
            opaque.add(module)
    net.train(was_training)
    _check_same_computation(graphs[0], graphs[1], net, opaque)
    graph_module = fx.GraphModule(net, graphs[1])
    _check_called_once(graph_module, net, opaque)
    _make_trainable(graph_module)
    return graph_module


def module_of(graph_module: fx.GraphModule, node: fx.Node) -> nn.Module | None:
    """Return the module that a node calls, or None if it calls none."""
    return graph_module.get_submodule(str(node.target)) if node.op == "call_module" else None


def has_parameters(module: nn.Module | None) -> bool:
    """Return whether there is a module, and whether it has parameters."""
    return module is not None and next(module.parameters(), None) is not None


def first_line(error: BaseException) -> str:
    """Return the first line of the message of an error, or the name of its class."""
    return str(error).splitlines()[0] if str(error) else type(error).__name__


class _Tracer(fx.Tracer):
    """Record everything except torch's own modules and the modules in `opaque`."""

    def __init__(self, opaque: set[nn.Module]) -> None:
        super().__init__()
        self._opaque = opaque

    def trace_call(self, net: nn.Module) -> fx.Graph:
        """Record the call `net(x)`.

        Optional arguments that are None or a switch (mask=None, features=False) are recorded with
        their default, because a branch on them cannot be recorded otherwise. The recording has
        these arguments too, and refuses other values.
        """
        parameters = inspect.signature(net.forward).parameters
        defaults = {}
        for name, parameter in parameters.items():
            if parameter.default is None or isinstance(parameter.default, bool):
                defaults[name] = parameter.default
        graph = self.trace(net, defaults)
        for node in graph.nodes:
            name = str(node.target).rpartition("_")[0]
            is_renamed = str(node.target) not in parameters and name in defaults
            if node.op == "placeholder" and is_renamed:
                node.target = name  # torch.fx appended a number
        return graph

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return m in self._opaque or super().is_leaf_module(m, module_qualified_name)


def _check_same_computation(
    evaluation: fx.Graph, training: fx.Graph, net: nn.Module, opaque: set[nn.Module]
) -> None:
    lines, training_lines = _without_training_flags(evaluation), _without_training_flags(training)
    if lines == training_lines:
        return
    index = min(len(lines), len(training_lines))
    for position, pair in enumerate(zip(lines, training_lines, strict=False)):
        if pair[0] != pair[1]:
            index = position
            break
    raise SurgeryError(
        "the network computes something else in training than in evaluation (an "
        f"`if self.training:`){_line_of_node(net, opaque, index)}: it cannot be changed"
    )


def _without_training_flags(graph: fx.Graph) -> list[str]:
    lines = []
    for node in graph.nodes:
        arguments = node.args[:2] if node.target is functional.dropout else node.args
        lines.append(f"{node.op} {node.target} {arguments}")
    return lines


def _check_called_once(
    graph_module: fx.GraphModule, net: nn.Module, opaque: set[nn.Module]
) -> None:
    called: set[nn.Module] = set()
    for index, node in enumerate(graph_module.graph.nodes):
        module = module_of(graph_module, node)
        if module is None or not has_parameters(module):
            continue
        if module in called:
            raise SurgeryError(
                f"{node.target} is used more than once{_line_of_node(net, opaque, index)}: "
                "its weights are in several places, so no layer can be cut out alone"
            )
        called.add(module)


def _make_trainable(graph_module: fx.GraphModule) -> None:
    """Replace in-place operations, and functional dropout by modules."""
    for node in list(graph_module.graph.nodes):
        if node.op == "call_function" and node.target in _OUT_OF_PLACE:
            node.target = _OUT_OF_PLACE[node.target]
        if node.op == "call_function" and node.kwargs.get("inplace"):
            node.kwargs = {**node.kwargs, "inplace": False}
        if node.op == "call_function" and node.target is functional.dropout:
            _replace_dropout(graph_module, node)
        elif "training" in node.kwargs:
            raise SurgeryError(
                f"{node.target.__name__} is called with training={node.kwargs['training']}: "
                "use the module instead"
            )
    graph_module.recompile()


def _replace_dropout(graph_module: fx.GraphModule, node: fx.Node) -> None:
    name = f"dropout_of_{node.name}"
    default = node.args[1] if len(node.args) > 1 else 0.5
    probability = node.kwargs.get("p", default)
    assert isinstance(probability, float | int)
    graph_module.add_submodule(name, nn.Dropout(probability))
    with graph_module.graph.inserting_after(node):
        dropout = graph_module.graph.call_module(name, (node.args[0],))
    node.replace_all_uses_with(dropout)
    graph_module.graph.erase_node(node)


def _failed_module(error: BaseException, net: nn.Module) -> tuple[nn.Module | None, str]:
    """Return the innermost module of the user whose forward raised, and the line in it."""
    failed: nn.Module | None = None
    line = ""
    modules = set(net.modules())
    for frame, number in traceback.walk_tb(error.__traceback__):
        file = frame.f_code.co_filename
        owner = frame.f_locals.get("self")
        if "/torch/" in file:
            continue
        if isinstance(owner, nn.Module) and owner in modules:
            failed = owner
        if file != __file__:
            line = f" ({file}:{number})"
    return failed, line


def _line_of_node(net: nn.Module, opaque: set[nn.Module], index: int) -> str:
    """Return the line of the user's code behind a node, or nothing if torch created the node.

    This records the network again, because recording lines takes longer.
    """
    tracer = _Tracer(opaque)
    tracer.record_stack_traces = True
    nodes = list(tracer.trace_call(net).nodes)
    stack = nodes[min(index, len(nodes) - 1)].stack_trace or ""
    line = ""
    for file, number in re.findall(r'File "(.+?)", line (\d+)', stack):
        if "/torch/" not in file and file != __file__:
            line = f" ({file}:{number})"
    return line
