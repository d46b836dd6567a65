"""C7: with depth, accuracy saturates and then degrades rapidly (Sec. 1, "a degradation problem has been exposed").

The rule, before any data, on the test error of plain nets at the depths d0 < d1 < ... < dn of the budget, one value a judged seed:
the early slope (d0 to d1), the late slope (d1 to dn), both in points a layer. "shown" where two 95 % intervals lie above 0, the one of
the late rise (with a mean of more than 1 point) and the one of late minus early slope (the curve bends upwards: flat or falling
first, then rapid). "not shown" where the late rise ends below 1 point, or the bend's interval lies below 0; else "undecided".
"""

from collections.abc import Sequence

from reslearn.paper import protocol
from reslearn.paper.claim import Budget, Claim, Finding, Outcome, Runs, RunSpec
from reslearn.paper.protocol import lost_but_deepest
from reslearn.paper.wording import interval, means
from reslearn.study import Summary, summary

MARGIN_POINTS = 1.0

CLAIM = Claim(
    identifier="C7",
    text="Degradation: with depth accuracy saturates, then falls rapidly",
    section="Sec. 1, Fig. 1",
    rule=(
        "Test error of plain nets. Early slope: between the two shallowest depths; late: from the second to the deepest. Shown: the 95 % "
        "intervals of the late rise (more than 1 point) and of late minus early slope lie above 0. Not shown: the late rise ends "
        "below 1 point, or late minus early slope below 0."
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
    rests_on = tuple(protocol.models(evidence.budget, ["plain"]))
    if len(at) < 3:
        measured = f"{len(at)} depths: saturation and fall need three"
        return Finding(
            claim=CLAIM, outcome="not testable here", measured=measured, rests_on=rests_on
        )
    curves = protocol.by_depth(evidence, "plain", protocol.TEST_ERROR, at)
    outcome, late, bend = decide(at, curves)
    measured = (
        f"plain test error {means(at, curves)}; {at[1]} to {at[-1]} layers {interval(late, 'points', digits=1)}; "
        f"late minus early slope {interval(bend, 'points a layer')}"
    )
    return Finding(
        claim=CLAIM,
        outcome=outcome,
        measured=measured,
        numbers={"depths": list(at), "test_error_pct": curves},
        rests_on=rests_on,
    )


def decide(
    at: Sequence[int], curves: Sequence[Sequence[float]]
) -> tuple[Outcome, Summary, Summary]:
    """The rule of this module, with the late rise (points) and the bend (points a layer); three depths and more, rising."""
    late = summary([curve[-1] - curve[1] for curve in curves])
    early_layers, late_layers = at[1] - at[0], at[-1] - at[1]
    bend = summary(
        [
            (curve[-1] - curve[1]) / late_layers - (curve[1] - curve[0]) / early_layers
            for curve in curves
        ]
    )
    if late.interval is None or bend.interval is None:
        return "undecided", late, bend
    if late.interval.low > 0 and late.mean > MARGIN_POINTS and bend.interval.low > 0:
        return ("undecided" if lost_but_deepest(curves) else "shown"), late, bend
    if late.interval.high < MARGIN_POINTS or bend.interval.high < 0:
        lost = (
            late if late.interval.high < MARGIN_POINTS else bend
        )  # a shallowest net that diverged would bend the curve upwards
        return ("undecided" if lost.num_diverged else "not shown"), late, bend
    return "undecided", late, bend
