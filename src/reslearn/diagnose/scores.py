"""What the trials measured, and comparisons of two variants by it."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

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
LEARNS = 1 - MARGIN
"""A network that ends at or below this score has learned something."""
CURED = 0.7
"""A network that learned nothing before a change, and ends at or below this score, is cured."""
SCALE_GAIN = 3.0
"""Few steps show unscaled inputs only if the loss is so many times as high as on scaled ones."""
HALFWAY = 0.5
"""A network that ends at or below this score has learned half of what there is to learn."""
AT_GIVEN_RATE = " at the given rate"
"""Ends the name of a variant that is trained at the user's learning rate."""
_LEAST_RATIO_SCORE = MARGIN / 10
"""Ratios of scores below this one say nothing: both networks fit the data."""
NETWORKS = {
    "deep": "the deep network",
    "shallow": "the shallow network",
    "shallowest": "the shallowest network",
    "shortcuts": "the network with shortcuts",
    "standardized": "the network on standardized inputs",
    "initialized": "the newly initialized network",
    "bare": "the network without its output activation",
    "unregularized": "the network without weight decay and dropout",
    "warm-up": "the network with warm-up",
    "clipped": "the network with clipped gradients",
    "wide": "the wide network",
    "given": "the network at the given learning rate",
    "constructed": "the constructed network",
    "continued": "the constructed network after further training",
}
"""How texts call the network of each variant."""


