"""Figure 1: a plain net of 56 layers has higher training and higher test error than one of 20 layers, on CIFAR-10."""

from reslearn.paper import protocol
from reslearn.paper.claim import Budget, Runs, RunSpec
from reslearn.paper.exhibit import (
    MARGIN_OF_A_RISE_PCT,
    OTHER_RUNS_RULE,
    Depths,
    Exhibit,
    Measured,
    is_papers_own,
    rises,
)
from reslearn.paper.figures import figure_1
from reslearn.report import Panels

EXHIBIT = Exhibit(
    name="fig1",
    title="Training and test error of a plain net and a deeper one",
    section="Fig. 1",
    data="CIFAR-10",
    fewest_depths=2,
    rule=(
        "Differences between the deepest and the shallowest plain net, paired by seed; training error on clean images with batch-norm "
        f"statistics recomputed. Reproduced: the 95 % interval lies above 0 and the mean is more than {MARGIN_OF_A_RISE_PCT:g} point. Not "
        f"reproduced: the interval ends at or below that.{OTHER_RUNS_RULE}"
    ),
)
DEPTHS = {
    "smoke": Depths(both=(8, 20)),
    **dict.fromkeys(("short", "medium", "full"), Depths(both=(20, 56))),
}


def conditions(budget: Budget) -> list[RunSpec]:
    """Plain nets at the paper's learning rate."""
    return protocol.fixed_conditions(budget, ["plain"])


def measure(evidence: Runs) -> Measured:
    """Both differences, and the curves."""
    at = protocol.depths(evidence.budget, "plain")
    ends = (min(at), max(at))
    lines, numbers = [], {}
    for field, said in ((protocol.TRAINING_ERROR, "training"), (protocol.TEST_ERROR, "test")):
        curves = protocol.by_depth(evidence, "plain", field, ends)
        what = f"{said} error, plain-{ends[1]} minus plain-{ends[0]}, is above 0"
        lines.append(
            rises(
                what,
                [deep - shallow for shallow, deep in curves],
                same_protocol=is_papers_own(evidence),
            )
        )
        numbers[f"{said}_error_pct"] = curves
    trained = protocol.trained(evidence, "plain")
    figures = (Panels(figure_1(evidence, trained)),) if len(trained) > 1 else ()
    return Measured(lines=tuple(lines), figures=figures, numbers={"depths": list(ends), **numbers})
