"""The rules of the learning rate: is the user's rate at fault, or what cures the network at it?

A learning rate that fails may have another cause: unscaled inputs, for example, need a smaller
rate. So the other causes are removed at the user's own rate too. If that cures the network, the
cause is named. If nothing cures it, the rate itself is too high or too low.
"""

from __future__ import annotations

import statistics

from reslearn.diagnose.scores import (
    AT_GIVEN_RATE,
    HALFWAY,
    LEARNS,
    MARGIN,
    Scores,
    comparison_text,
    is_worse,
    mean_text,
)
from reslearn.diagnose.signal_text import signal_subcause
from reslearn.diagnose.verdict_rules import SLOW_FACTOR, NetworkVerdict, VerdictName, certain

_CURES: tuple[tuple[str, VerdictName, str], ...] = (
    ("standardized", "data fault", "scale of the inputs"),
    ("bare", "output layer", "output activation"),
    ("initialized", "vanishing or exploding signal", ""),
    ("warm-up", "bad learning rate", "warm-up missing"),
    ("clipped", "bad learning rate", "too high"),
)
"""Variants at the user's rate, in order, with the verdict if one cures the network."""


def rate_verdict(scores: Scores) -> NetworkVerdict | None:
    """Apply the rules of the learning rate and of warm-up."""
    if not scores.learns("deep"):
        return _warm_up_cures(scores)
    if not is_rate_at_fault(scores):
        return None
    reason = comparison_text(scores, "given", "deep")
    if is_worse(scores, "given", "deep") != "yes":
        reason += f" {_half_text(scores)}"
    for variant, name, subcause in _CURES:
        if _cures(scores, variant):
            cure = comparison_text(scores, "given", f"{variant}{AT_GIVEN_RATE}")
            subcause = subcause or signal_subcause(scores)
            return certain(name, f"{reason} {cure}", subcause)
    subcause = "too high" if scores.given_lr > scores.best_lr else "too low"
    return certain("bad learning rate", reason, subcause)


def is_rate_at_fault(scores: Scores) -> bool:
    """Return whether the network is surely worse at the given rate, and not only less overfitted.

    It is at fault too if the network learns nothing before the rate falls, and would at its best
    rate: a user's rate usually does not fall.
    """
    if not scores.train.get("given"):
        return False
    if rate_fails_before_decay(scores):
        return True
    if is_worse(scores, "given", "deep") != "yes" or is_slow_at_given_rate(scores):
        return False
    return statistics.fmean(scores.held_out["given"]) >= statistics.fmean(scores.held_out["deep"])


def is_slow_at_given_rate(scores: Scores) -> bool:
    """Return whether the given rate only takes more steps than the best one.

    It is at most SLOW_FACTOR times smaller, and at it every seed comes at least halfway.
    """
    ratio = scores.best_lr / scores.given_lr if scores.given_lr else 0.0
    return 1 < ratio <= SLOW_FACTOR and max(scores.train["given"]) <= HALFWAY


def slow_rate_text(scores: Scores) -> str:
    """Say that the given rate is only slow; empty if it is more than that."""
    if not is_slow_at_given_rate(scores):
        return ""
    return (
        f"The given rate is slow, not at fault: the network learns at it, and {scores.best_lr:.3g} "
        "needs fewer steps."
    )


def rate_fails_before_decay(scores: Scores) -> bool:
    """Return whether no seed learns at the given rate without decay, and all do at the best."""
    scores_given, deep = scores.train_at_half.get("given"), scores.train_at_half.get("deep")
    if not scores_given or not deep or len(scores_given) < 2:
        return False
    return min(scores_given) > LEARNS and max(deep) <= LEARNS - MARGIN


def _warm_up_cures(scores: Scores) -> NetworkVerdict | None:
    """Name missing warm-up if the network learns nothing at any rate without it."""
    for name, subcause in (("warm-up", "warm-up missing"), ("clipped", "too high")):
        if is_worse(scores, "deep", name) == "yes":
            return certain("bad learning rate", comparison_text(scores, "deep", name), subcause)
    return None


def _cures(scores: Scores, variant: str) -> bool:
    """Return whether a change at the user's rate cures the network as the best rate does."""
    name = f"{variant}{AT_GIVEN_RATE}"
    if not scores.train.get(name) or is_worse(scores, "given", name) != "yes":
        return False
    return scores.mean(name) <= scores.mean("deep") + MARGIN


def _half_text(scores: Scores) -> str:
    return (
        f"Before the rate falls, after half of the steps, the loss is "
        f"{mean_text(scores.train_at_half['given'])} at the given rate and "
        f"{mean_text(scores.train_at_half['deep'])} at the best one."
    )
