"""Signals inside a network: gradients and responses by layer, and dead units.

They are context. They decide which variants are tried, but not the verdict, with one exception:
the ratio of gradients separates a degraded network from a vanishing or exploding signal.
The paper found healthy signals in plain networks that degrade (Sec. 4.1).
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, fx, nn

from reslearn.analysis import first_to_last
from reslearn.diagnose.containers import traced_network, with_open_containers
from reslearn.diagnose.problem import Problem
from reslearn.diagnose.variant import Variant
from reslearn.models import Block, SurgeryError, Trace, layers, trace

NUM_INPUTS = 256
NUM_INPUTS_BY_LAYER = 128


@dataclass(frozen=True, kw_only=True)
class Signals:
    """Signals of a network at one moment.

    Attributes:
        gradient_ratio: Gradient norm of the weights in the first third of layers, divided by that
            norm in the last third. None if the network has fewer than three layers or cannot be
            traced.
        dead_share: Share of the units behind an activation that are zero for every input. None if
            no activation gives zeros.
    """

    gradient_ratio: float | None
    dead_share: float | None


UNKNOWN = Signals(gradient_ratio=None, dead_share=None)


@dataclass(frozen=True, kw_only=True)
class LayerSignal:
    """Signal and gradient of one layer; NaN if unknown.

    Attributes:
        response: Root mean square of the layer's output after its normalization and before its
            activation, as in Fig. 7.
        gradient: L2 norm of the gradient of its weights.
    """

    name: str
    response: float
    gradient: float


def measure_signals(net: nn.Module, problem: Problem) -> Signals:
    """Measure gradients and dead units of a copy of `net` on one batch, in training mode."""
    x, y = problem.inputs[:NUM_INPUTS], problem.targets[:NUM_INPUTS]
    try:
        opened = trace(with_open_containers(net, problem.example), problem.example)
    except SurgeryError:
        return UNKNOWN
    graph_module = opened.graph_module.train()
    activations = {segment.end for segment in opened.segments if segment.role == "activation"}
    counter = _DeadUnitCounter(graph_module, activations)
    loss = problem.loss(counter.run(x), y)
    if not torch.isfinite(loss):
        return Signals(gradient_ratio=None, dead_share=counter.dead_share())
    torch.autograd.backward(loss)
    norms = _gradient_norms(opened, graph_module)
    return Signals(
        gradient_ratio=first_to_last(norms) if len(norms) > 2 else None,
        dead_share=counter.dead_share(),
    )


def signals_by_layer(
    problem: Problem, variants: Mapping[str, Variant], *, seed: int
) -> dict[str, tuple[LayerSignal, ...]]:
    """Measure every layer of the variants "deep" and "shortcuts" at the start of training.

    Returns:
        Layers in order, by variant. Empty if the network cannot be traced.
    """
    try:
        opened = traced_network(problem, seed)
    except SurgeryError:
        return {}
    traced_layers = [layer for layer in layers(opened) if layer is not None]
    nets: dict[str, nn.Module] = {"deep": opened.graph_module}
    if "shortcuts" in variants:
        nets["shortcuts"] = variants["shortcuts"].make(seed)
    return {name: _measure_layers(traced_layers, net, problem) for name, net in nets.items()}


def response_ratio(layer_signals: Sequence[LayerSignal]) -> float | None:
    """Return the mean response of the last third of layers over the first third.

    Means are geometric.

    Returns:
        0 if a response is zero, infinity if one overflows. None for fewer than three layers or an
        unknown response.
    """
    third = len(layer_signals) // 3
    responses = [signal.response for signal in layer_signals]
    first, last = responses[:third], responses[len(responses) - third :]
    if not third or any(math.isnan(response) for response in (*first, *last)):
        return None
    if min(*first, *last) == 0:
        return 0.0
    if max(*first, *last) == math.inf:
        return math.inf
    return math.exp(statistics.fmean(map(math.log, last)) - statistics.fmean(map(math.log, first)))


class _DeadUnitCounter(fx.Interpreter):
    """Runs a graph and counts units behind an activation that are zero for all inputs."""

    def __init__(self, graph_module: fx.GraphModule, activations: set[fx.Node]) -> None:
        super().__init__(graph_module)
        self._activations = activations
        self._num_dead = self._num_units = 0

    def run_node(self, n: fx.Node) -> object:
        value = super().run_node(n)
        if n in self._activations and isinstance(value, Tensor) and value.ndim > 1:
            is_nonzero = value != 0
            if not bool(is_nonzero.all()):
                if value.ndim > 2:
                    is_nonzero = is_nonzero.flatten(2).any(2)
                is_alive = is_nonzero.any(0)
                self._num_units += is_alive.numel()
                self._num_dead += int((~is_alive).sum())
        return value

    def dead_share(self) -> float | None:
        return self._num_dead / self._num_units if self._num_units else None


def _measure_layers(
    traced_layers: Sequence[Block], net: nn.Module, problem: Problem
) -> tuple[LayerSignal, ...]:
    """Run `net` forward and backward once, in training mode; hooks stay in it."""
    responses: dict[str, float] = {}
    for layer in traced_layers:
        name = layer.modules[-1]
        net.get_submodule(name).register_forward_hook(_record_response(responses, name))
    x, y = problem.inputs[:NUM_INPUTS_BY_LAYER], problem.targets[:NUM_INPUTS_BY_LAYER]
    with torch.random.fork_rng(devices=[]), torch.enable_grad():  # dropout draws numbers
        torch.manual_seed(0)
        torch.autograd.backward(problem.loss(net.train()(x), y))
    return tuple(
        LayerSignal(
            name=layer.name,
            response=responses.get(layer.modules[-1], math.nan),
            gradient=_gradient_norm(net, layer.modules),
        )
        for layer in traced_layers
    )


def _record_response(
    responses: dict[str, float], name: str
) -> Callable[[nn.Module, tuple[Tensor, ...], object], None]:
    def hook(module: nn.Module, inputs: tuple[Tensor, ...], output: object) -> None:
        # Attention returns its weights too.
        tensor = output[0] if isinstance(output, tuple | list) else output
        if isinstance(tensor, Tensor):
            responses[name] = float(tensor.detach().double().square().mean().sqrt())

    return hook


def _gradient_norms(opened: Trace, net: nn.Module) -> list[float]:
    """Return the norm of the weights' gradients for each segment that has weights, in order."""
    return [
        math.sqrt(sum(_squared_gradients(net, segment.modules)))
        for segment in opened.segments
        if segment.role in ("layer", "branches")
    ]


def _gradient_norm(net: nn.Module, modules: Sequence[str]) -> float:
    squares = _squared_gradients(net, modules)
    return math.sqrt(sum(squares)) if squares else math.nan


def _squared_gradients(net: nn.Module, modules: Sequence[str]) -> list[float]:
    """Return the squared gradient norm of each weight with two or more dimensions."""
    squares = []
    for name in modules:
        for parameter in net.get_submodule(name).parameters():
            if parameter.ndim > 1 and parameter.grad is not None:
                squares.append(float(parameter.grad.double().square().sum()))
    return squares