@dataclass(frozen=True, kw_only=True)
class Scores:
    """The measurements that a verdict rests on.

    `train`, `held_out`, `held_at_half` and `train_at_half` hold scores by variant: one per seed,
    paired by position. The name of a variant ends in AT_GIVEN_RATE if it was trained at the user's
    learning rate. Three names are no variants. "given" is the deep network at the user's learning
    rate. "constructed" is the deep network that computes what the trained shallow one does.
    "continued" is the constructed network after further training. The last two decide nothing.

    Attributes:
        train: Scores on training data at the end.
        held_out: Scores on held-out data at the end.
        held_at_half: Scores on held-out data after half of the steps.
        train_at_half: Scores on training data after half of the steps, before the rate falls.
        neighbors: Held-out score of nearest neighbors.
        linear: Training score of a linear model, if the network has at least as many parameters.
        looks: How often the rules may be applied to growing numbers of seeds.
        is_short: Scores are from short trials, which are not enough for some verdicts.
        is_extended: The deep network and the shallower one had further steps in addition.
        fault: A fault of the data that was found before training, as a sentence.
        untrained: A proof that the optimizer does not get all weights, as sentences.
        output_layer: A proof that the output layer bounds the loss, as sentences.
        num_layers: None if the network cannot be traced.
        response_ratio: Signal of the last third of layers over the first third, at the start.
        narrows: Describes a layer in a removed block that has fewer values than enter the block.
        gradient_ratios: First third of layers over last third, at start and end, one pair per seed.
        dead_shares: Share of dead units, one per seed.
        signal: What the initial weights do to the signal: "vanishing", "exploding", "equal units",
            or an empty text.
        given_lr: The learning rate that the user gave; 0 without one.
        best_lr: The best learning rate of the deep network; 0 if it is unknown.
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
    train_at_half: Mapping[str, Sequence[float]] = field(default_factory=dict)
    linear: float = math.inf
    is_extended: bool = False
    signal: str = ""
    given_lr: float = 0.0
    best_lr: float = 0.0

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

    def mean(self, name: str) -> float:
        """Return the mean training score of a variant."""
        return statistics.fmean(self.train[name])

    def is_below_margin(self, name: str) -> bool:
        """Return whether a variant surely ends below MARGIN, so that nothing could be better."""
        interval = self.interval(self.train.get(name, ())) if self.train.get(name) else None
        return interval is not None and interval.high < MARGIN

    @property
    def gains_by_scaling(self) -> bool:
        """Whether scaled inputs were tried, and the loss is SCALE_GAIN times the loss on them."""
        if not self.train.get("standardized"):
            return False
        return self.mean("deep") >= SCALE_GAIN * self.mean("standardized")

    def learns(self, name: str) -> bool:
        """Return whether a variant learns on average."""
        return bool(self.train.get(name)) and self.mean(name) <= LEARNS


def is_worse(scores: Scores, first: str, second: str) -> Answer:
    """Decide whether variant `first` has a higher training score than variant `second`.

    "yes": the mean difference is above MARGIN, and the interval lies above 0, or more seeds of
    `first` learn nothing (`fails_more_often`). If only the rate or the scale of the inputs differs,
    it is enough that the interval of the ratio lies above 1 (`is_several_times_worse`). Of two
    different networks, one may only learn faster. "no": the interval lies below MARGIN. "undecided"
    also if a variant was not trained.
    """
    comparison = scores.training(first, second)
    if comparison is None:
        return "undecided"
    if comparison.difference > MARGIN:
        if fails_more_often(scores, first, second):
            return "yes"
        is_same_network = first == "given" or second == "standardized"
        if is_same_network and is_several_times_worse(scores, first, second):
            return "yes"
    return exceeds_margin(comparison)


def is_several_times_worse(scores: Scores, first: str, second: str) -> bool:
    """Return whether the ratio of two scores is certainly above 1.

    Losses of networks that learn at different speeds are skewed: 0.02 on one seed, 0.4 on another.
    Then a t interval of their difference is too wide, and one of their ratio is not. A single seed
    does not decide: the median difference must be above MARGIN too.
    """
    pairs = list(zip(scores.train[first], scores.train[second], strict=False))
    if statistics.median(a - b for a, b in pairs) <= MARGIN:
        return False
    first_logarithms, second_logarithms = (
        _logarithms(values) for values in zip(*pairs, strict=True)
    )
    interval = scores.compare(first_logarithms, second_logarithms).interval
    return interval is not None and interval.low > 0


def _logarithms(values: Sequence[float]) -> list[float]:
    return [math.log(max(score, _LEAST_RATIO_SCORE)) for score in values]


def fails_more_often(scores: Scores, first: str, second: str) -> bool:
    """Return whether more seeds of `first` than of `second` learn nothing, by chance unlikely.

    Scores of networks that learn on some seeds and not on others have two humps, so their t
    intervals are too wide. This is Fisher's exact test, one-sided, at half of the significance of
    the intervals.
    """
    failures = []
    for name in (first, second):
        failures.append(sum(score > LEARNS for score in scores.train[name]))
    sizes = [len(scores.train[name]) for name in (first, second)]
    return fisher_p(failures, sizes) < (1 - scores.confidence) / 2


def fisher_p(failures: Sequence[int], sizes: Sequence[int]) -> float:
    """Return the chance of at least so many failures in the first of two groups.

    Both groups fail equally often by assumption, and the total number of failures is fixed (Fisher
    1935).

    Args:
        failures: Number of failures in each group.
        sizes: Size of each group.
    """
    total = sum(failures)
    max_failures = min(total, sizes[0])
    ways = [
        math.comb(sizes[0], number) * math.comb(sizes[1], total - number)
        for number in range(failures[0], max_failures + 1)
    ]
    return sum(ways) / math.comb(sum(sizes), total)


def exceeds_margin(comparison: Comparison) -> Answer:
    """Decide whether a difference is certain and above MARGIN."""
    return margin_test(comparison.interval, MARGIN, mean=comparison.difference)


def comparison_text(scores: Scores, first: str, second: str) -> str:
    """Describe the training scores of two variants and their difference in a sentence."""
    comparison = scores.training(first, second)
    assert comparison is not None, "a rule describes what it compared"
    return (
        f"{_capitalized(first)} has training loss {mean_text(scores.train[first])}, and "
        f"{network_text(second)} has {mean_text(scores.train[second])}: "
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


def network_text(name: str) -> str:
    """Return how texts call the network of a variant, as "the deep network"."""
    if name.endswith(AT_GIVEN_RATE):
        return f"{NETWORKS[name.removesuffix(AT_GIVEN_RATE)]}{AT_GIVEN_RATE}"
    return NETWORKS[name]


def mean_text(values: Sequence[float]) -> str:
    """Format a mean with its standard deviation over seeds, if there are several."""
    deviation = statistics.stdev(values) if len(values) > 1 else None
    return number_text(statistics.fmean(values), deviation=deviation)


def _capitalized(name: str) -> str:
    text = network_text(name)
    return f"{text[:1].upper()}{text[1:]}"
