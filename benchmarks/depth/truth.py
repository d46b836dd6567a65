"""The truth of a member that is not known by construction.

It is measured at ten times the steps of a short trial, without any operation on the network. The
rule was written before anything was measured:

- The network and a shallower one from its own builder are trained, each at the best of four
  learning rates. Rates are chosen on a separate seed. Five further seeds are paired. Scores are
  training losses, divided by the loss of guessing.
- degradation: worse than the shallower network by more than MARGIN, with the 95 % interval above 0.
  If the shallower network learns nothing either, the shallowest one takes its place.
- bad learning rate: worse, in the same sense, at its own learning rate than at its best one.
- healthy: neither, both intervals end below MARGIN, and it beats guessing by more than MARGIN.
- Everything else is unsettled and is not scored.

For a degraded network that learns nothing at all, "vanishing or exploding signal" is right too.
"""

import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from benchmarks.depth.members import Member
from torch import nn

from reslearn.diagnose import MARGIN, Problem, run_trial
from reslearn.diagnose.scores import exceeds_margin
from reslearn.study import compare

DIAGNOSIS_STEPS = 200
STEPS = 10 * DIAGNOSIS_STEPS
SEEDS = 5
LR_FACTORS = (1 / 16, 1 / 4, 1.0, 4.0)
CHOICE_SEED = 2000  # no diagnosis uses this seed


@dataclass(frozen=True, kw_only=True)
class Truth:
    """What is true of a member.

    Attributes:
        names: The verdicts that are right; empty if unsettled.
        measured: Steps, rates and scores; empty if the truth is known by construction.
    """

    names: tuple[str, ...]
    measured: dict[str, Any]


def truth_of(member: Member, *, steps: int = STEPS, seeds: int = SEEDS) -> Truth:
    """Return the truth by construction, or measure it."""
    if member.shallow is None:
        return Truth(names=member.truths, measured={})
    scores: dict[str, list[float]] = {}
    rates: dict[str, float] = {}
    builds = {"deep": member.build, "shallow": member.shallow, "shallowest": member.shallowest}
    for name, build in builds.items():
        if build is None or (name == "shallowest" and _anything_learns(scores)):
            continue
        problem = member.problem(build)
        rates[name] = _best_rate(problem, steps)
        scores[name] = [_score(problem, rates[name], seed, steps) for seed in range(seeds)]
    if rates["deep"] != member.lr:
        problem = member.problem()
        scores["given"] = [_score(problem, member.lr, seed, steps) for seed in range(seeds)]
    return Truth(names=settle(scores), measured={"steps": steps, "rates": rates, "scores": scores})


def settle(scores: Mapping[str, list[float]]) -> tuple[str, ...]:
    """Apply the rule above to scores by network, one per seed."""
    deep_learns = statistics.fmean(scores["deep"]) <= 1 - MARGIN
    answers = []
    for first, second, verdict in (
        ("deep", "shallow", "degradation"),
        ("deep", "shallowest", "degradation"),
        ("given", "deep", "bad learning rate"),
    ):
        if first in scores and second in scores:
            answer = exceeds_margin(compare(scores[first], scores[second], paired=True))
            if answer == "yes":
                if verdict == "degradation" and not deep_learns:
                    return (verdict, "vanishing or exploding signal")
                return (verdict,)
            answers.append(answer)
    is_healthy = all(answer == "no" for answer in answers)
    beats_guessing = statistics.fmean(scores["deep"]) < 1 - MARGIN
    return ("healthy",) if is_healthy and beats_guessing else ()


def _anything_learns(scores: Mapping[str, list[float]]) -> bool:
    return any(statistics.fmean(values) <= 1 - MARGIN for values in scores.values())


def _best_rate(problem: Problem, steps: int) -> float:
    rates = sorted(problem.lr * factor for factor in LR_FACTORS)
    return min(rates, key=lambda lr: _score(problem, lr, CHOICE_SEED, steps))


def _score(problem: Problem, lr: float, seed: int, steps: int) -> float:
    net: nn.Module = problem.net(seed)
    return run_trial(problem, net, variant="truth", lr=lr, seed=seed, steps=steps).train_score
