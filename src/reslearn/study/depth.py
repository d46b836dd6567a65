"""Choose the depth of a network for given data: a ladder of depths, early dropping, and a verdict.

All networks train by one recipe, so their budgets are equal in images. Errors are validation
errors: the test set decides nothing. The rules were written before any data were seen.

1. After each seed, a network is given up if its mean error is too far above the lowest. The
   difference must exceed the margin and `GIVE_UP_ERRORS` standard errors of sampling images.
2. The best network has the lowest mean error of those with all seeds.
3. A network is not worse if the one-sided 95 % interval of its difference from the best, paired by
   seed, ends below the margin. The smallest such network is recommended.
4. More depth pays if the deepest network is better than the next smaller one: `margin_test`.
"""

from __future__ import annotations

import math
import re
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from reslearn.study.margin import Answer, margin_test
from reslearn.study.power import needed_pairs_text
from reslearn.study.statistics import Comparison, Summary, compare, summary
from reslearn.study.text import count_text, number_text

MARGIN_PCT = 2.0
GIVE_UP_ERRORS = 3.0
_NO_WORSE_CONFIDENCE = 0.90  # two-sided; its upper end is the one-sided end of 95 %

_CIFAR_DEPTHS = (8, 14, 20, 32, 44, 56)
_IMAGENET_DEPTHS = (18, 34, 50, 101)
_NAME = re.compile(r"(plain|resnet|resnetv2_)(\d+)(d?)")


@dataclass(frozen=True, kw_only=True)
class Rung:
    """One network of the ladder.

    Attributes:
        model: Name of the network.
        depth: Its number of layers.
        errors: Validation error in percent by seed; infinite for a run that diverged.
    """

    model: str
    depth: int
    errors: Mapping[int, float]

    @property
    def mean(self) -> float:
        """Mean error over the seeds; infinite if a run diverged, or if there is none."""
        return statistics.fmean(self.errors.values()) if self.errors else math.inf

    @property
    def summary(self) -> Summary | None:
        return summary(list(self.errors.values())) if self.errors else None


@dataclass(frozen=True, kw_only=True)
class Contrast:
    """One network against the best.

    Attributes:
        answer: Whether the network is not worse than the best: "yes", "no" or "undecided".
        comparison: The difference of validation error with its 90 % interval; None for the best.
    """

    model: str
    answer: Answer
    comparison: Comparison | None


@dataclass(frozen=True, kw_only=True)
class DepthVerdict:
    """What a depth study shows.

    Attributes:
        best: The network with the lowest mean validation error.
        smallest: The smallest network that is not worse than the best.
        reason: Why, as a sentence.
        contrasts: Each network with all seeds against the best.
        given_up: Networks that were given up, with the seeds they had.
        deeper: Whether more depth would pay.
        deeper_reason: Why, as a sentence.
    """

    best: str
    smallest: str
    reason: str
    contrasts: tuple[Contrast, ...]
    given_up: tuple[str, ...]
    deeper: Answer
    deeper_reason: str


def depth_of(model: str) -> int:
    """Return the number of layers in the name of a network.

    Raises:
        ValueError: If the network is not of a family with a ladder of depths.
    """
    return int(_parts(model)[1])


def ladder(model: str, depths: Sequence[int] | None = None) -> tuple[str, ...]:
    """Return the names of networks of the family of `model`, from shallow to deep.

    Args:
        model: A network of the family, such as "resnet20" or "resnet18".
        depths: Their numbers of layers. None takes 8 to 56 for the CIFAR networks of 6n+2 layers
            (Sec. 4.2), and 18 to 101 for the networks of Table 1.

    Raises:
        ValueError: If the network is not of such a family, or fewer than two depths are given.
    """
    prefix, depth, suffix = _parts(model)
    if depths is None:
        is_imagenet = int(depth) in (*_IMAGENET_DEPTHS, 152)
        depths = _IMAGENET_DEPTHS if is_imagenet else _CIFAR_DEPTHS
    names = tuple(f"{prefix}{depth}{suffix}" for depth in sorted(set(depths)))
    if len(names) < 2:
        raise ValueError(f"--depth {','.join(map(str, depths))}: two or more depths are needed")
    return names


def _parts(model: str) -> tuple[str, str, str]:
    match = _NAME.fullmatch(model)
    if match is None:
        raise ValueError(
            f"{model} has no ladder of depths: use a network such as resnet20, resnet18 or plain20"
        )
    prefix, depth, suffix = match.groups()
    return prefix, depth, suffix


def survivors(
    rungs: Sequence[Rung], *, num_images: int, margin_pct: float = MARGIN_PCT
) -> tuple[str, ...]:
    """Return the networks that get another seed (rule 1).

    Args:
        rungs: Networks with the same seeds.
        num_images: Number of validation images.
    """
    lowest = min(rung.mean for rung in rungs)
    if not math.isfinite(lowest):
        return tuple(rung.model for rung in rungs)
    return tuple(
        rung.model
        for rung in rungs
        if not _is_hopeless(rung.mean, lowest, len(rung.errors) * num_images, margin_pct)
    )


