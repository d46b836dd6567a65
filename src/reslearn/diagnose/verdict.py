"""Apply the rules that turn scores into a verdict.

All scores are losses divided by the loss of guessing. Each variant is trained at its best of a few
learning rates, chosen on separate seeds, and variants are paired by seed. "Worse" means: the mean
difference is above MARGIN and its interval lies above 0, or Fisher's exact test shows that more
seeds learn nothing. "Not worse" means: the interval lies below MARGIN. Rules are applied several
times while seeds accumulate, so for k planned looks the intervals have a confidence of
1 - 0.05 / k (Bonferroni).

A difference after few steps may be only a slow start. So the verdicts of NEED_LONGER are given
only if they hold in longer trials too.
"""

from __future__ import annotations

import math
import statistics
from dataclasses import replace
from typing import Literal

from reslearn.diagnose.rate_rules import rate_fails_before_decay, rate_verdict, slow_rate_text
from reslearn.diagnose.scores import (
    CURED,
    LEARNS,
    MARGIN,
    Scores,
    comparison_text,
    difference_text,
    exceeds_margin,
    is_worse,
    mean_text,
    network_text,
)
from reslearn.diagnose.signal_text import (
    gradients_are_extreme,
    signal_subcause,
    signal_text,
)
from reslearn.diagnose.verdict_rules import (
    DEAD_SHARE,
    FEW_LAYERS,
    OVERFITTING_GAP,
    NetworkVerdict,
    VerdictName,
    certain,
)
from reslearn.study import Comparison, margin_test

FEWEST_SEEDS = 3
NEED_LONGER: tuple[VerdictName, ...] = (
    "degradation",
    "bad learning rate",
    "capacity too small",
    "undecided",
)
_MAY_BE_SLOW: tuple[VerdictName, ...] = (
    "vanishing or exploding signal",
    "dead units",
    "output layer",
    "too much regularization",
)
_SHALLOWER = ("shallow", "shallowest")


def decide(scores: Scores) -> NetworkVerdict:
    """Apply RULES in order; a suspicion from short trials becomes "undecided"."""
    verdict = suspect(scores)
    if scores.is_short and verdict.certain and needs_longer(scores, verdict):
        reason = (
            f"Short trials suggest {verdict.name}, and there was no time for the longer trials "
            f"that must confirm it. {verdict.reason}"
        )
        return replace(_undecided(reason, verdict.name), subcause=verdict.subcause)
    return verdict


def needs_longer(scores: Scores, verdict: NetworkVerdict) -> bool:
    """Return whether a verdict must be confirmed in longer trials.

    A network that learns may only learn more slowly than with other weights or another output
    layer. If it learns nothing and would, this is certain after short trials.
    """
    if is_plain(scores, verdict):
        return False
    if verdict.name in NEED_LONGER:
        return True
    return scores.learns("deep") and verdict.name in _MAY_BE_SLOW


def is_plain(scores: Scores, verdict: NetworkVerdict) -> bool:
    """Return whether a verdict holds after few steps: nothing is learned, and the cure works.

    An initial signal that looks healthy may only be slow, so new weights must cure what was
    measured before training: equal units, a signal that vanishes or explodes, or dead units.
    """
    if verdict.subcause == "scale of the inputs" and scores.train.get("standardized"):
        return scores.gains_by_scaling
    if verdict.name == "bad learning rate" and verdict.subcause != "too low":
        scores_given = scores.train.get("given", ())
        return (
            bool(scores_given) and min(scores_given) > LEARNS and max(scores.train["deep"]) <= CURED
        )
    cures = {
        "vanishing or exploding signal": "initialized" if scores.signal else "",
        "dead units": "initialized",
        "output layer": "bare",
        "too much regularization": "unregularized",
    }
    cure = scores.train.get(cures.get(verdict.name, ""), ())
    return bool(cure) and not scores.learns("deep") and max(cure) <= CURED


