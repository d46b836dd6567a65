"""Screening by a few steps of the user's optimizer: equal units, missing gradients, collapse.

Some faults show only after a step. Units that start equal are harmless if their gradients differ,
as in a last layer of zeros. A weight without gradient is harmless if it gets one after the first
step, as in a residual branch that starts at zero.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from reslearn.diagnose.call_record import CallRecord, record_calls
from reslearn.diagnose.findings import ScreeningFinding, counted, set_at
from reslearn.diagnose.problem import Problem
from reslearn.diagnose.signal_checks import spread
from reslearn.diagnose.trial import batches

NUM_STEPS = 12
MAX_SECONDS = 2.0
"""Processor time after which no further step is made; at least two are."""
EQUAL_SHARE = 0.5
"""Units of a layer are called equal if at least this share of them repeats another unit."""
EQUAL_DEVIATION = 1e-3
"""Units have stayed equal if they deviate by less than this share of their change."""
UNTRAINED_SHARE = 0.5
"""From this share of values without gradient on, the finding is a suspicion."""
COLLAPSE_RATIO = 1e-4
"""Outputs have collapsed if they deviate between inputs by less than this share of the start."""


@dataclass(frozen=True, kw_only=True)
class EqualUnits:
    """A layer whose units are equal at the start and after a few steps."""

    name: str
    num_equal: int
    num_units: int


@dataclass(frozen=True, kw_only=True)
class FirstSteps:
    """Observations during a few steps at the user's learning rate.

    Attributes:
        unused: Parameters that are not in the graph of the loss.
        without_gradient: Matrices whose gradient was zero at every step.
        untrained_share: Values of both, as a share of all trainable values.
        collapse: Deviation of the outputs between inputs, after over before the steps. NaN if it
            is unknown.
    """

    num_steps: int
    equal_units: tuple[EqualUnits, ...]
    unused: tuple[str, ...]
    without_gradient: tuple[str, ...]
    untrained_share: float
    collapse: float
    diverged: bool


def take_first_steps(
    problem: Problem, net: nn.Module, before: CallRecord, inputs: Tensor, seed: int
) -> FirstSteps:
    """Train `net` in place for a few steps, and compare it before and after.

    Args:
        before: The calls of `net` on `inputs`.
    """
    groups = _equal_groups(before)
    output_spread = spread(before.outputs, len(inputs))
    gradients = _GradientRecord(net)
    num_steps, diverged = _train(problem, net, gradients, len(inputs), seed)
    after = record_calls(net, inputs)
    collapse = math.nan
    if 0 < output_spread < math.inf:
        collapse = spread(after.outputs, len(inputs)) / output_spread
    return FirstSteps(
        num_steps=num_steps,
        equal_units=tuple(_still_equal(groups, after)),
        unused=tuple(gradients.unused()),
        without_gradient=tuple(gradients.without_gradient()),
        untrained_share=gradients.untrained_share(),
        collapse=collapse,
        diverged=diverged or collapse == math.inf,
    )


def first_step_findings(steps: FirstSteps, places: Sequence[str]) -> list[ScreeningFinding]:
    """Turn observations into findings.

    Args:
        places: Where the user's code sets initial weights.
    """
    findings = []
    if steps.equal_units:
        findings.append(_equal_finding(steps, places))
    if steps.unused or (steps.without_gradient and not steps.equal_units):
        findings.append(_gradient_finding(steps))
    return findings


def destroys(steps: FirstSteps) -> bool:
    """Return whether the steps made the loss infinite or all outputs equal."""
    return steps.diverged or steps.collapse < COLLAPSE_RATIO


class _GradientRecord:
    """Which parameters had a gradient, and which had one that is not zero, at any step."""

    def __init__(self, net: nn.Module) -> None:
        self.weights = {
            name: weight for name, weight in net.named_parameters() if weight.requires_grad
        }
        self._in_graph: set[str] = set()
        self._nonzero: set[str] = set()

    def update(self) -> None:
        for name, weight in self.weights.items():
            if weight.grad is not None:
                self._in_graph.add(name)
                if name not in self._nonzero and bool(weight.grad.any()):
                    self._nonzero.add(name)

    def unused(self) -> list[str]:
        return [name for name in self.weights if name not in self._in_graph]

    def without_gradient(self) -> list[str]:
        """Return the matrices only: a bias before a norm has no gradient in a healthy network."""
        names = self._in_graph - self._nonzero
        return [name for name, weight in self.weights.items() if name in names and weight.ndim > 1]

    def untrained_share(self) -> float:
        names = {*self.unused(), *self.without_gradient()}
        num_untrained = sum(self.weights[name].numel() for name in names)
        return num_untrained / max(1, sum(weight.numel() for weight in self.weights.values()))


def _train(
    problem: Problem, net: nn.Module, gradients: _GradientRecord, max_batch: int, seed: int
) -> tuple[int, bool]:
    """Train `net`; return the number of steps, and whether the loss stopped being finite."""
    optimizer = problem.make_optimizer(net.parameters(), problem.lr)
    deadline = time.process_time() + MAX_SECONDS
    with torch.random.fork_rng(devices=[]), torch.enable_grad():
        torch.manual_seed(seed)
        for step, (x, y) in enumerate(batches(problem, seed, 0)):
            is_late = step > 1 and time.process_time() > deadline
            if step == NUM_STEPS or is_late:
                return step, False
            optimizer.zero_grad()
            loss = problem.loss(net.train()(x[:max_batch]), y[:max_batch])
            if not bool(torch.isfinite(loss)):
                return step, True
            torch.autograd.backward(loss)
            gradients.update()
            optimizer.step()
    raise AssertionError("batches never end")


class _Group(NamedTuple):
    """Units of a layer that have equal weights before training."""

    layer_index: int
    units: Tensor
    weights: Tensor
    num_equal: int


def _equal_groups(record: CallRecord) -> list[_Group]:
    """Return the layers in which many units are equal, without the last layer.

    Units of the last layer may stay equal because of the targets: classes that never occur.
    """
    groups = []
    for index, layer in enumerate(record.layers[:-1]):
        is_frozen = not any(weight.requires_grad for weight in layer.weights)
        weights = layer.unit_weights()
        if weights is None or len(weights) < 2 or is_frozen:
            continue
        most_distinct = (1 - EQUAL_SHARE) * len(weights)
        if len(set(weights[:, 0].tolist())) > most_distinct:  # one column is enough, and quick
            continue
        rows, inverse, counts = torch.unique(
            weights, dim=0, return_inverse=True, return_counts=True
        )
        if len(rows) <= most_distinct:
            units = (inverse == counts.argmax()).nonzero().flatten()
            equal = len(weights) - len(rows)
            groups.append(_Group(index, units, weights[units].clone(), equal))
    return groups


def _still_equal(groups: Sequence[_Group], after: CallRecord) -> list[EqualUnits]:
    """Return the layers whose equal units deviate by little after training."""
    still_equal = []
    for group in groups:
        layer = after.layers[group.layer_index]
        weights = layer.unit_weights()
        assert weights is not None, "a layer keeps its kind"
        units = weights[group.units]
        change = float((units - group.weights).norm(dim=1).mean())
        deviation = float((units - units[0]).norm(dim=1).mean())
        if deviation <= EQUAL_DEVIATION * change:
            still_equal.append(
                EqualUnits(
                    name=layer.module or layer.name,
                    num_equal=group.num_equal,
                    num_units=len(weights),
                )
            )
    return still_equal


def _equal_finding(steps: FirstSteps, places: Sequence[str]) -> ScreeningFinding:
    layer = steps.equal_units[0]
    further = len(steps.equal_units) - 1
    likewise = f" ({counted(further, 'further layer')} likewise)" if further else ""
    return ScreeningFinding(
        check="equal units",
        level="suspicion",
        causes=("vanishing or exploding signal", "dead units"),
        message=f"The units of layer {layer.name} start equal and stay equal, so they count as "
        f"one. Draw the initial weights at random{set_at(places)}.",
        evidence=f"{layer.num_equal} of {layer.num_units} units repeat another unit{likewise}, "
        f"also after {counted(steps.num_steps, 'step')}.",
        attribute=layer.name,
        location=places[0] if places else "",
    )


def _gradient_finding(steps: FirstSteps) -> ScreeningFinding:
    is_many = steps.untrained_share >= UNTRAINED_SHARE
    names = [*steps.unused, *steps.without_gradient]
    listed = f"{names[0]} and {len(names) - 1} more" if len(names) > 1 else names[0]
    verb = "are" if len(names) > 1 else "is"
    message = (
        f"{listed} {verb} not used by the loss. Remove what is not needed, or use it in forward."
    )
    if not steps.unused:
        message = f"{listed} {verb} never changed, because the gradient is zero."
    elif is_many:
        message = (
            f"{listed} {verb} not in the graph of the loss. Does forward cut the gradient by "
            "detach, .data, torch.no_grad or NumPy?"
        )
    return ScreeningFinding(
        check="parameters without gradient",
        level="suspicion" if is_many else "note",
        causes=("vanishing or exploding signal", "dead units") if is_many else (),
        message=message,
        evidence=f"{steps.untrained_share:.0%} of the trainable values got no gradient in "
        f"{counted(steps.num_steps, 'step')}.",
        attribute=names[0],
    )


def rate_finding(problem: Problem, steps: FirstSteps) -> ScreeningFinding:
    """Return the finding that the learning rate given destroys the network."""
    evidence = f"After {counted(steps.num_steps, 'step')}, the loss is not finite."
    if steps.collapse == 0:
        evidence = f"After {counted(steps.num_steps, 'step')}, all inputs give the same outputs."
    elif not steps.diverged:
        evidence = (
            f"After {counted(steps.num_steps, 'step')}, the outputs deviate between inputs "
            f"{steps.collapse:.2g} times as much as at the start."
        )
    return ScreeningFinding(
        check="first steps",
        level="suspicion",
        causes=("bad learning rate",),
        message=f"The learning rate {problem.lr:g} is too high: the first steps destroy the "
        f"network. Try {problem.lr / 10:.1g} and {problem.lr / 100:.1g}.",
        evidence=evidence,
    )
