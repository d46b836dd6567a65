"""Variants for causes other than depth: each removes one suspected cause and nothing else.

| variant | change | suspected cause |
|---|---|---|
| standardized | inputs scaled to mean 0 and standard deviation 1 | scale of the inputs |
| initialized | weights drawn by the rule of its activations, biases zero | initialization |
| bare | no activation behind the last weights; a log_softmax stays | output layer |
| unregularized | no weight decay, no dropout (`regularization.py`) | regularization |
| warm-up | the learning rate rises during the first fifth of the steps | learning rate |
| clipped | gradients of a norm above 1 are scaled to 1 | learning rate |
| wide | another network, wide and residual, as a yardstick | capacity |
| linear | a linear model on standardized inputs, as a yardstick | capacity |
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import replace

import torch
from torch import Tensor, fx, nn

from reslearn.diagnose.call_record import record_calls
from reslearn.diagnose.initial_weights import suitable_initializer
from reslearn.diagnose.output_layer import BOUNDING_NAMES, NUM_EXAMPLES, find_tail
from reslearn.diagnose.problem import MAX_EVALUATED, Problem
from reslearn.diagnose.trial import WORST_SCORE
from reslearn.diagnose.variant import Regime, Variant
from reslearn.models import Residual, SurgeryError, trace
from reslearn.models.recording import has_parameters, module_of

WIDE_UNITS = 256
_LINEAR_ITERATIONS = 40
_KEPT = {"log_softmax", "normalize"}
"""Calls behind the last weights that the variant "bare" keeps: some losses need them."""


def standardized(problem: Problem) -> Variant:
    """Return the deep network on inputs of mean 0 and standard deviation 1.

    Statistics are per feature, or per channel if inputs have spatial dimensions.
    """
    axes = standard_axes(problem.inputs)
    mean = problem.inputs.mean(axes, keepdim=True)
    deviation = problem.inputs.std(axes, keepdim=True).clamp_min(1e-6)

    def standardize(x: Tensor) -> Tensor:
        return (x - mean) / deviation

    return Variant(
        name="standardized",
        description="inputs scaled to mean 0 and standard deviation 1",
        problem=replace(
            problem,
            inputs=standardize(problem.inputs),
            held_inputs=standardize(problem.held_inputs),
        ),
        make=problem.net,
    )


def standard_axes(inputs: Tensor) -> list[int]:
    """Return the axes over which inputs are standardized: all except features or channels."""
    return [axis for axis in range(inputs.ndim) if axis != 1]


def initialized(problem: Problem) -> Variant:
    """Return the deep network with weights that suit its activations, and biases at zero."""
    initializer = suitable_initializer(problem)

    def make(seed: int) -> nn.Module:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(problem.random_seed(seed))
            net = problem.build()  # the new weights follow the user's own numbers, as in a patch
            # By name, so that weights do not depend on the order in which modules are registered.
            for _, module in sorted(net.named_modules()):
                if isinstance(module, nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d):
                    initializer.draw(module.weight)
                    if module.bias is not None:
                        nn.init.zeros_(module.bias)
        return net

    return Variant(
        name="initialized",
        description=f"weights drawn by {initializer.rule}, biases zero",
        problem=problem,
        make=make,
    )


def wide(problem: Problem) -> Variant:
    """Return another network that is large enough for most tasks of a few thousand examples.

    It has two residual blocks of 256 units.
    """

    def make(seed: int) -> nn.Module:
        shape = problem.net(seed)(problem.example).shape[1:]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(problem.random_seed(seed))
            bodies = [_wide_body(), _wide_body()]
            num_inputs = problem.example[0].numel()
            head: list[nn.Module] = [
                nn.Linear(WIDE_UNITS, shape.numel()),
                nn.Unflatten(1, tuple(shape) or (1,)),
            ]
            layers: list[nn.Module] = [
                nn.Flatten(),
                nn.BatchNorm1d(num_inputs),
                nn.Linear(num_inputs, WIDE_UNITS),
                nn.ReLU(),
            ]
            layers += [Residual(body, nn.Identity(), nn.ReLU()) for body in bodies]
            layers.append(nn.Sequential(*head))
            if not shape:
                layers.append(nn.Flatten(0))
            return nn.Sequential(*layers)

    return Variant(
        name="wide",
        description=f"another network, {WIDE_UNITS} units wide, as a yardstick",
        problem=problem,
        make=make,
    )


def _wide_body() -> nn.Module:
    return nn.Sequential(
        nn.Linear(WIDE_UNITS, WIDE_UNITS),
        nn.BatchNorm1d(WIDE_UNITS),
        nn.ReLU(),
        nn.Linear(WIDE_UNITS, WIDE_UNITS),
        nn.BatchNorm1d(WIDE_UNITS),
    )


def takes_free_outputs(problem: Problem) -> bool:
    """Return whether the loss takes any numbers, and not only probabilities."""
    try:
        return _takes_large_outputs(problem, problem.net(0)(problem.example))
    except Exception:  # the loss is the user's code
        return False


def warmed_up(problem: Problem) -> Variant:
    """Return the deep network with a learning rate that rises at the start."""
    return Variant(
        name="warm-up",
        description="the learning rate rises during the first fifth of the steps",
        problem=problem,
        make=problem.net,
        regime=Regime(warms_up=True),
    )


def clipped(problem: Problem) -> Variant:
    """Return the deep network with clipped gradients."""
    return Variant(
        name="clipped",
        description="gradients of a norm above 1 are scaled to 1",
        problem=problem,
        make=problem.net,
        regime=Regime(clips_gradients=True),
    )


def bare(problem: Problem) -> Variant | None:
    """Return the deep network without the activation behind its last weights.

    Returns:
        None if there is none, if it cannot be removed, or if the loss needs it.
    """
    example = problem.example
    try:
        net = without_output_activation(problem.net(0), example)
        if net is None or not _takes_large_outputs(problem, net(example)):
            return None
    except Exception:  # the network and the loss are the user's code
        return None

    def make(seed: int) -> nn.Module:
        changed = without_output_activation(problem.net(seed), example)
        assert changed is not None, "all seeds build the same layers"
        return changed

    return Variant(
        name="bare",
        description="the activation behind the last weights removed",
        problem=problem,
        make=make,
    )


def without_output_activation(net: nn.Module, example: Tensor) -> nn.Module | None:
    """Return a copy of `net` without what limits its outputs behind the last weights.

    A log_softmax stays, because losses such as nll_loss need it.

    Returns:
        None if there is nothing to remove, or if torch.fx cannot record a function call there.
    """
    names = output_activations(net, example)
    copy = deepcopy(net)
    return without_modules(copy, names) if names else _without_last_calls(copy, example)


def without_modules(net: nn.Module, names: Sequence[str]) -> nn.Module:
    """Replace modules by the identity, in place, and return the network."""
    for name in names:
        parent, _, attribute = name.rpartition(".")
        setattr(net.get_submodule(parent), attribute, nn.Identity())
    return net


def output_activations(net: nn.Module, example: Tensor) -> tuple[str, ...]:
    """Return the modules that limit the outputs behind the last weights, and do nothing else.

    Returns:
        Nothing if a function limits them, or a module that is used elsewhere too.
    """
    record = record_calls(deepcopy(net), example[:NUM_EXAMPLES])
    tail = find_tail(record)
    calls = [] if tail is None else tail.calls
    names = [call.module for call in calls if call.name in BOUNDING_NAMES - _KEPT]
    num_uses = Counter(call.module for call in record.calls)
    is_used_once = all(num_uses[name] == 1 for name in names)
    if not is_used_once or not all(_is_activation(net.get_submodule(name)) for name in names):
        return ()
    return tuple(names)


def _is_activation(module: nn.Module) -> bool:
    is_torch = type(module).__module__.startswith("torch.nn")
    return is_torch and not list(module.children()) and not list(module.parameters())


def _without_last_calls(net: nn.Module, example: Tensor) -> nn.Module | None:
    """Remove activations from the end of the recorded graph, up to the last weights."""
    try:
        graph_module = trace(net, example).graph_module
    except SurgeryError:
        return None
    output = next(node for node in graph_module.graph.nodes if node.op == "output")
    node = output.all_input_nodes[0]
    num_removed = 0
    while len(node.all_input_nodes) == 1 and not _uses_weights(graph_module, node):
        previous = node.all_input_nodes[0]
        if _called_name(graph_module, node) in BOUNDING_NAMES - _KEPT:
            node.replace_all_uses_with(previous)
            num_removed += 1
        node = previous
    if not num_removed:
        return None
    graph_module.graph.eliminate_dead_code()
    graph_module.recompile()
    return graph_module


def _uses_weights(graph_module: fx.GraphModule, node: fx.Node) -> bool:
    module = module_of(graph_module, node)
    return module is not None and has_parameters(module)


def _called_name(graph_module: fx.GraphModule, node: fx.Node) -> str:
    module = module_of(graph_module, node)
    if module is not None:
        return type(module).__name__.lower()
    return str(getattr(node.target, "__name__", node.target)).strip("_")


def _takes_large_outputs(problem: Problem, outputs: Tensor) -> bool:
    large = 10 * torch.ones_like(outputs)
    return bool(torch.isfinite(problem.loss(large, problem.targets[: len(problem.example)])))


@torch.no_grad()
def linear_score(problem: Problem) -> float:
    """Return the training score of a linear model on standardized inputs, after a descent.

    A larger network that is worse than this model is not too small: something else keeps it from
    learning.

    Returns:
        WORST_SCORE if the network has fewer parameters than the linear model, if the loss takes no
        free outputs, or if the inputs are no numbers.
    """
    if not problem.inputs.is_floating_point() or not takes_free_outputs(problem):
        return WORST_SCORE
    inputs = problem.inputs[:MAX_EVALUATED].flatten(1)
    targets = problem.targets[:MAX_EVALUATED]
    deviation = inputs.std(0).clamp_min(1e-6)
    inputs = ((inputs - inputs.mean(0)) / deviation).clamp(-10, 10)
    shape = problem.net(0)(problem.example).shape[1:]
    layer = nn.Linear(inputs.shape[1], max(1, shape.numel()))
    num_parameters = sum(weight.numel() for weight in problem.net(0).parameters())
    if num_parameters < sum(weight.numel() for weight in layer.parameters()):
        return WORST_SCORE
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    optimizer = torch.optim.LBFGS(
        layer.parameters(), max_iter=_LINEAR_ITERATIONS, line_search_fn="strong_wolfe"
    )

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = problem.loss(layer(inputs).reshape(len(inputs), *shape), targets)
        torch.autograd.backward(loss)
        return loss

    with torch.enable_grad():
        optimizer.step(closure)  # type: ignore[no-untyped-call]
        loss = float(closure().detach())
    return min(WORST_SCORE, loss / problem.guess_loss) if math.isfinite(loss) else WORST_SCORE