def _is_hopeless(mean: float, lowest: float, num_images: int, margin_pct: float) -> bool:
    if not math.isfinite(mean):
        return True
    variances = [error * (100 - error) / num_images for error in (mean, lowest)]
    return mean - lowest > max(margin_pct, GIVE_UP_ERRORS * math.sqrt(sum(variances)))


def depth_verdict(rungs: Sequence[Rung], *, margin_pct: float = MARGIN_PCT) -> DepthVerdict:
    """Apply rules 2 to 4.

    Args:
        rungs: All networks of the ladder, from shallow to deep.
        margin_pct: The smallest difference that matters, in points of validation error.

    Raises:
        ValueError: If no network has a finite error.
    """
    num_seeds = max((len(rung.errors) for rung in rungs), default=0)
    complete = [rung for rung in rungs if len(rung.errors) == num_seeds and num_seeds]
    best = min(complete, key=lambda rung: (rung.mean, rung.depth), default=None)
    if best is None or not math.isfinite(best.mean):
        raise ValueError("no network of the ladder has a finite error: lower the learning rate")
    contrasts = tuple(_contrast(rung, best, margin_pct) for rung in complete)
    depths = {rung.model: rung.depth for rung in rungs}
    good = [contrast for contrast in contrasts if contrast.answer == "yes"]
    smallest = min(good, key=lambda contrast: depths[contrast.model])
    deeper, deeper_reason = _more_depth(complete, rungs, best, margin_pct)
    return DepthVerdict(
        best=best.model,
        smallest=smallest.model,
        reason=_reason(smallest, contrasts, best, margin_pct),
        contrasts=contrasts,
        given_up=tuple(rung.model for rung in rungs if len(rung.errors) < num_seeds),
        deeper=deeper,
        deeper_reason=deeper_reason,
    )


def _contrast(rung: Rung, best: Rung, margin_pct: float) -> Contrast:
    if rung.model == best.model:
        return Contrast(model=rung.model, answer="yes", comparison=None)
    comparison = _compare(rung, best, confidence=_NO_WORSE_CONFIDENCE)
    is_worse = margin_test(comparison.interval, margin_pct)
    answers: dict[Answer, Answer] = {"yes": "no", "no": "yes", "undecided": "undecided"}
    return Contrast(model=rung.model, answer=answers[is_worse], comparison=comparison)


def _compare(a: Rung, b: Rung, *, confidence: float) -> Comparison:
    seeds = sorted(a.errors.keys() & b.errors.keys())
    return compare(
        [a.errors[seed] for seed in seeds],
        [b.errors[seed] for seed in seeds],
        paired=True,
        confidence=confidence,
    )


def _reason(
    smallest: Contrast, contrasts: Sequence[Contrast], best: Rung, margin_pct: float
) -> str:
    if best.model == contrasts[0].model:
        text = f"{best.model}, the smallest, has the lowest error"
    elif smallest.comparison is None:
        text = f"{best.model} has the lowest error, and no smaller network is shown to be as good"
    else:
        difference = number_text(
            smallest.comparison.difference,
            signed=True,
            unit="points",
            interval=smallest.comparison.interval,
            confidence=_NO_WORSE_CONFIDENCE,
        )
        text = (
            f"{smallest.model} is not worse than {best.model}, the best, by {margin_pct:g} points: "
            f"{difference}"
        )
    undecided = [contrast.model for contrast in contrasts if contrast.answer == "undecided"]
    if undecided:
        text += f"; undecided: {', '.join(undecided)}"
    return text


def _more_depth(
    complete: Sequence[Rung], rungs: Sequence[Rung], best: Rung, margin_pct: float
) -> tuple[Answer, str]:
    """Return whether a network deeper than the ladder may be better (rule 4)."""
    deepest = rungs[-1]
    if deepest not in complete:
        return "no", f"{deepest.model}, the deepest, is worse than {best.model} and was given up"
    if len(complete) < 2:
        return "undecided", "only one network has all seeds"
    shallower = complete[-2]
    comparison = _compare(shallower, deepest, confidence=0.95)
    answer = margin_test(comparison.interval, 0, no_margin=0)
    numbers = number_text(
        comparison.difference, signed=True, unit="points", interval=comparison.interval
    )
    evidence = (
        f"the error of {shallower.model} minus that of {deepest.model} is {numbers} "
        f"({count_text(comparison.n_a)})"
    )
    if answer == "yes":
        return answer, f"{evidence}: try deeper networks with --depth"
    if answer == "no" or (comparison.interval and comparison.interval.high < margin_pct):
        return "no", f"{evidence}, which is less than {margin_pct:g} points"
    return "undecided", evidence + _needed_seeds(shallower, deepest, margin_pct)


def _needed_seeds(shallower: Rung, deepest: Rung, margin_pct: float) -> str:
    differences = [
        shallower.errors[seed] - deepest.errors[seed]
        for seed in shallower.errors.keys() & deepest.errors.keys()
    ]
    finite = [difference for difference in differences if math.isfinite(difference)]
    if len(finite) < 2:
        return "; two or more seeds are needed"
    seeds = needed_pairs_text(margin_pct, statistics.stdev(finite))
    return f"; to see {margin_pct:g} points on these images takes {seeds} seeds (power 80 %)"
