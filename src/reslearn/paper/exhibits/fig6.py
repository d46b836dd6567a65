"""Figure 6: with depth, plain networks get worse; residual networks do not, and gain (Sec. 4.2)."""

from typing import Any

from reslearn.paper.experiment import BOTH, Experiment, Line, Result
from reslearn.paper.figures import against_depth, figure_6
from reslearn.paper.rules import (
    MARGIN_OF_A_RISE_PCT,
    OTHER_RUNS_RULE,
    degrades,
    is_papers_own,
    rises,
)
from reslearn.paper.trained import TEST_ERROR, TRAINING_ERROR, Trained
from reslearn.report import Figure, Panels
from reslearn.study import DepthRow, degradation_verdict
from reslearn.study.collect import Kind

EXPERIMENT = Experiment(
    name="fig6",
    text="Training and test error of plain and residual networks over iterations",
    section="Fig. 6",
    rule=(
        "The degradation rule of `reslearn study` is applied to training error, with a margin of "
        "1 point, paired seeds and simultaneous intervals. Reproduced: plain networks degrade "
        "with depth, and residual networks do not. For the test error, the shallowest residual "
        "network minus the deepest is compared. Reproduced: the 95 % interval lies above 0 and "
        f"the mean is more than {MARGIN_OF_A_RISE_PCT:g} point. Not reproduced: the interval ends "
        f"at or below {MARGIN_OF_A_RISE_PCT:g} point.{OTHER_RUNS_RULE}"
    ),
    kinds=BOTH,
    depths={
        "smoke": (8, 20),
        "short": (20, 32, 56, 110),
        "medium": (20, 32, 56, 110),
        "full": (20, 32, 44, 56, 110),
    },
    min_depths=2,
)


def measure(trained: Trained) -> Result:
    """Judge three lines, and draw the curves of both families and error against depth."""
    numbers: dict[str, Any] = {}
    for kind in BOTH:
        numbers[kind] = {
            "depths": list(trained.budget.depths_of(kind)),
            "training_error_pct": trained.by_depth(kind, TRAINING_ERROR),
            "test_error_pct": trained.by_depth(kind, TEST_ERROR),
        }
    lines = (*(_degradation_line(trained, kind) for kind in BOTH), _gain_line(trained))
    finished = {kind: trained.finished_depths(kind) for kind in BOTH}
    figures: list[Figure | Panels] = []
    if any(finished.values()):
        panels = [figure_6(trained, kind, depths) for kind, depths in finished.items() if depths]
        figures = [Panels(panels), against_depth(trained, finished)]
    return Result(lines=lines, figures=tuple(figures), numbers=numbers)


def _degradation_line(trained: Trained, kind: Kind) -> Line:
    depths = trained.budget.depths_of(kind)
    curves = trained.by_depth(kind, TRAINING_ERROR)
    rows = [
        DepthRow(depth, seed, error)
        for seed, errors in zip(trained.seeds, curves, strict=True)
        for depth, error in zip(depths, errors, strict=True)
    ]
    verb = "degrades" if kind == "plain" else "does not degrade"
    return degrades(
        f"training error of {kind} nets {verb}: {max(depths)} layers minus the best shallower",
        degradation_verdict(rows, margin_pct=MARGIN_OF_A_RISE_PCT),
        paper_says="yes" if kind == "plain" else "no",
        same_protocol=is_papers_own(trained),
    )


def _gain_line(trained: Trained) -> Line:
    depths = trained.budget.depths_of("residual")
    ends = (min(depths), max(depths))
    errors = trained.by_depth("residual", TEST_ERROR, ends)
    return rises(
        f"test error of residual nets, {ends[0]} layers minus {ends[1]}, is above 0",
        [shallow - deep for shallow, deep in errors],
        same_protocol=is_papers_own(trained),
    )
