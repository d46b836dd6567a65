"""What is true of a member whose truth is not by construction: measured at ten times the steps of a short trial, by no operation on it.

The rule, written before any was measured: the network and the shallower one that its builder makes, each at the best of four learning
rates chosen on a seed of its own, five further seeds, paired; scores are training losses as shares of the loss of guessing.
degradation: worse than the shallower by more than MARGIN, the 95 % interval above 0; where that learns nothing either, worse than the
shallowest that its builder makes. bad learning rate: so at its own rate against its best. healthy: neither, the intervals of both end
below MARGIN, and it is better than guessing by more than MARGIN. Anything else is unsettled and is scored nowhere. Of a degraded network
that learns nothing at all it is also right to say that its signal vanishes or explodes.
"""

import statistics
from dataclasses import dataclass
from typing import Any

from benchmarks.depth.members import Member
from torch import nn

from reslearn.diagnose import MARGIN, Problem, run_trial
from reslearn.diagnose.verdict import is_worse
from reslearn.study import compare

DIAGNOSIS_STEPS = 200
STEPS = 10 * DIAGNOSIS_STEPS
SEEDS = 5
LR_FACTORS = (1 / 16, 1 / 4, 1.0, 4.0)
CHOICE_SEED = 2000  # no seed of any diagnosis


@dataclass(frozen=True, kw_only=True)
class Truth:
    """`names`: the verdicts that are right; none: unsettled. `measured`: what it rests on, {} by construction."""

    names: tuple[str, ...]
    measured: dict[str, Any]


def truth_of(member: Member, *, steps: int = STEPS, seeds: int = SEEDS) -> Truth:
    """By construction, or measured now."""
    if member.shallow is None:
        return Truth(names=member.truths, measured={})
    scores: dict[str, list[float]] = {}
    rates: dict[str, float] = {}
    for name, build in (
        ("deep", member.build),
        ("shallow", member.shallow),
        ("shallowest", member.shallowest),
    ):
        if build is None or (
            name == "shallowest"
            and any(statistics.fmean(one) <= 1 - MARGIN for one in scores.values())
        ):
            continue
        problem = member.problem(build)
        rates[name] = _best_rate(problem, steps)
        scores[name] = [_score(problem, rates[name], seed, steps) for seed in range(seeds)]
    if rates["deep"] != member.lr:
        scores["given"] = [
            _score(member.problem(), member.lr, seed, steps) for seed in range(seeds)
        ]
    return Truth(names=settle(scores), measured={"steps": steps, "rates": rates, "scores": scores})


def settle(scores: dict[str, list[float]]) -> tuple[str, ...]:
    """The rule above."""
    is_fine = True
    for a, b, name in (
        ("deep", "shallow", "degradation"),
        ("deep", "shallowest", "degradation"),
        ("given", "deep", "bad learning rate"),
    ):
        if a in scores and b in scores:
            found = compare(scores[a], scores[b], paired=True)
            assert found.interval is not None, "five seeds have an interval"
            if is_worse(found):
                learns_nothing = (
                    name == "degradation" and statistics.fmean(scores["deep"]) > 1 - MARGIN
                )
                return (name, "vanishing or exploding signal") if learns_nothing else (name,)
            is_fine = is_fine and found.interval.high < MARGIN
    return ("healthy",) if is_fine and statistics.fmean(scores["deep"]) < 1 - MARGIN else ()


def _best_rate(problem: Problem, steps: int) -> float:
    return min(
        (problem.lr * part for part in LR_FACTORS),
        key=lambda lr: (_score(problem, lr, CHOICE_SEED, steps), lr),
    )


def _score(problem: Problem, lr: float, seed: int, steps: int) -> float:
    net: nn.Module = problem.net(seed)
    return run_trial(problem, net, condition="truth", lr=lr, seed=seed, steps=steps).train_score
