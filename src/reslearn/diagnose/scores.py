"""What the trials measured, and comparisons of two variants by it."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from reslearn.study import (
    Answer,
    Comparison,
    Interval,
    compare,
    count_text,
    margin_test,
    number_text,
    summary,
)

MARGIN = 0.05
"""The smallest difference between scores that counts."""
NETWORKS = {
    "deep": "the deep network",
    "shallow": "the shallow network",
    "shallowest": "the shallowest network",
    "shortcuts": "the network with shortcuts",
    "standardized": "the network on standardized inputs",
    "initialized": "the newly initialized network",
    "wide": "the wide network",
    "given": "the network at the given learning rate",
    "constructed": "the constructed network",
    "continued": "the constructed network after further training",
}
"""How texts call the network of each variant."""


@dataclass(frozen=True, kw_only=True)
class Scores:
    """The measurements that a verdict rests on.

    `train`, `held_out` and `held_at_half` hold scores by variant: one per seed, paired by position.
    Three names are no variants. "given" is the deep network at the user's learning rate.
    "constructed" is the deep network that computes what the trained shallow one does. "continued"
    is the constructed network after further training. The last two do not decide anything.

    Attributes:
        train: Scores on training data at the end.
        held_out: Scores on held-out data at the end.
        held_at_half: Scores on held-out data after half of the steps.
        neighbors: Held-out score of nearest neighbors.
        looks: How often the rules may be applied to growing numbers of seeds.
        is_short: Scores are from short trials, which are not enough for some verdicts.
        fault: A fault of the data that was found before training, as a sentence.
        untrained: A proof that the optimizer does not get all weights, as sentences.
        output_layer: A proof that the output layer bounds the loss, as sentences.
        num_layers: None if the network cannot be traced.
        response_ratio: Signal of the last third of layers over the first third, at the start.
        narrows: Describes a layer in a removed block that has fewer values than enter the block.
        gradient_ratios: First third of layers over last third, at start and end, one pair per seed.
        dead_shares: Share of dead units, one per seed.
    """

    train: Mapping[str, Sequence[float]]
    held_out: Mapping[str, Sequence[float]]
    held_at_half: Mapping[str, Sequence[float]]
    neighbors: float
    looks: int = 1
    is_short: bool = False
    fault: str = ""
    untrained: str = ""
    output_layer: str = ""
    num_layers: int | None = None
    response_ratio: float | None = None
    narrows: str = ""
    gradient_ratios: Sequence[tuple[float | None, float | None]] = ()
    dead_shares: Sequence[float | None] = ()

    @property
    def confidence(self) -> float:
        """Confidence of each interval: 95 % over all looks together (Bonferroni)."""
        return 1 - 0.05 / self.looks

    def compare(self, first: Sequence[float], second: Sequence[float]) -> Comparison:
        """Compare two lists of scores on the seeds that both have."""
        n = min(len(first), len(second))
        return compare(first[:n], second[:n], paired=True, confidence=self.confidence)

    def interval(self, values: Sequence[float]) -> Interval | None:
        """Return the interval of the mean."""
        return summary(values, confidence=self.confidence).interval

    def training(self, first: str, second: str) -> Comparison | None:
        """Compare the training scores of two variants; None if one of them was not trained."""
        if not self.train.get(first) or not self.train.get(second):
            return None
        return self.compare(self.train[first], self.train[second])


def is_worse(scores: Scores, first: str, second: str) -> Answer:
    """Decide whether variant `first` has a higher training score than variant `second`.

    "yes": the mean difference is above MARGIN and the interval lies above 0. "no": the interval
    lies below MARGIN. "undecided" also if a variant was not trained.
    """
    comparison = scores.training(first, second)
    return "undecided" if comparison is None else exceeds_margin(comparison)


def exceeds_margin(comparison: Comparison) -> Answer:
    """Decide whether a difference is certain and above MARGIN."""
    return margin_test(comparison.interval, MARGIN, mean=comparison.difference)


def comparison_text(scores: Scores, first: str, second: str) -> str:
    """Describe the training scores of two variants and their difference in a sentence."""
    comparison = scores.training(first, second)
    assert comparison is not None, "a rule describes what it compared"
    return (
        f"{NETWORKS[first].capitalize()} has training loss {mean_text(scores.train[first])}, and "
        f"{NETWORKS[second]} has {mean_text(scores.train[second])}: "
        f"a difference of {difference_text(scores, comparison)}, {count_text(comparison.n_a)}."
    )


def difference_text(scores: Scores, comparison: Comparison) -> str:
    """Format the difference of a comparison with its interval at the confidence of `scores`."""
    return number_text(
        comparison.difference,
        signed=True,
        interval=comparison.interval,
        confidence=scores.confidence,
    )


def mean_text(values: Sequence[float]) -> str:
    """Format a mean with its standard deviation over seeds, if there are several."""
    deviation = statistics.stdev(values) if len(values) > 1 else None
    return number_text(statistics.fmean(values), deviation=deviation)
