"""C1: deeper plain networks are harder to train (Sec. 1, Fig. 1 left; Sec. 4.2, Fig. 6 left).

The rule, before any data: for each judged seed the least-squares slope of training error over the depths of the budget; "shown" where
the 95 % interval of these slopes lies above 0 and the mean slope over the whole range of depths is more than 1 point; "not shown" where
the interval's upper end over the whole range is below 1 point; else "undecided".
"""

from collections.abc import Sequence

from reslearn.paper import protocol
from reslearn.paper.claim import Budget, Claim, Finding, Outcome, Runs, RunSpec
from reslearn.paper.protocol import lost_but_deepest
from reslearn.paper.wording import interval, means
from reslearn.study import Slope, slope

MARGIN_POINTS = 1.0

CLAIM = Claim(
    identifier="C1",
    text="Deeper plain networks are harder to train",
    section="Sec. 1, Fig. 1",
    rule=(
        "Slope of training error over depth, one a seed, each net at its best learning rate. Shown: the 95 % interval lies above 0 and the "
        "rise from the shallowest to the deepest net is more than 1 point. Not shown: the interval ends below 1 point of rise."
    ),
)


def conditions(budget: Budget) -> list[RunSpec]:
    """Plain nets of all depths, to choose their learning rates."""
    return protocol.choice_conditions(budget, ["plain"])


def judged_conditions(evidence: Runs) -> list[RunSpec]:
    """Plain nets at the learning rates chosen."""
    return protocol.judged_conditions(evidence, ["plain"])


def judge(evidence: Runs) -> Finding:
    """Apply the rule."""
    at = evidence.budget.depths
    curves = protocol.by_depth(evidence, "plain", protocol.TRAINING_ERROR, at)
    outcome, found = decide(at, curves)
    measured = f"plain training error {means(at, curves)}"
    if found is not None:
        measured += f"; {interval(found.summary, 'points a layer')}"
    numbers = {
        "depths": list(at),
        "training_error_pct": curves,
        "slope_points_a_layer": None if found is None else list(found.per_seed),
    }
    return Finding(
        claim=CLAIM,
        outcome=outcome,
        measured=measured,
        numbers=numbers,
        rests_on=tuple(protocol.models(evidence.budget, ["plain"])),
    )


def decide(at: Sequence[int], curves: Sequence[Sequence[float]]) -> tuple[Outcome, Slope | None]:
    """The rule of this module: `curves` holds training error in per cent, one curve over the depths `at` a seed (nan: diverged)."""
    if len(set(at)) < 2:
        return "undecided", None
    found = slope(at, curves)
    between = max(at) - min(at)
    if found.summary.interval is None:
        return "undecided", found
    low, high = found.summary.interval
    if low > 0 and found.summary.mean * between > MARGIN_POINTS:
        # A shallow net that diverged was left out, which would make depth look worse than it is.
        return ("undecided" if lost_but_deepest(curves) else "shown"), found
    if high * between < MARGIN_POINTS:
        # Runs that diverged were left out, which flatters depth.
        return ("undecided" if found.summary.num_diverged else "not shown"), found
    return "undecided", found
