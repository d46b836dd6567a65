"""What the signals of a network say about a verdict: which kind of fault, and in which numbers."""

from __future__ import annotations

import math
import statistics

from reslearn.diagnose.scores import Scores
from reslearn.diagnose.verdict_rules import GRADIENT_RATIO


def signal_subcause(scores: Scores) -> str:
    """Return "vanishing", "exploding", "equal units", or "initialization" if no signal shows it."""
    if scores.signal:
        return scores.signal
    ratios = [start for start, _ in scores.gradient_ratios if start is not None]
    ratio = statistics.median(ratios) if ratios else 1.0
    if ratio <= 1 / GRADIENT_RATIO:
        return "vanishing"
    return "exploding" if ratio >= GRADIENT_RATIO else "initialization"


def gradients_are_extreme(scores: Scores) -> bool:
    """Return whether the median ratio over seeds is extreme at the start and, if known, the end."""
    ratios_at_start = [start for start, _ in scores.gradient_ratios]
    ratios_at_end = [end for _, end in scores.gradient_ratios]
    for ratios_by_seed in (ratios_at_start, ratios_at_end):
        ratios = [ratio for ratio in ratios_by_seed if ratio is not None and not math.isnan(ratio)]
        if ratios and 1 / GRADIENT_RATIO < statistics.median(ratios) < GRADIENT_RATIO:
            return False
    return any(ratio is not None for ratio in ratios_at_start)


def signal_text(scores: Scores) -> str:
    """Describe the signals of the first and the last layers in sentences."""
    starts = [start for start, _ in scores.gradient_ratios if start is not None]
    sentences = []
    if scores.response_ratio is not None:
        sentences.append(
            f"At the start, the signal in the last layers is {scores.response_ratio:.2g} times the "
            "signal in the first layers."
        )
    if starts:
        sentences.append(
            f"The first layers get {statistics.median(starts):.2g} times the gradient of the last."
        )
    return " ".join(sentences) or "The signals of single layers are unknown."
