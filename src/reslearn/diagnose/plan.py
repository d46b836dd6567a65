"""Plan a diagnosis: how long its trials may be, and which learning rates they use.

A score is a training loss divided by the loss of guessing: 1 is guessing, 0 is perfect.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from reslearn.diagnose.problem import Problem
from reslearn.diagnose.scores import LEARNS, MARGIN
from reslearn.diagnose.user_code import DiagnosisError
from reslearn.diagnose.variant import Variant

MIN_STEPS, MAX_STEPS = 30, 2000
LR_FACTORS = (1 / 16, 1 / 4, 1.0, 4.0)
"""Learning rates that every variant is tried at, as multiples of the problem's rate."""
MAX_WIDENINGS = 4
"""How many more rates a variant is tried at, if its best one lies at an end."""
LR_STEP = 4.0
"""Factor between two learning rates that are tried."""
USUAL_RATES = {
    "SGD": 0.1,
    **dict.fromkeys(("Adam", "AdamW", "NAdam", "RAdam", "RMSprop"), 1e-3),
}
"""Usual learning rates by the class of the optimizer."""
_SPARE_SHARE = 0.1
"""Share of the time that stays unplanned."""
_MEASUREMENT_SECONDS = 20.0
"""The estimate may take this long even if no time is left, since a refusal rests on it."""


@dataclass(kw_only=True)
class Deadline:
    """A limit of time, counted from its creation."""

    seconds: float
    start_time: float = field(default_factory=time.monotonic)

    def elapsed(self) -> float:
        """Return the seconds since the start."""
        return time.monotonic() - self.start_time

    def remaining(self) -> float:
        """Return the seconds until the limit; negative after it."""
        return self.seconds - self.elapsed()


class TrialGroup(NamedTuple):
    """Trials that can run at the same time.

    `length` is the number of steps of each, in units of a short trial. `cost` is the time of one
    step, in units of the unchanged network. Without the trials that are `required`, there is no
    verdict. The others are made while time is left.
    """

    num_trials: int
    length: float
    required: bool = False
    cost: float = 1.0


def look_counts(fewest: int, max_seeds: int) -> list[int]:
    """Return the numbers of seeds after which the rules are applied, as 3, 4, 6, 8."""
    counts = [fewest]
    while counts[-1] < max_seeds:
        step = 1 if len(counts) == 1 else 2
        counts.append(min(max_seeds, counts[-1] + step))
    return counts


def speedup(num_trials: int, jobs: int) -> float:
    """Return how much faster `jobs` processes finish equal trials than one process does."""
    return num_trials / math.ceil(num_trials / jobs)


def fitting_steps(
    groups: Sequence[TrialGroup],
    deadline: Deadline,
    measure_seconds: Callable[[int], float],
    *,
    jobs: int = 1,
) -> int:
    """Return the steps of a short trial so that all groups fit into the remaining time.

    If they do not fit even with MIN_STEPS, but the required groups do, the result is MIN_STEPS.

    Args:
        groups: All trials that may be needed.
        measure_seconds: Runs trials of a number of steps, `jobs` of them at once, and returns the
            seconds.

    Raises:
        DiagnosisError: If the time does not suffice for the required groups with MIN_STEPS.
    """
    measure_seconds(1)  # not counted: the first step waits for imports of torch, for seconds
    seconds_per_trial = measure_seconds(2)
    if 12 * seconds_per_trial <= max(deadline.remaining(), _MEASUREMENT_SECONDS):
        seconds_per_step = max(1e-5, (measure_seconds(22) - seconds_per_trial) / 20)
    else:
        seconds_per_step = seconds_per_trial / 4  # a step, and half of the time is evaluation
    cost = _Cost(seconds_per_trial, seconds_per_step, jobs)
    planned = (1 - _SPARE_SHARE) * deadline.remaining()
    start_up, per_step = cost.of(groups)
    steps = int((planned - start_up) / per_step)
    if steps >= MIN_STEPS:
        return min(MAX_STEPS, steps)
    required = cost.seconds_of_shortest(group for group in groups if group.required)
    if required <= planned:
        return MIN_STEPS
    elapsed, everything = deadline.elapsed(), cost.seconds_of_shortest(groups)
    raise DiagnosisError(
        f"minutes is {deadline.seconds / 60:g}: too few for this network on this machine; "
        f"give {_minutes(required + elapsed)} or more, and {_minutes(everything + elapsed)} for "
        f"all trials that may be needed (estimated from trials of the network: "
        f"{seconds_per_trial:.2g} s each, and {seconds_per_step:.2g} s per step)"
    )


