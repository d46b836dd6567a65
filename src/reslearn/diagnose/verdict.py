"""The rules by which evidence becomes a verdict, written down and mended before the held-out half of benchmarks/depth was looked at.

`decide` applies them in the order of RULES. One was added afterwards, for ResNet-56 on CIFAR-10: that of slow networks (LOG.md); on the
evidence of the benchmark it changes no verdict.

All scores are training losses as shares of the loss of guessing, each condition at its best of a few learning rates (chosen on a seed of
its own), paired by seed. "Worse" means: the mean difference is more than MARGIN and its interval lies above 0; "not worse": the interval
ends below MARGIN. Looks at the data are paid for: with k looks planned at trials of one length the intervals have a confidence of
1 - 0.05 / k (Bonferroni).
What depth, or a learning rate, costs after few steps may be no more than a slow start: these verdicts are given only where they hold after
several times the steps (experiment.LONGER) too.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from reslearn.study import Comparison, compare, summary

Name = Literal[
    "degradation",
    "vanishing or exploding signal",
    "bad learning rate",
    "dead units",
    "overfitting",
    "data fault",
    "capacity too small",
    "healthy",
    "undecided",
]

MARGIN = 0.05
GRADIENT_RATIO = 1e3
DEAD_SHARE = 0.6
"""Where a signal has died away, biases alone shut half of the units."""
FEW_LAYERS = 5
FEWEST_SEEDS = 3
NEED_LONGER: tuple[Name, ...] = (
    "degradation",
    "bad learning rate",
    "capacity too small",
    "undecided",
)
_SHALLOWER = ("shallow", "shallowest")
RULES: tuple[tuple[Name, str], ...] = (
    (
        "data fault",
        "Before training: inputs that are not finite or do not vary. After: no condition, and no nearest neighbors, do better than "
        f"guessing on held-out data by {MARGIN:g}; or the network is worse than on standardized inputs.",
    ),
    (
        "dead units",
        f"Worse than the network newly initialized by He's rule, and {DEAD_SHARE:.0%} or more of the units behind a ReLU are zero for "
        "every input.",
    ),
    (
        "vanishing or exploding signal",
        "Worse than the network newly initialized; or worse than the shallower one, no better than guessing, and the gradients of the "
        f"first third of layers {GRADIENT_RATIO:g} times those of the last, or less than one part in as many, at start and end.",
    ),
    (
        "degradation",
        "Worse in training loss than the shallower network made from it by leaving out blocks; where that learns nothing either, than the "
        "shallowest that can be made. Not where a layer between is narrower, so that identities cannot make the one of the other; nor "
        f"where it is slow: in the longer trials on held-out data better by {MARGIN:g} than that one was at half of the steps.",
    ),
    (
        "bad learning rate",
        "At the learning rate given, if one was given, worse than at the best of those tried, on held-out data too, and better than "
        "guessing at that.",
    ),
    (
        "capacity too small",
        "A wide network of ours is better on held-out data than this one on the data it was trained on, which is worse neither than the "
        f"shallower ones nor than itself with shortcuts (of which there must be one, with more than {FEW_LAYERS} layers). Or it is held "
        "back by regularization: weight decay, dropout.",
    ),
    (
        "overfitting",
        f"Held-out loss more than {3 * MARGIN:g} above the training loss, and risen by more than {MARGIN:g} since half-way, or worse than "
        "guessing.",
    ),
    (
        "healthy",
        f"Better than guessing by more than {MARGIN:g}, the interval too; not worse than the shallower network, or slow, and surely better "
        "than that one was at half of the steps; nor at the given learning rate worse than at the best. Where no shallower one can be "
        f"made, only with {FEW_LAYERS} layers or fewer.",
    ),
    ("undecided", "None of these with the certainty asked for."),
)


@dataclass(frozen=True, kw_only=True)
class Scores:
    """What was measured so far. `train`, `held`, `held_at_half`: scores by condition, one a seed, paired in order. "given" is the deep
    network at the user's learning rate. `looks`: how often the data will be looked at. `num_layers`: None where not known.
    `response_ratio`: of the signal behind the last third of layers to that behind the first, at the start. `narrows`: the layer, where
    there is one among those left out of "shallow", that has fewer values than enter it. `is_short`: from the first, short trials, by which
    those of NEED_LONGER are only suspected. "constructed" is the deep network with the weights of the trained shallow one and identities
    for the rest; "continued" the same, trained on; neither decides."""

    train: Mapping[str, Sequence[float]]
    held: Mapping[str, Sequence[float]]
    held_at_half: Mapping[str, Sequence[float]]
    neighbors: float
    looks: int = 1
    is_short: bool = False
    fault: str = ""
    num_layers: int | None = None
    response_ratio: float | None = None
    narrows: str = ""
    gradient_ratios: Sequence[tuple[float | None, float | None]] = ()
    dead_shares: Sequence[float | None] = ()


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """The name, and one sentence with the numbers it rests on. `certain`: whether further seeds could be saved."""

    name: Name
    because: str
    certain: bool


def decide(evidence: Scores) -> Verdict:
    """Apply RULES in order; what short trials let suspect is undecided."""
    found = suspect(evidence)
    if evidence.is_short and found.certain and found.name in NEED_LONGER:
        because = f"{found.name} so far, which longer trials have to confirm, and no time was left: {found.because}"
        return Verdict(name="undecided", because=because, certain=False)
    return found


def suspect(evidence: Scores) -> Verdict:
    """What RULES say, however long was trained."""
    if evidence.fault:
        return Verdict(name="data fault", because=evidence.fault, certain=True)
    train = evidence.train
    if not train.get("deep"):
        return Verdict(name="undecided", because="nothing was trained yet", certain=False)
    for rule in (
        _no_information,
        _unscaled,
        _initialization,
        _depth,
        _learning_rate,
        _capacity,
        _overfitting,
        _healthy,
    ):
        verdict = rule(evidence)
        if verdict is not None:
            return verdict
    num = len(train["deep"])
    few = f"{num} seed{'s' * (num > 1)} could be judged in the time; " if num < FEWEST_SEEDS else ""
    return Verdict(
        name="undecided",
        because=f"{few}no cause with the certainty asked for; {_all_means(train)}",
        certain=False,
    )


def worse(evidence: Scores, a: str, b: str) -> tuple[bool, bool, Comparison | None]:
    """Whether `a` is worse than `b`, whether it is not, and the comparison; neither where it is open or one was not run."""
    left, right = evidence.train.get(a), evidence.train.get(b)
    if not left or not right:
        return False, False, None
    found = _paired(evidence, left, right)
    if found.interval is None:
        return False, False, found
    return is_worse(found), found.interval.high < MARGIN, found


def _paired(evidence: Scores, left: Sequence[float], right: Sequence[float]) -> Comparison:
    """Of the seeds that both have, with the confidence that so many looks ask for."""
    n = min(len(left), len(right))
    return compare(left[:n], right[:n], paired=True, confidence=1 - 0.05 / evidence.looks)


def is_worse(found: Comparison) -> bool:
    """By more than MARGIN, and surely."""
    return found.interval is not None and found.difference > MARGIN and found.interval.low > 0


def slow(evidence: Scores, shallower: str) -> Comparison | None:
    """The deep network now against the shallower one at half of the steps, on held-out data, where it is better by more than MARGIN;
    else None. Such a network learns at more than half of the speed: what it lacks now is no sign that it ends there. Short trials
    cannot tell."""
    left, right = evidence.held.get("deep"), evidence.held_at_half.get(shallower)
    if evidence.is_short or not left or not right:
        return None
    found = _paired(evidence, left, right)
    return found if found.difference < -MARGIN else None


def _no_information(evidence: Scores) -> Verdict | None:
    held = {name: statistics.fmean(scores) for name, scores in evidence.held.items() if scores}
    best = min(held.values())
    if (
        evidence.neighbors < 1 - MARGIN
        or best < 1 - MARGIN
        or len(evidence.held["deep"]) < FEWEST_SEEDS
    ):
        return None
    because = (
        f"nothing beats guessing on held-out data (at best {best:.2f} of its loss, nearest neighbors {evidence.neighbors:.2f}): what was "
        "learned does not carry over; do the targets belong to these inputs, or are they shuffled?"
    )
    return Verdict(name="data fault", because=because, certain=True)


def _unscaled(evidence: Scores) -> Verdict | None:
    if not worse(evidence, "deep", "standardized")[0]:
        return None
    return Verdict(
        name="data fault",
        because=f"unscaled inputs: {_against(evidence, 'deep', 'standardized')}",
        certain=True,
    )


def _initialization(evidence: Scores) -> Verdict | None:
    if (
        not worse(evidence, "deep", "initialized")[0]
        or worse(evidence, "initialized", "shallow")[0]
    ):
        return None
    dead = [share for share in evidence.dead_shares if share is not None]
    told = _against(evidence, "deep", "initialized")
    if dead and statistics.median(dead) >= DEAD_SHARE:
        return Verdict(
            name="dead units",
            because=f"{statistics.median(dead):.0%} of the units are dead; {told}",
            certain=True,
        )
    return Verdict(
        name="vanishing or exploding signal", because=f"{told}: {_ratio(evidence)}", certain=True
    )


def _depth(evidence: Scores) -> Verdict | None:
    shallower = next((name for name in _SHALLOWER if worse(evidence, "deep", name)[0]), None)
    if shallower is None or slow(evidence, shallower):
        return None
    told = _against(evidence, "deep", shallower)
    for name, said in (
        ("constructed", "constructed"),
        ("continued", "trained on from there"),
        ("shortcuts", "with shortcuts"),
    ):
        if evidence.train.get(name):
            told += f"; {said} {_mean(evidence.train[name])}"
    if evidence.narrows:
        because = f"{told}; but {evidence.narrows}, so that the deep network need not hold what the shallow one computes: width or depth?"
        return Verdict(name="undecided", because=because, certain=False)
    if statistics.fmean(evidence.train["deep"]) > 1 - MARGIN and _is_extreme(evidence):
        return Verdict(
            name="vanishing or exploding signal",
            because=f"{told}; {_ratio(evidence)}",
            certain=True,
        )
    return Verdict(name="degradation", because=told, certain=True)


def _learning_rate(evidence: Scores) -> Verdict | None:
    if (
        not worse(evidence, "given", "deep")[0]
        or statistics.fmean(evidence.train["deep"]) > 1 - MARGIN
    ):
        return None
    if statistics.fmean(evidence.held["given"]) < statistics.fmean(evidence.held["deep"]):
        return None  # it only fits faster what does not carry over
    return Verdict(
        name="bad learning rate", because=_against(evidence, "given", "deep"), certain=True
    )


def _capacity(evidence: Scores) -> Verdict | None:
    deep, wide = evidence.train["deep"], evidence.held.get("wide", ())
    n = min(len(deep), len(wide))
    others = [other for other in (*_SHALLOWER, "shortcuts") if evidence.train.get(other)]
    if (
        n < 2
        or not (others or _is_flat(evidence))
        or not all(worse(evidence, "deep", other)[1] for other in others)
    ):
        return None
    if not is_worse(_paired(evidence, deep, wide)):
        return None
    because = f"training loss {_mean(deep)}; a wide network has {_mean(wide)} on held-out data"
    return Verdict(name="capacity too small", because=because, certain=True)


def _overfitting(evidence: Scores) -> Verdict | None:
    train, held, half = (
        evidence.train["deep"],
        evidence.held["deep"],
        evidence.held_at_half["deep"],
    )
    n = min(len(train), len(held), len(half))
    if n < 2:
        return None
    confidence = 1 - 0.05 / evidence.looks
    gap, risen = (
        compare(held[:n], other[:n], paired=True, confidence=confidence).interval
        for other in (train, half)
    )
    around = summary(held[:n], confidence=confidence).interval
    assert gap is not None and risen is not None and around is not None, "two seeds have intervals"
    if gap.low <= 3 * MARGIN or (risen.low <= MARGIN and around.low <= 1):
        return None
    because = f"held-out {_mean(held)}, half-way {_mean(half)}, training {_mean(train)}"
    return Verdict(name="overfitting", because=because, certain=True)


def _healthy(evidence: Scores) -> Verdict | None:
    parts = []
    for a, b in (("deep", "shallow"), ("given", "deep")):
        _, is_not, found = worse(evidence, a, b)
        if found is None:
            continue
        parts.append(_against(evidence, a, b))
        if not is_not:
            then = slow(evidence, b) if a == "deep" else None
            if then is None or then.interval is None or then.interval.high >= 0:
                return None
            half = f"{b} at half of the steps {_mean(evidence.held_at_half[b])}: {then.difference:+.2f} {_around(then)}"
            parts.append(f"slow, on held-out data {_mean(evidence.held['deep'])}, {half}")
    deep = evidence.train["deep"]
    around = summary(deep, confidence=1 - 0.05 / evidence.looks).interval
    if around is None or around.high >= 1 - MARGIN:
        return None
    if not evidence.train.get("shallow"):
        if not _is_flat(evidence):
            return None
        parts.insert(
            0,
            f"{evidence.num_layers} layers, too few for depth to hurt, training loss {_mean(deep)}",
        )
    return Verdict(name="healthy", because="; ".join(parts), certain=True)


def ruled_out(evidence: Scores) -> list[str]:
    """What is surely not the cause, in words, for those who wait."""
    told = {
        "the learning rate given": ("given", "deep"),
        "the scale of the inputs": ("deep", "standardized"),
        "the initialization": ("deep", "initialized"),
    }
    found = [said for said, (a, b) in told.items() if worse(evidence, a, b)[1]]
    shallower = [
        worse(evidence, "deep", name)[1] for name in _SHALLOWER if evidence.train.get(name)
    ]
    found += ["depth"] * (bool(shallower) and all(shallower))
    best = min(
        (statistics.fmean(scores) for scores in evidence.held.values() if scores), default=1.0
    )
    return found + ["inputs without information"] * (min(evidence.neighbors, best) < 1 - MARGIN)


def _is_flat(evidence: Scores) -> bool:
    """Too few layers for depth to hurt."""
    return evidence.num_layers is not None and evidence.num_layers <= FEW_LAYERS


def _is_extreme(evidence: Scores) -> bool:
    """At start and, where it is known, at the end, in the median over seeds."""
    for moment in (0, 1):
        known = [pair[moment] for pair in evidence.gradient_ratios]
        ratios = [ratio for ratio in known if ratio is not None and not math.isnan(ratio)]
        if ratios and 1 / GRADIENT_RATIO < statistics.median(ratios) < GRADIENT_RATIO:
            return False
    return any(pair[0] is not None for pair in evidence.gradient_ratios)


def _ratio(evidence: Scores) -> str:
    known = [pair[0] for pair in evidence.gradient_ratios if pair[0] is not None]
    ratio = evidence.response_ratio
    told = (
        []
        if ratio is None
        else [f"the signal of the last layers is {ratio:.2g} times that of the first"]
    )
    told += (
        [f"first layers get {statistics.median(known):.2g} times the gradient of the last"]
        if known
        else []
    )
    return " and ".join(told) or "signals are not known by layer"


def _against(evidence: Scores, a: str, b: str) -> str:
    found = worse(evidence, a, b)[2]
    assert found is not None
    told = (
        f"{a} {_mean(evidence.train[a])}, {b} {_mean(evidence.train[b])}: {found.difference:+.2f}"
    )
    return " ".join(filter(None, (told, _around(found), f"({found.n_a} seeds)")))


def _around(found: Comparison) -> str:
    return (
        "" if found.interval is None else f"[{found.interval.low:+.2f}, {found.interval.high:+.2f}]"
    )


def _mean(scores: Sequence[float]) -> str:
    spread = f" ± {statistics.stdev(scores):.2f}" if len(scores) > 1 else ""
    return f"{statistics.fmean(scores):.2f}{spread}"


def _all_means(train: Mapping[str, Sequence[float]]) -> str:
    return ", ".join(f"{name} {_mean(scores)}" for name, scores in train.items() if scores)
