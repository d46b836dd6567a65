"""One trial: a variant trained on one seed, and the scores it ends with.

All trials of a seed have equal budgets: the same number of steps on the same batches. The
learning rate is constant for two thirds of the steps, then falls linearly to zero. Batch-norm
statistics are recomputed before every evaluation, since moving averages mislead.
"""

from __future__ import annotations

import io
import math
import time
from collections.abc import Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass
from itertools import count
from typing import NamedTuple

import torch
from torch import Tensor, nn

from reslearn.data import permutation
from reslearn.diagnose.problem import MAX_EVALUATED, Problem
from reslearn.diagnose.signals import UNKNOWN, Signals, measure_signals
from reslearn.diagnose.variant import Variant
from reslearn.evaluate import recompute_batch_norm
from reslearn.train import LearningRate, NonFiniteLossError, fit

WORST_SCORE = 2.0
"""Score of a run that diverged, and upper limit of a training score."""
WORST_HELD_SCORE = 100.0
"""Upper limit of a held-out score: overfitting may go far beyond the loss of guessing."""
CHOICE_SEED = 1000
"""Learning rates are chosen on this seed, and no verdict uses it."""
_CONSTANT_SHARE = 2 / 3
_EVALUATION_BATCH = 250
_READINGS = 40


@dataclass(frozen=True, kw_only=True)
class Trial:
    """The result of one training.

    Attributes:
        lr: The learning rate; 0 for a network that was evaluated without training.
        train_score: Score on clean training data at the end, at most WORST_SCORE.
        held_score: Score on held-out data at the end, at most WORST_HELD_SCORE.
        held_at_half: Score on held-out data after half of the steps.
        train_error_pct: Training error; None for regression.
        curve: Pairs (step, score on running batches).
        start: Signals before training, if they were asked for.
        end: Signals after training, if they were asked for.
    """

    variant: str
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


class TrialResult(NamedTuple):
    """A trial, and the weights it ended with if they were asked for (else empty)."""

    trial: Trial
    weights: bytes


@dataclass(frozen=True, eq=False)
class PlannedTrial:
    """A trial to run, here or in another process.

    Attributes:
        name: Recorded in place of the variant's name.
        with_weights: Return the trained weights too.
    """

    variant: Variant
    lr: float
    seed: int
    steps: int
    name: str | None = None
    with_weights: bool = False

    def run(self) -> TrialResult:
        """Train the variant; measure its signals if it is the unchanged network."""
        variant, net = self.variant, self.variant.make(self.seed)
        trial = run_trial(
            variant.problem,
            net,
            variant=self.name or variant.name,
            lr=self.lr,
            seed=self.seed,
            steps=self.steps,
            with_signals=self.name is None and variant.name == "deep",
        )
        weights = io.BytesIO()
        if self.with_weights:
            torch.save(net.state_dict(), weights)
        return TrialResult(trial, weights.getvalue())


def run_trial(
    problem: Problem,
    net: nn.Module,
    *,
    variant: str,
    lr: float,
    seed: int,
    steps: int,
    with_signals: bool = False,
) -> Trial:
    """Train `net` in place and evaluate it.

    The order of the examples and the network's own random numbers (dropout) follow from `seed`.
    The global generator is restored.

    Args:
        variant: Name to record.
        with_signals: Measure gradients and dead units too, which takes a while.
    """
    start_time = time.monotonic()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        start = measure_signals(net, problem) if with_signals else UNKNOWN
        curve, held_at_half, diverged = _train(problem, net, lr=lr, seed=seed, steps=steps)
        scores = _EndScores(WORST_SCORE, None, WORST_SCORE)
        end = UNKNOWN
        if not diverged:
            scores = _evaluate(net, problem)
            if with_signals:
                end = measure_signals(net, problem)
    return Trial(
        variant=variant,
        lr=lr,
        seed=seed,
        steps=steps,
        train_score=scores.train,
        held_score=scores.held_out,
        held_at_half=held_at_half,
        train_error_pct=scores.train_error_pct,
        diverged=diverged,
        curve=tuple(curve),
        start=start,
        end=end,
        seconds=time.monotonic() - start_time,
    )


