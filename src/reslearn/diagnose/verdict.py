"""Apply the rules that turn scores into a verdict.

The rules were written down, and tuned on one half of benchmarks/depth, before its other half was
evaluated. One rule was added later, for ResNet-56 on CIFAR-10: the rule of slow networks (LOG.md).
It changes no verdict of the benchmark.

All scores are losses divided by the loss of guessing. Each variant is trained at its best of a few
learning rates, chosen on a separate seed, and variants are paired by seed. "Worse" means: the mean
difference is above MARGIN and its interval lies above 0. "Not worse" means: the interval lies
below MARGIN. Rules are applied several times while seeds accumulate, so for k planned looks the
intervals have a confidence of 1 - 0.05 / k (Bonferroni).

A difference after few steps may be only a slow start. So the verdicts of NEED_LONGER are given
only if they hold in longer trials too.
"""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass

from reslearn.diagnose.scores import (
    MARGIN,
    NETWORKS,
    Scores,
    comparison_text,
    difference_text,
    exceeds_margin,
    is_worse,
    mean_text,
)
from reslearn.diagnose.verdict_rules import (
    DEAD_SHARE,
    FEW_LAYERS,
    GRADIENT_RATIO,
    OVERFITTING_GAP,
    VerdictName,
)
from reslearn.study import Comparison, margin_test

FEWEST_SEEDS = 3
NEED_LONGER: tuple[VerdictName, ...] = (
    "degradation",
    "bad learning rate",
    "capacity too small",
    "undecided",
)
_SHALLOWER = ("shallow", "shallowest")


@dataclass(frozen=True, kw_only=True)
class NetworkVerdict:
    """The verdict on a network.

    Attributes:
        reason: Sentences with the numbers that the verdict rests on.
        certain: Whether further seeds are unnecessary.
    """

    name: VerdictName
    reason: str
    certain: bool


def decide(scores: Scores) -> NetworkVerdict:
    """Apply RULES in order; a suspicion from short trials becomes "undecided"."""
    verdict = suspect(scores)
    if scores.is_short and verdict.certain and verdict.name in NEED_LONGER:
        reason = (
            f"Short trials suggest {verdict.name}, and there was no time for the longer trials "
            f"that must confirm it. {verdict.reason}"
        )
        return _undecided(reason)
    return verdict


def suspect(scores: Scores) -> NetworkVerdict:
    """Apply RULES in order, whether trials were short or long."""
    if scores.fault:
        return _certain("data fault", f"{scores.fault[:1].upper()}{scores.fault[1:]}.")
    if scores.untrained:
        return _certain("untrained parameters", scores.untrained)
    if scores.output_layer:
        return _certain("output layer", scores.output_layer)
    if not scores.train.get("deep"):
        return _undecided("Nothing was trained yet.")
    rules = (
        _no_information,
        _unscaled,
        _initialization,
        _depth,
        _learning_rate,
        _capacity,
        _overfitting,
        _healthy,
    )
    for rule in rules:
        verdict = rule(scores)
        if verdict is not None:
            return verdict
    num_seeds = len(scores.train["deep"])
    reason = "No rule applies with the required certainty."
    if num_seeds < FEWEST_SEEDS:
        plural = "s" * (num_seeds > 1)
        reason = f"Only {num_seeds} seed{plural} could be judged in the time. {reason}"
    means = [f"{name} {mean_text(values)}" for name, values in scores.train.items() if values]
    return _undecided(f"{reason} Training losses: {', '.join(means)}.")


def ruled_out(scores: Scores) -> list[str]:
    """Return the causes that are certainly not it, in words."""
    causes = {
        "the learning rate given": ("given", "deep"),
        "the scale of the inputs": ("deep", "standardized"),
        "the initialization": ("deep", "initialized"),
    }
    answers = [cause for cause, pair in causes.items() if is_worse(scores, *pair) == "no"]
    shallower = [name for name in _SHALLOWER if scores.train.get(name)]
    if shallower and all(is_worse(scores, "deep", name) == "no" for name in shallower):
        answers.append("depth")
    if min(scores.neighbors, _best_held_score(scores)) < 1 - MARGIN:
        answers.append("inputs without information")
    return answers


