"""One training of one condition, and what is read off it: losses on clean data, gradients by layer, units that are dead.

Equal budgets: every trial makes the same number of steps on the same batches of its seed, at a learning rate that is constant for two
thirds of them and then falls to zero in a line. Batch-norm statistics are recomputed before anything is read (moving averages mislead).
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass
from itertools import count

import torch
from torch import Tensor, fx, nn

from reslearn.analysis import first_to_last
from reslearn.data import permutation
from reslearn.diagnose.problem import MAX_EVALUATED, Problem
from reslearn.evaluate import recompute_batch_norm
from reslearn.models import SurgeryError, trace
from reslearn.train import LearningRate, NonFiniteLossError, fit

WORST_SCORE = 2.0
"""A run that diverged, or is worse than twice the loss of guessing, counts as this bad."""
WORST_HELD_SCORE = 100.0
"""On held-out data a network that overfits goes on getting worse long after that."""
_CONSTANT_SHARE = 2 / 3
_EVALUATION_BATCH = 250


@dataclass(frozen=True, kw_only=True)
class Signals:
    """Of one moment. `gradient_ratio`: first third of layers over last, by norm of the weights' gradients; None where they cannot be told
    apart. `dead_share`: of units behind a ReLU, those at zero for every input; None without ReLU."""

    gradient_ratio: float | None
    dead_share: float | None


UNKNOWN = Signals(gradient_ratio=None, dead_share=None)


@dataclass(frozen=True, kw_only=True)
class Trial:
    """Scores are losses over the loss of guessing, on clean data at the end, cut at WORST_SCORE, held-out ones
    at WORST_HELD_SCORE. `curve`: (step, score as trained)."""

    condition: str
    lr: float
    seed: int
    steps: int
    train_score: float
    held_score: float
    held_at_half: float
    train_error_pct: float | None
    diverged: bool
    curve: tuple[tuple[int, float], ...]
    start: Signals
    end: Signals
    seconds: float


def run_trial(
    problem: Problem,
    net: nn.Module,
    *,
    condition: str,
    lr: float,
    seed: int,
    steps: int,
    look: bool = False,
) -> Trial:
    """Train `net`, which is changed, and read it; gradients and dead units too if it is to be looked into, which takes a while.

    What the network itself draws (dropout) follows from `seed` too, and the global generator is put back.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return _trial(problem, net, condition=condition, lr=lr, seed=seed, steps=steps, look=look)