class _Cost(NamedTuple):
    """The measured cost of trials. `jobs` of them run at the same time."""

    seconds_per_trial: float
    seconds_per_step: float
    jobs: int

    def of(self, groups: Iterable[TrialGroup]) -> tuple[float, float]:
        """Return the seconds without steps, and the seconds per step of a short trial."""
        start_up, per_step = 0.0, 0.0
        for group in groups:
            rounds = math.ceil(group.num_trials / self.jobs)
            start_up += rounds * group.cost * self.seconds_per_trial
            per_step += rounds * group.length * group.cost * self.seconds_per_step
        return start_up, per_step

    def seconds_of_shortest(self, groups: Iterable[TrialGroup]) -> float:
        """Return the seconds of all groups if a short trial has MIN_STEPS, the fewest of any."""
        lengthened = [group._replace(length=max(1.0, group.length)) for group in groups]
        start_up, per_step = self.of(lengthened)
        return start_up + MIN_STEPS * per_step


def _minutes(seconds: float) -> int:
    return math.ceil(seconds / (1 - _SPARE_SHARE) / 60)


class RateChoice(NamedTuple):
    """The learning rate of a variant, and its training scores by rate in short trials."""

    lr: float
    scores: dict[float, float]


Candidate = tuple[Variant, float]
TryRates = Callable[[Sequence[Candidate]], list[float]]
"""Trains each variant at its rate and returns the training scores."""


def choose_rates(variants: Sequence[Variant], try_rates: TryRates) -> dict[str, RateChoice]:
    """Choose a learning rate for each variant, by the training score of short trials."""
    scores: dict[str, dict[float, float]] = {variant.name: {} for variant in variants}
    candidates: list[Candidate] = []
    usual = usual_rate(variants[0].problem)  # variants share the class of the optimizer
    for variant in variants:
        candidates += [(variant, lr) for lr in first_rates(variant.problem.lr, usual)]
    while candidates:
        for (variant, lr), score in zip(candidates, try_rates(candidates), strict=True):
            scores[variant.name][lr] = score
        unsettled = {variant.name: variant for variant, _ in candidates}
        candidates = []
        for variant in unsettled.values():
            if len(scores[variant.name]) < len(LR_FACTORS) + MAX_WIDENINGS:
                candidates += [(variant, lr) for lr in further_rates(scores[variant.name])]
    choices = {}
    for variant in variants:
        lr = chosen_rate(scores[variant.name], usual=variant.problem.lr)
        choices[variant.name] = RateChoice(lr, scores[variant.name])
    return choices


def checked_rates(
    variants: Sequence[Variant], choices: Mapping[str, RateChoice], try_rates: TryRates
) -> dict[str, RateChoice]:
    """Try each chosen rate on a second seed; while it fails there, take the next smaller rate.

    A rate fails if it learns on the first seed and not on the second one. If no smaller rate
    passes, the choice stays.
    """
    checked = dict(choices)
    remaining = {
        variant.name: sorted(_learning_rates(choices[variant.name]), reverse=True)
        for variant in variants
    }
    pending = [variant for variant in variants if remaining[variant.name]]
    while pending:
        candidates = [(variant, remaining[variant.name].pop(0)) for variant in pending]
        pending = []
        for (variant, lr), score in zip(candidates, try_rates(candidates), strict=True):
            if score <= LEARNS:
                checked[variant.name] = choices[variant.name]._replace(lr=lr)
            elif remaining[variant.name]:
                pending.append(variant)
    return checked