def _certain(name: VerdictName, reason: str) -> NetworkVerdict:
    return NetworkVerdict(name=name, reason=reason, certain=True)


def _undecided(reason: str) -> NetworkVerdict:
    return NetworkVerdict(name="undecided", reason=reason, certain=False)


def _no_information(scores: Scores) -> NetworkVerdict | None:
    best = _best_held_score(scores)
    if min(scores.neighbors, best) < 1 - MARGIN or len(scores.held_out["deep"]) < FEWEST_SEEDS:
        return None
    return _certain(
        "data fault",
        "Nothing beats guessing on held-out data: the best variant has "
        f"{best:.2f} of the loss of guessing, and nearest neighbors have {scores.neighbors:.2f}. "
        "Nothing that was learned carries over. Do the targets belong to these inputs, or are "
        "they shuffled?",
    )


def _best_held_score(scores: Scores) -> float:
    means = [statistics.fmean(values) for values in scores.held_out.values() if values]
    return min(means, default=1.0)


def _unscaled(scores: Scores) -> NetworkVerdict | None:
    if is_worse(scores, "deep", "standardized") != "yes":
        return None
    comparison = comparison_text(scores, "deep", "standardized")
    return _certain("data fault", f"The inputs are not scaled. {comparison}")


def _initialization(scores: Scores) -> NetworkVerdict | None:
    if is_worse(scores, "deep", "initialized") != "yes":
        return None
    if is_worse(scores, "initialized", "shallow") == "yes":
        return None  # new weights do not cure the network, so the rule of depth decides
    comparison = comparison_text(scores, "deep", "initialized")
    dead_shares = [share for share in scores.dead_shares if share is not None]
    if dead_shares and statistics.median(dead_shares) >= DEAD_SHARE:
        share = f"{statistics.median(dead_shares):.0%}"
        return _certain("dead units", f"{share} of the units are dead. {comparison}")
    return _certain("vanishing or exploding signal", f"{comparison} {_signal_text(scores)}")


def _depth(scores: Scores) -> NetworkVerdict | None:
    shallower = next((name for name in _SHALLOWER if is_worse(scores, "deep", name) == "yes"), None)
    if shallower is None:
        return None
    comparison = _compare_with_half_time(scores, shallower)
    if comparison is not None and comparison.difference < -MARGIN:
        return None  # the network is only slow
    sentences = [comparison_text(scores, "deep", shallower)]
    for name in ("constructed", "continued", "shortcuts"):
        if scores.train.get(name):
            subject = NETWORKS[name].capitalize()
            sentences.append(f"{subject} has {mean_text(scores.train[name])}.")
    reason = " ".join(sentences)
    if scores.narrows:
        return _undecided(
            f"{reason} But {scores.narrows}, so the deep network may be unable to compute what the "
            "shallow one does. The cause may be width or depth."
        )
    if not _deep_learns(scores) and _gradients_are_extreme(scores):
        return _certain("vanishing or exploding signal", f"{reason} {_signal_text(scores)}")
    return _certain("degradation", reason)


def _compare_with_half_time(scores: Scores, shallower: str) -> Comparison | None:
    """Compare the deep network at the end with a shallower one after half of the steps.

    Both losses are on held-out data. The difference is negative if the deep network is better. If
    it is better by more than MARGIN, it learns at more than half of the speed. So its higher
    training loss does not show that it would stay worse. Short trials cannot show this: None.
    """
    deep, half = scores.held_out.get("deep"), scores.held_at_half.get(shallower)
    if scores.is_short or not deep or not half:
        return None
    return scores.compare(deep, half)


def _learning_rate(scores: Scores) -> NetworkVerdict | None:
    if is_worse(scores, "given", "deep") != "yes" or not _deep_learns(scores):
        return None
    if statistics.fmean(scores.held_out["given"]) < statistics.fmean(scores.held_out["deep"]):
        return None  # the best rate only fits faster what does not carry over
    return _certain("bad learning rate", comparison_text(scores, "given", "deep"))


