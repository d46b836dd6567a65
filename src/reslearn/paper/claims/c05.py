"""C5: residual networks gain accuracy from considerably increased depth (abstract; Table 6, Fig. 6 middle).

The rule, before any data: for each judged seed the slope of test error over log2(depth) of the residual nets (the paper's own
gains shrink with each layer added). "shown" where its 95 % interval lies below 0 and the mean gain from the shallowest to the deepest
net is more than half a point; "not shown" where the interval ends with a gain below half a point; else "undecided".
"""

import math
from collections.abc import Sequence

from reslearn.paper import protocol
from reslearn.paper.claim import Budget, Claim, Finding, Outcome, Runs, RunSpec
from reslearn.paper.wording import interval, means
from reslearn.study import Summary, slope

MARGIN_POINTS = 0.5

CLAIM = Claim(
    identifier="C5",
    text="Residual networks gain accuracy from considerably increased depth",
    section="Abstract, Table 6",
    rule=(
        "Slope of test error over log2(depth) of residual nets, one a seed. Shown: the 95 % interval lies below 0 and the deepest net "
        "gains more than half a point on the shallowest. Not shown: the interval allows no gain of half a point."
    ),
)


def conditions(budget: Budget) -> list[RunSpec]:
    """Residual nets of all depths, to choose their learning rates."""
    return protocol.choice_conditions(budget, ["residual"])


def judged_conditions(evidence: Runs) -> list[RunSpec]:
    """Residual nets at the learning rates chosen."""
    return protocol.judged_conditions(evidence, ["residual"])


def judge(evidence: Runs) -> Finding:
    """Apply the rule."""
    at = protocol.depths(evidence.budget, "residual")
    curves = protocol.by_depth(evidence, "residual", protocol.TEST_ERROR, at)
    outcome, found = decide(at, curves)
    measured = f"residual test error {means(at, curves)}"
    if found is not None:
        measured += f"; {interval(found, 'points a doubling of depth')}"
    rests_on = tuple(protocol.models(evidence.budget, ["residual"]))
    return Finding(
        claim=CLAIM,
        outcome=outcome,
        measured=measured,
        numbers={"depths": list(at), "test_error_pct": curves},
        rests_on=rests_on,
    )


def decide(at: Sequence[int], curves: Sequence[Sequence[float]]) -> tuple[Outcome, Summary | None]:
    """The rule of this module: `curves` holds test error in per cent, one curve over the depths `at` a seed (nan: diverged)."""
    if len(set(at)) < 2:
        return "undecided", None
    found = slope([math.log2(depth) for depth in at], curves).summary
    doublings = math.log2(max(at) / min(at))
    if found.interval is None:
        return "undecided", found
    low, high = found.interval
    if high < 0 and -found.mean * doublings > MARGIN_POINTS:
        return ("undecided" if found.num_diverged else "shown"), found
    if -low * doublings < MARGIN_POINTS:
        return ("undecided" if found.num_diverged else "not shown"), found
    return "undecided", found
