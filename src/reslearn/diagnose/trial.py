"""One trial: a variant trained on one seed, and the scores it ends with.

All trials of a seed have equal budgets: the same number of steps on the same batches. The
learning rate is constant for two thirds of the steps, then falls linearly to zero. So the scores
after half of the steps show the network at its own rate, without decay. Batch-norm statistics are
recomputed before every evaluation, since moving averages mislead.
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
from reslearn.diagnose.variant import Regime, Variant
from reslearn.evaluate import recompute_batch_norm
from reslearn.train import LearningRate, NonFiniteLossError, fit

WORST_SCORE = 2.0
"""Score of a run that diverged, and upper limit of a training score."""
WORST_HELD_SCORE = 100.0
"""Upper limit of a held-out score: overfitting may go far beyond the loss of guessing."""
CHOICE_SEED = 1000
"""Learning rates are chosen on this seed, and no verdict uses it."""
CLIP_NORM = 1.0
"""Norm to which the variant "clipped" scales gradients that are larger."""
_WARM_UP_SHARE = 0.2
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
        train_at_half: Score on training data after half of the steps, before the rate falls.
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
    train_at_half: float = WORST_SCORE


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
            regime=variant.regime,
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
    regime: Regime | None = None,
) -> Trial:
    """Train `net` in place and evaluate it.

    The order of the examples and the network's own random numbers (dropout) follow from `seed`.
    The global generator is restored.

    Args:
        variant: Name to record.
        with_signals: Measure gradients and dead units too, which takes a while.
        regime: By default, training without warm-up and clipped gradients.
    """
    start_time = time.monotonic()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(problem.random_seed(seed))
        start = measure_signals(net, problem) if with_signals else UNKNOWN
        training = _Training(problem, net, lr, seed, steps, regime or Regime())
        training.run()
        scores = _DIVERGED
        end = UNKNOWN
        if not training.diverged:
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
        held_at_half=training.at_half.held_out,
        train_at_half=training.at_half.train,
        train_error_pct=scores.train_error_pct,
        diverged=training.diverged,
        curve=tuple(training.curve),
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
        train_at_half=scores.train,
        train_error_pct=scores.train_error_pct,
        diverged=False,
        curve=(),
        start=UNKNOWN,
        end=UNKNOWN,
        seconds=time.monotonic() - start_time,
    )


def judged_trials(
    trials: Sequence[Trial], variant: str, steps: int, lr: float | None = None
) -> list[Trial]:
    """Return the trials of a variant that a verdict after `steps` rests on, one per seed.

    Args:
        lr: Only trials at this learning rate; None for any rate.
    """
    return [
        trial
        for trial in trials
        if trial.variant == variant
        and trial.steps == steps
        and trial.seed < CHOICE_SEED
        and lr in (None, trial.lr)
    ]


def batches(problem: Problem, seed: int, start_step: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield full batches without end, in the order of `seed`, beginning at `start_step`."""
    num, size = len(problem.inputs), problem.batch_size
    first_epoch, first_batch = divmod(start_step, num // size)
    for epoch in count(first_epoch):
        # Once per epoch, because it sorts all indices.
        order = permutation(problem.random_seed(seed), epoch, num)
        for first in range(first_batch * size, num - size + 1, size):
            index = order[first : first + size]
            yield problem.inputs[index], problem.targets[index]
        first_batch = 0


class _Training:
    """The training of one trial: its curve, and its scores after half of the steps."""

    def __init__(
        self, problem: Problem, net: nn.Module, lr: float, seed: int, steps: int, regime: Regime
    ) -> None:
        self.problem, self.net, self.lr, self.seed = problem, net, lr, seed
        self.steps, self.regime = steps, regime
        self.curve: list[tuple[int, float]] = []
        self.at_half = _DIVERGED
        self.diverged = False

    def run(self) -> None:
        """Train the network in place, until the last step or a loss that is not finite."""
        half = self.steps // 2
        try:
            optimizer = self.problem.make_optimizer(self.net.parameters(), self.lr)
            if self.regime.clips_gradients:
                optimizer.register_step_pre_hook(self._clip_gradients)
            self._train_part(optimizer, 0, half)
            self.at_half = _evaluate(deepcopy(self.net), self.problem)
            self._train_part(optimizer, half, self.steps - half)
        except NonFiniteLossError:
            self.diverged = True

    def _clip_gradients(self, *_: object) -> None:
        nn.utils.clip_grad_norm_(self.net.parameters(), CLIP_NORM)

    def _train_part(
        self, optimizer: torch.optim.Optimizer, start_step: int, num_steps: int
    ) -> None:
        def factor(step: float) -> float:
            return _lr_factor(start_step + step, self.steps, warms_up=self.regime.warms_up)

        readings = fit(
            self.net,
            batches(self.problem, self.seed, start_step),
            self.problem.loss,
            optimizer,
            steps=num_steps,
            read_every_steps=max(1, self.steps // _READINGS),
            learning_rate=LearningRate(factor),
        )
        for reading in readings:
            self.curve.append((start_step + reading.step, _score(reading.loss, self.problem)))


def _lr_factor(step: float, steps: int, *, warms_up: bool = False) -> float:
    num_warm, num_constant = _WARM_UP_SHARE * steps, _CONSTANT_SHARE * steps
    if warms_up and step < num_warm:
        return (step + 1) / (num_warm + 1)
    return 1.0 if step < num_constant else (steps - step) / (steps - num_constant)


class _EndScores(NamedTuple):
    """Scores on clean data; the error is None for regression."""

    train: float
    train_error_pct: float | None
    held_out: float


_DIVERGED = _EndScores(WORST_SCORE, None, WORST_SCORE)


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