def _trial(
    problem: Problem,
    net: nn.Module,
    *,
    condition: str,
    lr: float,
    seed: int,
    steps: int,
    look: bool,
) -> Trial:
    started = time.monotonic()
    start = signals(net, problem) if look else UNKNOWN
    curve: list[tuple[int, float]] = []
    diverged, half = False, WORST_SCORE
    every = max(1, steps // 40)

    def factor(step: int) -> float:
        constant = _CONSTANT_SHARE * steps
        return 1.0 if step < constant else (steps - step) / (steps - constant)

    try:
        optimizer = problem.make_optimizer(net.parameters(), lr)
        at = 0
        for part in (steps // 2, steps - steps // 2):
            offset = at
            readings = fit(
                net,
                batches(problem, seed, offset),
                problem.loss,
                optimizer,
                steps=part,
                read_every_steps=every,
                learning_rate=LearningRate(lambda step, o=offset: factor(step + o)),  # type: ignore[misc]
            )
            curve += [
                (offset + reading.step, _score(reading.loss, problem)) for reading in readings
            ]
            at += part
            if at < steps:
                _, _, half = _evaluate(deepcopy(net), problem)
    except NonFiniteLossError:
        diverged = True
    train, error, held = (WORST_SCORE, None, WORST_SCORE) if diverged else _evaluate(net, problem)
    return Trial(
        condition=condition,
        lr=lr,
        seed=seed,
        steps=steps,
        train_score=train,
        held_score=held,
        held_at_half=half,
        train_error_pct=error,
        diverged=diverged,
        curve=tuple(curve),
        start=start,
        end=signals(net, problem) if look and not diverged else UNKNOWN,
        seconds=time.monotonic() - started,
    )


def as_it_is(problem: Problem, net: nn.Module, *, condition: str, seed: int, steps: int) -> Trial:
    """What a network scores that is not trained, its batch-norm statistics left alone; `steps`: of those that it is compared with."""
    started = time.monotonic()
    train, error, held = _evaluate(net, problem, recompute=False)
    return Trial(
        condition=condition,
        lr=0.0,
        seed=seed,
        steps=steps,
        train_score=train,
        held_score=held,
        held_at_half=held,
        train_error_pct=error,
        diverged=False,
        curve=(),
        start=UNKNOWN,
        end=UNKNOWN,
        seconds=time.monotonic() - started,
    )


def signals(net: nn.Module, problem: Problem) -> Signals:
    """Gradients and dead units of a copy of `net` on a batch in training mode; nothing known where it cannot be laid open."""
    x, y = problem.inputs[:256], problem.targets[:256]
    try:
        opened = trace(net, problem.example)
    except SurgeryError:
        return UNKNOWN
    graph_module = opened.graph_module.train()
    ends = {segment.end for segment in opened.segments if segment.role == "activation"}
    watch = _Watch(graph_module, ends)
    loss = problem.loss(watch.run(x), y)
    if not torch.isfinite(loss):
        return Signals(gradient_ratio=None, dead_share=watch.dead_share())
    torch.autograd.backward(loss)
    norms = []
    for segment in opened.segments:
        if segment.role in ("layer", "branches"):
            weights = [
                p
                for name in segment.modules
                for p in graph_module.get_submodule(name).parameters()
                if p.ndim > 1
            ]
            norms.append(
                math.sqrt(
                    sum(
                        0.0 if p.grad is None else float(p.grad.double().square().sum())
                        for p in weights
                    )
                )
            )
    return Signals(
        gradient_ratio=first_to_last(norms) if len(norms) > 2 else None,
        dead_share=watch.dead_share(),
    )


class _Watch(fx.Interpreter):
    """Runs the graph and notes which units behind an activation are exactly zero for all inputs."""

    def __init__(self, graph_module: fx.GraphModule, ends: set[fx.Node]) -> None:
        super().__init__(graph_module)
        self._ends = ends
        self._dead = self._units = 0

    def run_node(self, n: fx.Node) -> object:
        value = super().run_node(n)
        if (
            n in self._ends
            and isinstance(value, Tensor)
            and value.ndim > 1
            and bool((value == 0).any())
        ):
            alive = (value != 0).flatten(2).any(2).any(0) if value.ndim > 2 else (value != 0).any(0)
            self._units += alive.numel()
            self._dead += int((~alive).sum())
        return value

    def dead_share(self) -> float | None:
        return self._dead / self._units if self._units else None


def batches(problem: Problem, seed: int, start: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Full batches in the order of `seed`, from step `start` on."""
    num, size = len(problem.inputs), problem.batch_size
    first_epoch, place = divmod(start, num // size)
    for epoch in count(first_epoch):
        order = permutation(seed, epoch, num)  # once an epoch: it sorts all indices
        for first in range(place * size, num - size + 1, size):
            index = order[first : first + size]
            yield problem.inputs[index], problem.targets[index]
        place = 0


@torch.no_grad()
def _evaluate(
    net: nn.Module, problem: Problem, *, recompute: bool = True
) -> tuple[float, float | None, float]:
    """Score and error in per cent on clean training data, score on held-out data; batch-norm statistics recomputed on training inputs."""
    x, y = problem.inputs[:MAX_EVALUATED], problem.targets[:MAX_EVALUATED]
    if recompute:
        recompute_batch_norm(net, [(part, part) for part in torch.split(x, _EVALUATION_BATCH)])
    was_training = net.training
    net.eval()
    outputs, held = (
        torch.cat([net(part) for part in torch.split(inputs[:MAX_EVALUATED], _EVALUATION_BATCH)])
        for inputs in (x, problem.held_inputs)
    )
    net.train(was_training)
    error = (
        100 * float((outputs.argmax(1) != y).float().mean())
        if problem.task == "classification"
        else None
    )
    held_loss = float(problem.loss(held, problem.held_targets[:MAX_EVALUATED]))
    return (
        _score(float(problem.loss(outputs, y)), problem),
        error,
        _score(held_loss, problem, worst=WORST_HELD_SCORE),
    )


def _score(loss: float, problem: Problem, *, worst: float = WORST_SCORE) -> float:
    return min(worst, loss / problem.guess_loss) if math.isfinite(loss) else worst