def evaluate_untrained(
    problem: Problem, net: nn.Module, *, variant: str, seed: int, steps: int
) -> Trial:
    """Return the scores of `net` without training it or changing its batch-norm statistics.

    `steps` is recorded: the number of steps of the trials that it is compared with.
    """
    start_time = time.monotonic()
    scores = _evaluate(net, problem, recompute=False)
    return Trial(
        variant=variant,
        lr=0.0,
        seed=seed,
        steps=steps,
        train_score=scores.train,
        held_score=scores.held_out,
        held_at_half=scores.held_out,
        train_error_pct=scores.train_error_pct,
        diverged=False,
        curve=(),
        start=UNKNOWN,
        end=UNKNOWN,
        seconds=time.monotonic() - start_time,
    )


def judged_trials(trials: Sequence[Trial], variant: str, steps: int) -> list[Trial]:
    """Return the trials of a variant that a verdict after `steps` rests on, one per seed."""
    return [
        trial
        for trial in trials
        if trial.variant == variant and trial.steps == steps and trial.seed != CHOICE_SEED
    ]


def batches(problem: Problem, seed: int, start_step: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield full batches without end, in the order of `seed`, beginning at `start_step`."""
    num, size = len(problem.inputs), problem.batch_size
    first_epoch, first_batch = divmod(start_step, num // size)
    for epoch in count(first_epoch):
        order = permutation(seed, epoch, num)  # once per epoch: it sorts all indices
        for first in range(first_batch * size, num - size + 1, size):
            index = order[first : first + size]
            yield problem.inputs[index], problem.targets[index]
        first_batch = 0


def _train(
    problem: Problem, net: nn.Module, *, lr: float, seed: int, steps: int
) -> tuple[list[tuple[int, float]], float, bool]:
    """Train `net` in place; return the curve, the held-out score at half, whether it diverged."""
    curve: list[tuple[int, float]] = []
    held_at_half = WORST_SCORE
    half = steps // 2

    def train_part(start_step: int, num_steps: int) -> None:
        readings = fit(
            net,
            batches(problem, seed, start_step),
            problem.loss,
            optimizer,
            steps=num_steps,
            read_every_steps=max(1, steps // _READINGS),
            learning_rate=LearningRate(lambda step: _lr_factor(start_step + step, steps)),
        )
        for reading in readings:
            curve.append((start_step + reading.step, _score(reading.loss, problem)))

    try:
        optimizer = problem.make_optimizer(net.parameters(), lr)
        train_part(0, half)
        held_at_half = _evaluate(deepcopy(net), problem).held_out
        train_part(half, steps - half)
    except NonFiniteLossError:
        return curve, held_at_half, True
    return curve, held_at_half, False


def _lr_factor(step: float, steps: int) -> float:
    num_constant = _CONSTANT_SHARE * steps
    return 1.0 if step < num_constant else (steps - step) / (steps - num_constant)


class _EndScores(NamedTuple):
    """Scores on clean data; the error is None for regression."""

    train: float
    train_error_pct: float | None
    held_out: float


@torch.no_grad()
def _evaluate(net: nn.Module, problem: Problem, *, recompute: bool = True) -> _EndScores:
    """Evaluate `net` on clean data.

    If `recompute`, the batch-norm statistics in `net` are recomputed on training inputs.
    """
    x, y = problem.inputs[:MAX_EVALUATED], problem.targets[:MAX_EVALUATED]
    if recompute:
        parts = torch.split(x, _EVALUATION_BATCH)
        recompute_batch_norm(net, [(part, part) for part in parts])
    was_training = net.training
    net.eval()
    outputs = _outputs(net, x)
    held_outputs = _outputs(net, problem.held_inputs[:MAX_EVALUATED])
    net.train(was_training)
    error_pct = None
    if problem.task == "classification":
        error_pct = 100 * float((outputs.argmax(1) != y).float().mean())
    held_loss = float(problem.loss(held_outputs, problem.held_targets[:MAX_EVALUATED]))
    return _EndScores(
        train=_score(float(problem.loss(outputs, y)), problem),
        train_error_pct=error_pct,
        held_out=_score(held_loss, problem, worst=WORST_HELD_SCORE),
    )


def _outputs(net: nn.Module, inputs: Tensor) -> Tensor:
    return torch.cat([net(part) for part in torch.split(inputs, _EVALUATION_BATCH)])


def _score(loss: float, problem: Problem, *, worst: float = WORST_SCORE) -> float:
    return min(worst, loss / problem.guess_loss) if math.isfinite(loss) else worst
