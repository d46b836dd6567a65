"""What an undecided diagnosis suspects: the leading cause, and what speaks for and against it."""

from __future__ import annotations

from typing import NamedTuple

from reslearn.diagnose.scores import LEARNS, MARGIN, Scores, comparison_text, mean_text
from reslearn.diagnose.verdict_rules import VerdictName

_PAIRS: tuple[tuple[VerdictName, str, str, str], ...] = (
    ("degradation", "depth", "deep", "shallow"),
    ("degradation", "depth", "deep", "shallowest"),
    ("vanishing or exploding signal", "the initial weights", "deep", "initialized"),
    ("data fault", "the scale of the inputs", "deep", "standardized"),
    ("output layer", "the activation behind the last weights", "deep", "bare"),
    ("too much regularization", "too much regularization", "deep", "unregularized"),
    ("bad learning rate", "the learning rate given", "given", "deep"),
    ("bad learning rate", "a start without warm-up", "deep", "warm-up"),
    ("bad learning rate", "gradients that are too large", "deep", "clipped"),
    ("capacity too small", "too little capacity", "deep", "wide"),
)


class Suspicion(NamedTuple):
    """A cause that is likely and not certain.

    Attributes:
        cause: The cause in words.
        evidence: What speaks for it, as sentences.
        against: What speaks against it, as sentences.
    """

    name: VerdictName
    cause: str
    evidence: str
    against: str


def leading_suspicion(scores: Scores, name: VerdictName | str = "") -> Suspicion | None:
    """Return the cause whose removal helps most on average, by more than MARGIN.

    Args:
        name: Only causes of this verdict; empty for all.

    Returns:
        None if nothing helps by so much.
    """
    best: tuple[float, tuple[VerdictName, str, str, str]] | None = None
    for pair in _PAIRS:
        comparison = scores.training(*pair[2:])
        if comparison is None or name not in ("", pair[0]):
            continue
        gain = comparison.difference
        if gain > MARGIN and (best is None or gain > best[0]):
            best = (gain, pair)
    if best is None:
        return None
    verdict, cause, first, second = best[1]
    evidence = comparison_text(scores, first, second)
    return Suspicion(verdict, cause, evidence, _against(scores, first, second))


def _against(scores: Scores, first: str, second: str) -> str:
    comparison = scores.training(first, second)
    assert comparison is not None, "the pair was compared"
    sentences = []
    if comparison.interval is None:
        sentences.append("A single seed was judged.")
    elif comparison.interval.low <= 0:
        sentences.append("The seeds disagree, so the difference may be chance.")
    if scores.is_short:
        sentences.append("The trials were short, so the difference may only be a slow start.")
    half = scores.train_at_half.get(first)
    if half and not scores.is_short and sum(half) / len(half) - scores.mean(first) > MARGIN:
        sentences.append(
            f"Its loss is still falling: it was {mean_text(half)} after half of the steps."
        )
    if scores.mean(second) > LEARNS:
        sentences.append("The other network hardly learns either.")
    if scores.narrows and second in ("shallow", "shallowest"):
        sentences.append(f"A removed block is a bottleneck: {scores.narrows}.")
    return " ".join(sentences) or "Another cause fits as well."
