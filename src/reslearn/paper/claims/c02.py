"""C2: the residual framework eases the training of networks that are much deeper (abstract; Sec. 4.2, Fig. 6).

The rule, before any data: for each judged seed the slope of training error over depth of the plain nets minus that of the residual
nets, at the depths that both have. "shown" where the 95 % interval of these differences lies above 0 and the mean difference over the
whole range of depths is more than 1 point; "not shown" where the interval's upper end over the whole range is below 1 point; else
"undecided".
"""

import math
from collections.abc import Sequence

from reslearn.paper import protocol
from reslearn.paper.claim import Budget, Claim, Finding, Outcome, Runs, RunSpec
from reslearn.paper.wording import interval, means
from reslearn.study import Summary, slope, summary

MARGIN_POINTS = 1.0

CLAIM = Claim(
    identifier="C2",
    text="The residual framework eases the training of much deeper networks",
    section="Abstract, Fig. 6",
    rule=(
        "Slope of training error over depth, plain minus residual, paired by seed. Shown: the 95 % interval lies above 0 and the slopes "
        "part by more than 1 point over all depths. Not shown: the interval ends below 1 point."
    ),
)


def conditions(budget: Budget) -> list[RunSpec]:
    """Both families at all depths, to choose their learning rates."""
    return protocol.choice_conditions(budget)


def judged_conditions(evidence: Runs) -> list[RunSpec]:
    """Both families at the learning rates chosen."""
    return protocol.judged_conditions(evidence)


def judge(evidence: Runs) -> Finding:
    """Apply the rule."""
    at = evidence.budget.depths
    plain = protocol.by_depth(evidence, "plain", protocol.TRAINING_ERROR, at)
    residual = protocol.by_depth(evidence, "residual", protocol.TRAINING_ERROR, at)
    outcome, found = decide(at, plain, residual)
    measured = f"residual training error {means(at, residual)}"
    if found is not None:
        measured += f"; plain minus residual {interval(found, 'points a layer')}"
    numbers = {
        "depths": list(at),
        "plain_training_error_pct": plain,
        "residual_training_error_pct": residual,
    }
    return Finding(
        claim=CLAIM,
        outcome=outcome,
        measured=measured,
        numbers=numbers,
        rests_on=tuple(protocol.models(evidence.budget)),
    )


def decide(
    at: Sequence[int], plain: Sequence[Sequence[float]], residual: Sequence[Sequence[float]]
) -> tuple[Outcome, Summary | None]:
    """The rule of this module: training error in per cent, one curve over the depths `at` a seed, the same seeds in both families."""
    if len(set(at)) < 2:
        return "undecided", None
    pairs = zip(slope(at, plain).per_seed, slope(at, residual).per_seed, strict=True)
    found = summary([a - b for a, b in pairs])
    between = max(at) - min(at)
    if found.interval is None:
        return "undecided", found
    low, high = found.interval
    residual_diverged = any(not math.isfinite(value) for curve in residual for value in curve)
    plain_diverged = any(not math.isfinite(value) for curve in plain for value in curve)
    # Runs that diverged are left out, and may not help the family that they were lost by.
    if low > 0 and found.mean * between > MARGIN_POINTS:
        return ("undecided" if residual_diverged else "shown"), found
    if high * between < MARGIN_POINTS:
        return ("undecided" if plain_diverged else "not shown"), found
    return "undecided", found
