"""Screening of the output layer: can what follows the last weights give the targets?

A softmax before cross-entropy, or a ReLU, tanh or sigmoid before targets beyond its range, bounds
the loss from below. The bound is measured: the part behind the last weights gets free inputs, and
the loss is minimized over them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from reslearn.diagnose.call_record import CallRecord, TorchCall, record_calls, tensors_in
from reslearn.diagnose.code_places import constructor_place
from reslearn.diagnose.findings import ScreeningFinding, at
from reslearn.diagnose.problem import Problem
from reslearn.diagnose.scores import MARGIN
from reslearn.diagnose.verdict_rules import PROOF_GAP

PROBABILITY_TOLERANCE = 1e-3
NUM_EXAMPLES = 64
_SHIFT = 3.0
_SIZES = (100.0, 10_000.0)
"""Outputs of the right class that tell whether a loss has a lower bound."""
_ITERATIONS = 60
_MAX_FREE_VALUES = 2**19
"""Number of values over which the loss is minimized, at most (images have many)."""
BOUNDING_NAMES = {
    *("softmax", "sigmoid", "tanh", "relu", "relu6", "hardtanh", "hardsigmoid", "softplus"),
    *("elu", "selu", "celu", "gelu", "silu", "leaky_relu", "clamp", "clamp_min", "clamp_max"),
    *("logsigmoid", "softsign", "exp", "abs", "square", "log_softmax", "softmin", "normalize"),
}


@dataclass(frozen=True, kw_only=True, eq=False)
class OutputTail:
    """The calls behind the last weights.

    Attributes:
        start: The output of the last call that uses weights.
    """

    calls: tuple[TorchCall, ...]
    start: Tensor
    outputs: Tensor

    def run(self, values: Tensor) -> Tensor:
        """Return the outputs that the calls give for other values [same shape as `start`]."""
        results: dict[int, Any] = {id(self.start): values.clone()}
        for call in self.calls:
            output = call.function(
                *_replaced(call.arguments, results), **_replaced(call.options, results)
            )
            for old, new in zip(tensors_in(call.output), tensors_in(output), strict=True):
                results[id(old)] = new
        result: Tensor = results[id(self.outputs)]
        return result

    @property
    def bounding_call(self) -> TorchCall | None:
        """The last call that limits the range of the outputs."""
        calls = [call for call in self.calls if call.name in BOUNDING_NAMES]
        return calls[-1] if calls else None


def output_findings(problem: Problem, net: nn.Module, inputs: Tensor) -> list[ScreeningFinding]:
    """Find an output layer that bounds the loss above what the loss can reach.

    Args:
        inputs: The first training inputs; at most NUM_EXAMPLES of them are used.
    """
    record = record_calls(net, inputs[:NUM_EXAMPLES])
    if is_unbounded(problem, record.outputs):
        return [_unbounded_finding(problem)]
    tail = find_tail(record)
    if tail is not None and tail.start.numel() > _MAX_FREE_VALUES:
        num_examples = max(2, len(tail.start) * _MAX_FREE_VALUES // tail.start.numel())
        record = record_calls(net, inputs[:num_examples])
        tail = find_tail(record)
    call = None if tail is None else tail.bounding_call
    applies_softmax = is_softmax_repeated(problem, record.outputs)
    location = _place(problem, net, call)
    if tail is None or call is None:
        if not applies_softmax:
            return []
        message = _message(problem, record.outputs, "softmax", location, applies_softmax=True)
        return [_finding(message, "Each row of outputs sums to 1.", "", location, is_proof=True)]
    bound = loss_bound(problem, tail)
    if not bound.gap > MARGIN:
        return []
    message = _message(problem, bound.outputs, call.name, location, applies_softmax=applies_softmax)
    evidence = (
        f"However well the network learns, its loss stays above {bound.loss:.3g}, which is "
        f"{bound.loss / problem.guess_loss:.0%} of the loss of guessing. With free outputs it can "
        f"fall to {bound.free_loss:.2g}."
    )
    return [_finding(message, evidence, call.module, location, is_proof=bound.gap >= PROOF_GAP)]


def _finding(
    message: str, evidence: str, module: str, location: str, *, is_proof: bool
) -> ScreeningFinding:
    return ScreeningFinding(
        check="output layer",
        level="proof" if is_proof else "suspicion",
        causes=("output layer",),
        message=message,
        evidence=evidence,
        attribute=module,
        location=location,
    )


def find_tail(record: CallRecord) -> OutputTail | None:
    """Return what follows the last weights.

    Returns:
        None if the record is incomplete, or if the tail needs other values that earlier layers
        computed. Free inputs then say nothing about the range.
    """
    indices = [index for index, call in enumerate(record.calls) if call.weights]
    if not record.is_complete or not indices:
        return None
    last = record.calls[indices[-1]]
    if not isinstance(last.output, Tensor):
        return None
    available = {id(last.output)}
    earlier: set[int] = set()
    for call in record.calls[: indices[-1] + 1]:
        earlier |= {id(tensor) for tensor in tensors_in(call.output)}
    calls = []
    for call in record.calls[indices[-1] + 1 :]:
        used = {id(tensor) for tensor in tensors_in((call.arguments, call.options))}
        if used & available:
            if used & (earlier - available):
                return None
            calls.append(call)
            available |= {id(tensor) for tensor in tensors_in(call.output)}
    if id(record.outputs) not in available:
        return None
    return OutputTail(calls=tuple(calls), start=last.output, outputs=record.outputs)


def is_softmax_repeated(problem: Problem, outputs: Tensor) -> bool:
    """Return whether outputs are probabilities and the loss applies a softmax to them.

    Such a loss does not change if the same number is added to all outputs of an example.
    """
    if problem.task != "classification" or outputs.ndim != 2 or outputs.shape[1] < 2:
        return False
    sums = outputs.sum(1)
    is_probability = bool((outputs >= 0).all()) and bool(
        ((sums - 1).abs() < PROBABILITY_TOLERANCE).all()
    )
    if not is_probability:
        return False
    targets = problem.targets[: len(outputs)]
    loss = float(problem.loss(outputs, targets))
    shifted = float(problem.loss(outputs + _SHIFT, targets))
    return abs(loss - shifted) < 1e-4 * max(1.0, abs(loss))


def is_unbounded(problem: Problem, outputs: Tensor) -> bool:
    """Return whether the loss of classes falls without limit as the right outputs grow.

    `nll_loss` does so if it gets logits instead of log-probabilities.
    """
    if problem.task != "classification":
        return False
    targets = problem.targets[: len(outputs)]
    right = functional.one_hot(targets, outputs.shape[1]).float()
    try:
        losses = [float(problem.loss(size * right, targets)) for size in _SIZES]
    except Exception:  # some losses take only probabilities
        return False
    return losses[1] < -_SIZES[0] and losses[1] < losses[0]


def _unbounded_finding(problem: Problem) -> ScreeningFinding:
    return ScreeningFinding(
        check="loss without a lower bound",
        level="proof",
        causes=("output layer",),
        message="The loss falls without limit if outputs grow, so its value says nothing. It takes "
        "log-probabilities, as nll_loss does, and the network returns free outputs (logits). Use "
        "cross_entropy, or put nn.LogSoftmax(dim=1) behind the last layer.",
        evidence=f"With outputs of {_SIZES[1]:,.0f} for the right class and 0 for the others, the "
        f"loss is below {-_SIZES[0]:,.0f}.",
    )


class LossBound(NamedTuple):
    """The least loss that an output tail can reach.

    Attributes:
        outputs: The outputs with this loss.
        free_loss: The least loss of outputs without the tail; at least 0.
        gap: The difference of both as a share of the loss of guessing; 0 if it is unknown.
    """

    outputs: Tensor
    loss: float
    free_loss: float
    gap: float


def loss_bound(problem: Problem, tail: OutputTail) -> LossBound:
    """Minimize the loss over free inputs to the tail, and over free outputs."""
    targets = problem.targets[: len(tail.outputs)]
    drawn = torch.randn(tail.start.shape, generator=torch.Generator().manual_seed(0))
    answers = _answers(problem, targets, tail.outputs)
    starts = [answers] if answers.shape == tail.start.shape else []
    starts += [drawn, drawn.abs()]
    outputs, loss = tail.outputs, math.inf
    for start in starts:
        values, lowest = _minimize(lambda values: problem.loss(tail.run(values), targets), start)
        if lowest < loss:
            outputs, loss = tail.run(values), lowest
        if loss <= MARGIN * problem.guess_loss:
            return LossBound(outputs, loss, 0.0, 0.0)
    if not math.isfinite(loss):
        return LossBound(outputs, loss, 0.0, 0.0)
    try:
        _, free_loss = _minimize(lambda values: problem.loss(values, targets), answers)
    except Exception:  # some losses take only probabilities, so the tail is needed
        return LossBound(outputs, loss, loss, 0.0)
    free_loss = max(0.0, min(free_loss, loss))
    return LossBound(outputs, loss, free_loss, (loss - free_loss) / problem.guess_loss)


def _answers(problem: Problem, targets: Tensor, outputs: Tensor) -> Tensor:
    """Return outputs near the best answer: the targets, or large logits of the right class."""
    if problem.task == "regression":
        return targets.view_as(outputs).float()
    return 10.0 * functional.one_hot(targets, outputs.shape[1]).float()


def _minimize(loss_of: Callable[[Tensor], Tensor], start: Tensor) -> tuple[Tensor, float]:
    """Return the values with the least loss by descent from `start`, and this loss."""
    values = start.clone().requires_grad_()
    optimizer = torch.optim.LBFGS(
        [values], max_iter=_ITERATIONS, history_size=10, line_search_fn="strong_wolfe"
    )
    with torch.enable_grad():
        first = float(loss_of(values).detach())

        def closure() -> Tensor:
            optimizer.zero_grad()
            loss = len(start) * loss_of(values)  # a sum: each example has its own gradient
            torch.autograd.backward(loss)
            return loss

        optimizer.step(closure)  # type: ignore[no-untyped-call]
        last = float(loss_of(values).detach())
    if math.isfinite(last) and last < first:
        return values.detach(), last
    return start, first if math.isfinite(first) else math.inf


def _replaced(value: Any, results: dict[int, Any]) -> Any:
    """Return arguments in which recorded tensors are replaced by new ones."""
    if isinstance(value, Tensor):
        return results.get(id(value), value)
    if isinstance(value, list | tuple):
        parts = [_replaced(part, results) for part in value]
        return parts if isinstance(value, list) else tuple(parts)
    if isinstance(value, dict):
        return {key: _replaced(part, results) for key, part in value.items()}
    return value


def _message(
    problem: Problem, outputs: Tensor, name: str, location: str, *, applies_softmax: bool
) -> str:
    if applies_softmax:
        return (
            "The network ends in a softmax, and the loss applies another one: cross-entropy takes "
            f"logits. Remove the softmax behind the last layer{at(location)}."
        )
    targets = problem.targets
    if problem.task == "regression":
        low, high = float(outputs.min()), float(outputs.max())
        if float(targets.min()) < low - 0.01 or float(targets.max()) > high + 0.01:
            return (
                f"The {name} behind the last layer cannot reach the targets: they go from "
                f"{float(targets.min()):.3g} to {float(targets.max()):.3g}, and the best outputs "
                f"from {low:.3g} to {high:.3g}. Remove it{at(location)}, or scale the targets."
            )
    return (
        f"The {name} behind the last layer limits the outputs, but the loss takes free outputs "
        f"(logits). Remove it{at(location)}."
    )


def _place(problem: Problem, net: nn.Module, call: TorchCall | None) -> str:
    """Return the line that calls the activation, or the one that creates its module."""
    if call is None:
        return ""
    if call.location:
        return call.location
    module = net.get_submodule(call.module) if call.module else net
    return constructor_place(problem, net, type(module).__name__)