def suspect(scores: Scores) -> NetworkVerdict:
    """Apply RULES in order, whether trials were short or long."""
    if scores.fault:
        return certain("data fault", f"{scores.fault[:1].upper()}{scores.fault[1:]}.")
    if scores.untrained:
        return certain("untrained parameters", scores.untrained)
    if scores.output_layer:
        return certain("output layer", scores.output_layer)
    if not scores.train.get("deep"):
        return _undecided("Nothing was trained yet.")
    rules = (
        _no_information,
        _interventions,
        _depth,
        rate_verdict,
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
    """Return the causes that are certainly not it, in words.

    Two networks that both learn nothing rule nothing out.
    """
    causes = {
        "the learning rate given": ("given", "deep"),
        "the scale of the inputs": ("deep", "standardized"),
        "the output layer": ("deep", "bare"),
        "the initialization": ("deep", "initialized"),
        "regularization": ("deep", "unregularized"),
    }
    answers = [cause for cause, pair in causes.items() if _is_ruled_out(scores, *pair)]
    shallower = [name for name in _SHALLOWER if scores.train.get(name)]
    if shallower and all(_is_ruled_out(scores, "deep", name) for name in shallower):
        answers.append("depth")
    if min(scores.neighbors, _best_held_score(scores)) < LEARNS:
        answers.append("inputs without information")
    return answers


def _is_ruled_out(scores: Scores, first: str, second: str) -> bool:
    is_learning = scores.learns(first) or scores.learns(second)
    return is_learning and is_worse(scores, first, second) == "no"


def _undecided(reason: str, suspicion: VerdictName | Literal[""] = "") -> NetworkVerdict:
    return NetworkVerdict(name="undecided", reason=reason, certain=False, suspicion=suspicion)


def _no_information(scores: Scores) -> NetworkVerdict | None:
    best = _best_held_score(scores)
    if not math.isfinite(scores.neighbors):
        return None  # nearest neighbors were not asked yet
    if min(scores.neighbors, best) < LEARNS or len(scores.held_out["deep"]) < FEWEST_SEEDS:
        return None
    return certain(
        "data fault",
        "Nothing beats guessing on held-out data: the best variant has "
        f"{best:.2f} of the loss of guessing, and nearest neighbors have {scores.neighbors:.2f}. "
        "Nothing that was learned carries over. Do the targets belong to these inputs, or are "
        "they shuffled?",
    )


def _best_held_score(scores: Scores) -> float:
    means = [statistics.fmean(values) for values in scores.held_out.values() if values]
    return min(means, default=1.0)


def _interventions(scores: Scores) -> NetworkVerdict | None:
    """Name the cause whose removal helps most; of equally good ones, the first."""
    rules = {
        "standardized": _unscaled,
        "bare": _output_layer,
        "initialized": _initialization,
        "unregularized": _regularization,
    }
    helpful = [name for name in rules if is_worse(scores, "deep", name) == "yes"]
    if not helpful:
        return None
    best = min(scores.mean(name) for name in helpful)
    for name in helpful:
        if scores.mean(name) <= best + MARGIN:
            verdict = rules[name](scores)
            if verdict is not None:
                return verdict
    return None


def _unscaled(scores: Scores) -> NetworkVerdict | None:
    comparison = comparison_text(scores, "deep", "standardized")
    return certain("data fault", f"The inputs are not scaled. {comparison}", "scale of the inputs")


def _output_layer(scores: Scores) -> NetworkVerdict | None:
    return certain("output layer", comparison_text(scores, "deep", "bare"), "output activation")


def _initialization(scores: Scores) -> NetworkVerdict | None:
    if is_worse(scores, "initialized", "shallow") == "yes":
        return None  # new weights do not cure the network, so the rule of depth decides
    comparison = comparison_text(scores, "deep", "initialized")
    dead_shares = [share for share in scores.dead_shares if share is not None]
    is_dead = bool(dead_shares) and statistics.median(dead_shares) >= DEAD_SHARE
    if is_dead and not scores.signal:  # what is wrong before training explains dead units after it
        share = f"{statistics.median(dead_shares):.0%}"
        reason = f"{share} of the units are dead. {comparison}"
        return certain("dead units", reason, "initialization")
    reason = f"{comparison} {signal_text(scores)}"
    return certain("vanishing or exploding signal", reason, signal_subcause(scores))


def _regularization(scores: Scores) -> NetworkVerdict | None:
    if scores.mean("deep") < CURED or scores.mean("unregularized") > CURED:
        return None  # a network that is regularized on purpose learns more slowly
    return certain("too much regularization", comparison_text(scores, "deep", "unregularized"))


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
            subject = network_text(name).capitalize()
            sentences.append(f"{subject} has {mean_text(scores.train[name])}.")
    reason = " ".join(sentences)
    if scores.narrows:
        return _undecided(
            f"{reason} But {scores.narrows}, so the deep network may be unable to compute what the "
            "shallow one does. The cause may be width or depth.",
            suspicion="degradation",
        )
    if not scores.learns("deep") and gradients_are_extreme(scores):
        reason = f"{reason} {signal_text(scores)}"
        return certain("vanishing or exploding signal", reason, signal_subcause(scores))
    if is_still_falling(scores) and not scores.is_short and not scores.is_extended:
        return _undecided(
            f"{reason} But the loss of the deep network is still falling: it was "
            f"{mean_text(scores.train_at_half['deep'])} after half of the steps.",
            suspicion="degradation",
        )
    return certain("degradation", reason)


def is_still_falling(scores: Scores) -> bool:
    """Return whether the deep network gained more than MARGIN in the second half of training."""
    half, end = scores.train_at_half.get("deep"), scores.train.get("deep")
    if not half or not end:
        return False
    return statistics.fmean(half) - statistics.fmean(end) > MARGIN


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


def _capacity(scores: Scores) -> NetworkVerdict | None:
    deep, wide = scores.train["deep"], scores.held_out.get("wide", ())
    counterparts = [name for name in (*_SHALLOWER, "shortcuts") if scores.train.get(name)]
    if min(len(deep), len(wide)) < 2 or not (counterparts or _has_few_layers(scores)):
        return None
    if any(is_worse(scores, "deep", name) != "no" for name in counterparts):
        return None
    if exceeds_margin(scores.compare(deep, wide)) != "yes":
        return None
    # A network that learns nothing on some seed, that is worse than a linear model, or whose rate
    # was wrong has another fault than its size.
    if max(deep) > LEARNS or _linear_is_better(scores):
        return None
    if is_worse(scores, "given", "deep") == "yes":
        return None
    return certain(
        "capacity too small",
        f"The network has training loss {mean_text(deep)}, and a wide network has "
        f"{mean_text(wide)} on held-out data.",
    )


def _linear_is_better(scores: Scores) -> bool:
    """Return whether a linear model fits the training data better, so that something is wrong."""
    return scores.mean("deep") - scores.linear > MARGIN


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
    return certain(
        "overfitting",
        f"The held-out loss is {mean_text(held_out)} at the end and {mean_text(half)} after half "
        f"of the steps. The training loss is {mean_text(train)}.",
    )


def _healthy(scores: Scores) -> NetworkVerdict | None:
    deep = scores.train["deep"]
    sentences = []
    nothing_is_better = scores.is_below_margin("deep")
    if nothing_is_better:
        sentences.append(
            f"The network has training loss {mean_text(deep)}, surely below {MARGIN:g}, so nothing "
            "could be better by the margin."
        )
    elif not scores.train.get("shallow"):
        if not _has_few_layers(scores):
            return None
        sentences.append(
            f"The network has {scores.num_layers} layers, too few for depth to hurt, and its "
            f"training loss is {mean_text(deep)}."
        )
    for first, second in (("deep", "shallow"), ("given", "deep")):
        comparison = scores.training(first, second)
        if comparison is None or (nothing_is_better and first == "deep"):
            continue
        sentences.append(comparison_text(scores, first, second))
        if is_worse(scores, first, second) != "no":
            reason = _slow_text(scores, second) if first == "deep" else slow_rate_text(scores)
            if not reason:
                return None
            sentences.append(reason)
    if rate_fails_before_decay(scores):
        return None
    interval = scores.interval(deep)
    if interval is None or interval.high >= LEARNS or _linear_is_better(scores):
        return None
    return certain("healthy", " ".join(sentences))


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
        f"and {network_text(shallower)} had {mean_text(scores.held_at_half[shallower])} after half "
        f"of the steps, a difference of {difference_text(scores, comparison)}."
    )


def _has_few_layers(scores: Scores) -> bool:
    """Return whether there are too few layers for depth to hurt."""
    return scores.num_layers is not None and scores.num_layers <= FEW_LAYERS