def _learning_rates(choice: RateChoice) -> list[float]:
    """Return the chosen rate and smaller ones, as far as they learn."""
    return [lr for lr, score in choice.scores.items() if lr <= choice.lr and score <= LEARNS]


def retune_rates(
    variants: Sequence[Variant], choices: Mapping[str, RateChoice], try_rates: TryRates
) -> dict[str, RateChoice]:
    """Choose the learning rates again, by longer trials.

    A rate that is stable in a short trial may diverge in a long one, so the next smaller rate is
    tried too. If no rate learned in short trials, they did not separate rates, and all rates are
    tried again.

    Returns:
        The new rates, with the scores of the short trials.
    """
    candidates: list[Candidate] = []
    for variant in variants:
        choice, usual = choices[variant.name], variant.problem.lr
        rates = {choice.lr, choice.lr / LR_STEP}
        if not variant.problem.lr_is_given:
            rates.add(usual)  # a given rate is judged in any case
        if choice.scores and not learns(choice.scores):
            rates |= {usual * factor for factor in LR_FACTORS}
        candidates += [(variant, lr) for lr in sorted(rates)]
    scores: dict[str, dict[float, float]] = {variant.name: {} for variant in variants}
    for (variant, lr), score in zip(candidates, try_rates(candidates), strict=True):
        scores[variant.name][lr] = score
    retuned = {}
    for variant in variants:
        lr = chosen_rate(scores[variant.name], usual=variant.problem.lr)
        retuned[variant.name] = RateChoice(lr, choices[variant.name].scores)
    return retuned


def learns(scores: Mapping[float, float]) -> bool:
    """Return whether a score is better than guessing by MARGIN or more.

    Args:
        scores: Training score by learning rate, as in the functions below.
    """
    return min(scores.values()) <= 1 - MARGIN


def chosen_rate(scores: Mapping[float, float], *, usual: float) -> float:
    """Return the smallest rate whose score is within half the MARGIN of the best.

    The largest such rate may train one seed and fail on another. If no rate learns anything,
    return `usual`, provided that it does no harm: scores of guessing do not separate rates.
    """
    limit = min(scores.values()) + MARGIN / 2
    if not learns(scores) and scores.get(usual, math.inf) <= min(limit, 1 + MARGIN):
        return usual
    return min(lr for lr, score in scores.items() if score <= limit)


def first_rates(user_lr: float, usual: float | None) -> list[float]:
    """Return the rates to try first: multiples of the user's, and the usual one if far off.

    A rate that is a thousand times too low is further away than the widenings reach.
    """
    rates = [user_lr * factor for factor in LR_FACTORS]
    if usual is None or min(rates) / LR_STEP <= usual <= max(rates) * LR_STEP:
        return rates
    return [*rates, usual]


def usual_rate(problem: Problem) -> float | None:
    """Return the usual rate of an optimizer of this class; None if it is unknown."""
    optimizer = problem.make_optimizer(problem.net(0).parameters(), problem.lr)
    return USUAL_RATES.get(type(optimizer).__name__)


def further_rates(scores: Mapping[float, float]) -> list[float]:
    """Return one more rate to try, beyond the smallest or the largest, or none.

    Another rate is worthwhile if the best one lies at an end, and if either its score gained more
    than MARGIN over its neighbor or no rate learns yet. Equal scores, as of losses far above that
    of guessing, show no direction, so one rate is tried at each end.
    """
    rates = sorted(scores)
    if len(rates) < 2:
        return []
    best = min(rates, key=lambda lr: scores[lr])
    if max(scores.values()) == scores[best]:
        return [rates[0] / LR_STEP, rates[-1] * LR_STEP]
    if best not in (rates[0], rates[-1]):
        return []
    neighbor = rates[1] if best == rates[0] else rates[-2]
    if scores[neighbor] - scores[best] <= MARGIN and learns(scores):
        return []
    return [best / LR_STEP if best == rates[0] else best * LR_STEP]
