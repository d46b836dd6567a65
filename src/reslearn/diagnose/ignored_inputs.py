"""Screening of forward: do the inputs have an effect on the outputs?"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from reslearn.diagnose.findings import ScreeningFinding

if TYPE_CHECKING:
    from reslearn.diagnose.problem import Problem

_NUM_COMPARED = 8
# Positive small weights neither kill units nor saturate activations.
_DRAWS: tuple[Callable[[Tensor], Tensor], ...] = (
    lambda normal: normal,
    lambda normal: 0.1 * normal,
    lambda normal: 0.1 * normal.abs(),
    lambda normal: 0.01 * normal.abs(),
)


def ignored_inputs(problem: Problem, seed: int) -> list[ScreeningFinding]:
    """Find a forward whose outputs are the same for all inputs, whatever the weights are."""
    if not _ignores_inputs(problem, seed):
        return []
    return [
        ScreeningFinding(
            check="inputs without effect",
            level="proof",
            causes=("data fault",),
            message="All inputs give the same outputs, whatever the weights are, so forward does "
            "not use its input. Check which variable each layer gets, and which one forward "
            "returns.",
            evidence="Several inputs were compared, with random weights of several sizes.",
        )
    ]


def _ignores_inputs(problem: Problem, seed: int) -> bool:
    """Return whether all inputs give the same outputs, whatever the weights are.

    Weights of zero, dead units and saturated activations may do so too, but not for each of these
    random weights, and not in double precision.
    """
    inputs = _different_inputs(problem.inputs)
    if len(inputs) < 2 or not inputs.is_floating_point():
        return False
    net = problem.net(seed).eval()
    if not _outputs_are_alike(net, inputs):
        return False
    try:
        with torch.random.fork_rng(devices=[]), torch.enable_grad():
            torch.manual_seed(seed)
            net, inputs = net.double(), inputs.double().requires_grad_()
            return all(_are_alike(net, inputs, draw) for draw in _DRAWS)
    except Exception:  # the network may need single precision, or a gradient that it cuts
        return False


def _different_inputs(inputs: Tensor) -> Tensor:
    """Return the first input and a few that differ from it."""
    differ = (inputs != inputs[:1]).flatten(1).any(1).nonzero().flatten()
    return torch.cat([inputs[:1], inputs[differ[: _NUM_COMPARED - 1]]])


def _are_alike(net: nn.Module, inputs: Tensor, draw: Callable[[Tensor], Tensor]) -> bool:
    """Return whether outputs are equal, and without a gradient for the inputs."""
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.copy_(draw(torch.randn_like(parameter)))
    outputs = net(inputs.clone())
    if not torch.isfinite(outputs).all() or not _outputs_are_alike(net, inputs):
        return False
    (gradient,) = torch.autograd.grad(outputs.sum(), inputs, allow_unused=True)
    return gradient is None or not bool(gradient.any())


@torch.no_grad()
def _outputs_are_alike(net: nn.Module, inputs: Tensor) -> bool:
    """Compare each place of the batch with itself: rounding may differ between its rows."""
    return torch.equal(net(inputs.clone()), net(inputs.roll(1, 0)))
