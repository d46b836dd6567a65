"""Figure 6: plain nets get worse with depth in training error, residual nets do not and gain in test error (CIFAR-10, Sec. 4.2)."""

from typing import Any

from reslearn.paper import protocol
from reslearn.paper.claim import Budget, Runs, RunSpec
from reslearn.paper.exhibit import (
    MARGIN_OF_A_RISE_PCT,
    OTHER_RUNS_RULE,
    Depths,
    Exhibit,
    Line,
    Measured,
    degrades,
    is_papers_own,
    rises,
)
from reslearn.paper.figures import against_depth, figure_6
from reslearn.report import Figure, Panels
from reslearn.study import DepthRow, degradation_verdict

EXHIBIT = Exhibit(
    name="fig6",
    title="Training and test error of plain and residual nets over iterations",
    section="Fig. 6",
    data="CIFAR-10",
    fewest_depths=2,
    rule=(
        "By the degradation rule of `reslearn study` (margin 1 point, paired seeds, simultaneous intervals) on training error: plain nets "
        "degrade with depth, yes; residual nets, no. And the test error of the shallowest residual net is higher than that of the deepest: "
        f"95 % interval above 0, mean more than {MARGIN_OF_A_RISE_PCT:g} point.{OTHER_RUNS_RULE}"
    ),
)
DEPTHS = {
    "smoke": Depths(both=(8, 20)),
    **dict.fromkeys(("short", "medium"), Depths(both=(20, 32, 56, 110))),
    "full": Depths(both=(20, 32, 44, 56, 110)),
}


def conditions(budget: Budget) -> list[RunSpec]:
    """Both families at the paper's learning rate."""
    return protocol.fixed_conditions(budget, protocol.BOTH)


def measure(evidence: Runs) -> Measured:
    """Three lines, the curves of both families, error against depth."""
    lines: list[Line] = []
    numbers: dict[str, Any] = {}
    for kind in protocol.BOTH:
        at = protocol.depths(evidence.budget, kind)
        curves = protocol.by_depth(evidence, kind, protocol.TRAINING_ERROR, at)
        seeds = evidence.budget.judge_seeds
        rows = [
            DepthRow(depth, seed, error)
            for seed, one in zip(seeds, curves, strict=True)
            for depth, error in zip(at, one, strict=True)
        ]
        verdict = degradation_verdict(rows, margin_pct=MARGIN_OF_A_RISE_PCT)
        degrading = "degrades" if kind == "plain" else "does not degrade"
        what = (
            f"training error of {kind} nets {degrading}: {max(at)} layers minus the best shallower"
        )
        lines.append(
            degrades(
                what,
                verdict,
                paper_says="yes" if kind == "plain" else "no",
                same_protocol=is_papers_own(evidence),
            )
        )
        test = protocol.by_depth(evidence, kind, protocol.TEST_ERROR, at)
        numbers[kind] = {"depths": list(at), "training_error_pct": curves, "test_error_pct": test}
    ends = (min(at), max(at))
    gained = protocol.by_depth(evidence, "residual", protocol.TEST_ERROR, ends)
    what = f"test error of residual nets, {ends[0]} layers minus {ends[1]}, is above 0"
    lines.append(
        rises(
            what,
            [shallow - deep for shallow, deep in gained],
            same_protocol=is_papers_own(evidence),
        )
    )
    trained = {kind: protocol.trained(evidence, kind) for kind in protocol.BOTH}
    figures: list[Figure | Panels] = []
    if any(trained.values()):
        figures.append(
            Panels([figure_6(evidence, kind, depths) for kind, depths in trained.items() if depths])
        )
        figures.append(against_depth(evidence, trained))
    return Measured(lines=tuple(lines), figures=tuple(figures), numbers=numbers)
