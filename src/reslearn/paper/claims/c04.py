"""C4: residual networks are easier to optimize.

Paper: Sec. 1; Sec. 4.1, "converges faster at the early stage".
"""

import math
from collections.abc import Sequence

from reslearn.paper.experiment import BOTH, Experiment, Result, model_name
from reslearn.paper.trained import Trained
from reslearn.report import Figure, Series
from reslearn.report.content import VerdictOutcome
from reslearn.report.curves import interval_note, seeds_series
from reslearn.study import (
    Steps,
    StepsComparison,
    compare_steps,
    restricted_mean,
    steps_to_threshold,
)
from reslearn.study.collect import Kind

SIGNIFICANCE = 0.05
P_WITHOUT_A_DIFFERENCE = 0.5

EXPERIMENT = Experiment(
    name="C4",
    text="Residual networks are easier to optimize",
    section="Sec. 1 and 4.1",
    rule=(
        "The number of steps until the training loss is at or below half the loss of guessing, "
        "ln(number of classes). Runs that never reach it count as censored, not as missing. Both "
        "families have the same depths and parameters, and a run is compared with runs of its own "
        "depth. Shown: the log-rank test, stratified by depth, has p < 0.05, and residual "
        "networks arrive sooner. Not shown: p < 0.05 and they arrive later, or all runs arrive "
        "and p > 0.5. Undecided: everything else."
    ),
    kinds=BOTH,
)

_StepsByDepth = dict[int, list[Steps]]


def measure(trained: Trained) -> Result:
    """Compare the steps of both families."""
    steps = _steps_by_kind(trained)
    runs = {kind: [run for runs in steps[kind].values() for run in runs] for kind in BOTH}
    depths = {kind: [depth for depth, runs in steps[kind].items() for _ in runs] for kind in BOTH}
    comparison = compare_steps(
        runs["residual"], runs["plain"], strata=(depths["residual"], depths["plain"])
    )
    p = _p(comparison)
    longest = max(run.steps for kind in BOTH for run in runs[kind])
    mean = {kind: restricted_mean(runs[kind], longest) for kind in BOTH}
    test = "no run arrived" if p is None else f"log-rank p = {p:.2g}"
    return Result(
        outcome=decide(comparison),
        measured=(
            f"residual networks reach half the loss of guessing after {mean['residual']:.0f} steps "
            f"({comparison.num_reached_a} of {comparison.n_a} runs), plain networks after "
            f"{mean['plain']:.0f} ({comparison.num_reached_b} of {comparison.n_b}; the others "
            f"count as {longest:.0f}); {test}"
        ),
        numbers={"steps_reached": _numbers(steps), "p": p},
        figures=(_figure(steps, longest, trained.seeds),),
    )


def decide(residual_against_plain: StepsComparison) -> VerdictOutcome:
    """Apply the rule to the comparison of residual with plain networks."""
    comparison = residual_against_plain
    p = _p(comparison)
    if p is None:
        return "undecided"
    if p < SIGNIFICANCE and comparison.difference != 0:
        return "shown" if comparison.difference < 0 else "not shown"
    num_reached = comparison.num_reached_a + comparison.num_reached_b
    all_reached = num_reached == comparison.n_a + comparison.n_b
    return "not shown" if all_reached and p > P_WITHOUT_A_DIFFERENCE else "undecided"


def _p(comparison: StepsComparison) -> float | None:
    return comparison.p if comparison.p_exact is None else comparison.p_exact


def _steps_by_kind(trained: Trained) -> dict[Kind, _StepsByDepth]:
    """Return the steps by kind and depth, one per judged seed.

    A diverged run is censored at the last step of any run: it never arrived, and must not leave the
    count before others arrive.
    """
    steps: dict[Kind, dict[int, list[Steps | None]]] = {
        kind: {depth: _steps(trained, kind, depth) for depth in trained.budget.depths}
        for kind in BOTH
    }
    finished = [
        run for kind in BOTH for runs in steps[kind].values() for run in runs if run is not None
    ]
    last = max((run.steps for run in finished), default=0.0)
    censored = Steps(last, False)
    return {
        kind: {depth: [run or censored for run in runs] for depth, runs in steps[kind].items()}
        for kind in BOTH
    }


def _steps(trained: Trained, kind: Kind, depth: int) -> list[Steps | None]:
    """Return the steps of one network, one per judged seed; None for a diverged run."""
    steps: list[Steps | None] = []
    for run in trained.runs_of(model_name(kind, depth)).values():
        if run is None:
            steps.append(None)
            continue
        half_of_guessing = math.log(run.recipe["model"]["num_classes"]) / 2
        steps.append(steps_to_threshold(run.metrics("train"), threshold=half_of_guessing))
    return steps


def _numbers(steps: dict[Kind, _StepsByDepth]) -> dict[str, dict[str, list[list[float]]]]:
    return {
        kind: {str(depth): [list(run) for run in runs] for depth, runs in by_depth.items()}
        for kind, by_depth in steps.items()
    }


def _figure(steps: dict[Kind, _StepsByDepth], horizon: float, seeds: Sequence[int]) -> Figure:
    series: list[Series] = []
    for kind, by_depth in steps.items():
        curves: dict[int, list[tuple[float, float]]] = {}
        for depth, runs in by_depth.items():
            for seed, run in zip(seeds, runs, strict=True):
                curves.setdefault(seed, []).append((depth, run.steps if run.reached else horizon))
        series += seeds_series(kind, curves, group=kind)
    return Figure(
        "steps-to-half-loss",
        "Steps until training makes progress",
        "Number of steps until the training loss is half the loss of guessing, cut at "
        f"{horizon:.0f} steps. A mean at the cut is a lower bound.{interval_note(len(seeds))}",
        "layers",
        "steps",
        series,
    )
