"""Which learning rate a condition is judged at: the scores by rate that were tried, and what they say."""

from __future__ import annotations

import math

from reslearn.diagnose.verdict import MARGIN

LR_STEP = 4.0
"""From one rate to the next."""


def learns(scores: dict[float, float]) -> bool:
    """At one of the rates at least, better than guessing by more than MARGIN."""
    return min(scores.values()) <= 1 - MARGIN


def chosen_rate(scores: dict[float, float], *, usual: float) -> float:
    """The smallest whose score by rate is within half the MARGIN of the best: the largest that trains one seed fails on another.

    Where nothing is learned at any, and `usual` does no harm, that: scores of guessing say nothing of rates.
    """
    as_good = min(scores.values()) + MARGIN / 2
    if not learns(scores) and scores.get(usual, math.inf) <= min(as_good, 1 + MARGIN):
        return usual
    return min(lr for lr, score in scores.items() if score <= as_good)


def further_rates(scores: dict[float, float]) -> list[float]:
    """One more, beyond the end at which the best of `scores` by rate lies, if it gained by more than MARGIN there or nothing learns yet."""
    ordered, best = sorted(scores), min(scores, key=lambda lr: (scores[lr], lr))
    if len(ordered) < 2 or best not in (ordered[0], ordered[-1]):
        return []
    beside = ordered[1] if best == ordered[0] else ordered[-2]
    if scores[beside] - scores[best] <= MARGIN and learns(scores):
        return []
    return [best / LR_STEP if best == ordered[0] else best * LR_STEP]
