"""The signal that leaves each layer and the gradient that reaches it, once at the start: context, by which nothing is decided but what to
try.

The paper found both healthy in plain networks that degrade (Sec. 4.1). A layer's response is that behind its norm and before its
activation, as in Fig. 7; its gradient is that of its weights, as the solver sees it.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from reslearn.diagnose.conditions import Variant
from reslearn.diagnose.problem import Problem
from reslearn.models import Block, SurgeryError, layers, trace

NUM_INPUTS = 128


@dataclass(frozen=True, kw_only=True)
class LayerSignal:
    """`response`: root mean square of what leaves the layer; `gradient`: L2 norm of the gradient of its weights. NaN where not known."""

    name: str
    response: float
    gradient: float


def signals_by_layer(
    problem: Problem, conditions: Mapping[str, Variant], *, seed: int
) -> dict[str, tuple[LayerSignal, ...]]:
    """Of the conditions "deep" and "shortcuts", as far as they are made, layers in order; none where the network cannot be laid open."""
    try:
        opened = trace(problem.net(seed), problem.example)
    except SurgeryError:
        return {}
    found = [layer for layer in layers(opened) if layer is not None]
    nets = {"deep": opened.graph_module} | {
        name: conditions[name].make(seed) for name in ("shortcuts",) if name in conditions
    }
    return {name: _measured(found, net, problem) for name, net in nets.items()}


def response_ratio(layers: Sequence[LayerSignal]) -> float | None:
    """Of the last third of layers over the first, geometric means: 0 where a signal is lost, infinity where one overflows. None for fewer
    than three layers, or where one is not known."""
    third = len(layers) // 3
    first, last = (
        [one.response for one in part] for part in (layers[:third], layers[len(layers) - third :])
    )
    if not third or any(math.isnan(value) for value in (*first, *last)):
        return None
    if min(*first, *last) == 0:
        return 0.0
    if max(*first, *last) == math.inf:
        return math.inf
    return math.exp(statistics.fmean(map(math.log, last)) - statistics.fmean(map(math.log, first)))


def _measured(found: Sequence[Block], net: nn.Module, problem: Problem) -> tuple[LayerSignal, ...]:
    """One pass there and back of `net`, which is changed, in training mode; layers are told by the names of their modules."""
    response: dict[str, float] = {}

    def watch(name: str) -> None:
        def keep(module: nn.Module, inputs: tuple[Tensor, ...], output: object) -> None:
            first = (
                output[0] if isinstance(output, tuple | list) else output
            )  # attention gives its weights too
            if isinstance(first, Tensor):
                response[name] = float(first.detach().double().square().mean().sqrt())

        net.get_submodule(name).register_forward_hook(keep)

    for layer in found:
        watch(layer.modules[-1])
    x, y = problem.inputs[:NUM_INPUTS], problem.targets[:NUM_INPUTS]
    with torch.random.fork_rng(devices=[]), torch.enable_grad():  # dropout draws
        torch.manual_seed(0)
        torch.autograd.backward(problem.loss(net.train()(x), y))
    return tuple(
        LayerSignal(
            name=layer.name,
            response=response.get(layer.modules[-1], math.nan),
            gradient=_gradient(net, layer.modules),
        )
        for layer in found
    )


def _gradient(net: nn.Module, modules: tuple[str, ...]) -> float:
    weights = [
        p
        for name in modules
        for p in net.get_submodule(name).parameters()
        if p.ndim > 1 and p.grad is not None
    ]
    return (
        math.sqrt(sum(float(p.grad.double().square().sum()) for p in weights if p.grad is not None))
        if weights
        else math.nan
    )