def _capacity(scores: Scores) -> NetworkVerdict | None:
    deep, wide = scores.train["deep"], scores.held_out.get("wide", ())
    counterparts = [name for name in (*_SHALLOWER, "shortcuts") if scores.train.get(name)]
    if min(len(deep), len(wide)) < 2 or not (counterparts or _has_few_layers(scores)):
        return None
    if any(is_worse(scores, "deep", name) != "no" for name in counterparts):
        return None
    if exceeds_margin(scores.compare(deep, wide)) != "yes":
        return None
    return _certain(
        "capacity too small",
        f"The network has training loss {mean_text(deep)}, and a wide network has "
        f"{mean_text(wide)} on held-out data.",
    )


def _overfitting(scores: Scores) -> NetworkVerdict | None:
    train, held_out = scores.train["deep"], scores.held_out["deep"]
    half = scores.held_at_half["deep"]
    n = min(len(train), len(held_out), len(half))
    if n < 2:
        return None
    gap = scores.compare(held_out[:n], train[:n]).interval
    rise = scores.compare(held_out[:n], half[:n]).interval
    if margin_test(gap, OVERFITTING_GAP) != "yes":
        return None
    is_rising = margin_test(rise, MARGIN) == "yes"
    is_worse_than_guessing = margin_test(scores.interval(held_out[:n]), 1) == "yes"
    if not (is_rising or is_worse_than_guessing):
        return None
    return _certain(
        "overfitting",
        f"The held-out loss is {mean_text(held_out)} at the end and {mean_text(half)} after half "
        f"of the steps. The training loss is {mean_text(train)}.",
    )


def _healthy(scores: Scores) -> NetworkVerdict | None:
    deep = scores.train["deep"]
    sentences = []
    if not scores.train.get("shallow"):
        if not _has_few_layers(scores):
            return None
        sentences.append(
            f"The network has {scores.num_layers} layers, too few for depth to hurt, and its "
            f"training loss is {mean_text(deep)}."
        )
    for first, second in (("deep", "shallow"), ("given", "deep")):
        comparison = scores.training(first, second)
        if comparison is None:
            continue
        sentences.append(comparison_text(scores, first, second))
        if exceeds_margin(comparison) != "no":
            reason = _slow_text(scores, second) if first == "deep" else ""
            if not reason:
                return None
            sentences.append(reason)
    interval = scores.interval(deep)
    if interval is None or interval.high >= 1 - MARGIN:
        return None
    return _certain("healthy", " ".join(sentences))


def _slow_text(scores: Scores, shallower: str) -> str:
    """Describe a deep network that is surely slow and nothing else; empty if that is not sure."""
    comparison = _compare_with_half_time(scores, shallower)
    if comparison is None or comparison.interval is None:
        return ""
    improvement = comparison.interval.scaled_by(-1)
    if margin_test(improvement, MARGIN, mean=-comparison.difference) != "yes":
        return ""
    return (
        f"It is slow, not degraded: on held-out data it has {mean_text(scores.held_out['deep'])}, "
        f"and {NETWORKS[shallower]} had {mean_text(scores.held_at_half[shallower])} after half of "
        f"the steps, a difference of {difference_text(scores, comparison)}."
    )


def _deep_learns(scores: Scores) -> bool:
    return statistics.fmean(scores.train["deep"]) <= 1 - MARGIN


def _has_few_layers(scores: Scores) -> bool:
    """Return whether there are too few layers for depth to hurt."""
    return scores.num_layers is not None and scores.num_layers <= FEW_LAYERS


def _gradients_are_extreme(scores: Scores) -> bool:
    """Return whether the median ratio over seeds is extreme at the start and, if known, the end."""
    ratios_at_start = [start for start, _ in scores.gradient_ratios]
    ratios_at_end = [end for _, end in scores.gradient_ratios]
    for ratios_by_seed in (ratios_at_start, ratios_at_end):
        ratios = [ratio for ratio in ratios_by_seed if ratio is not None and not math.isnan(ratio)]
        if ratios and 1 / GRADIENT_RATIO < statistics.median(ratios) < GRADIENT_RATIO:
            return False
    return any(ratio is not None for ratio in ratios_at_start)


def _signal_text(scores: Scores) -> str:
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
