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
    residual, residual_depths = _flat(steps["residual"])
    plain, plain_depths = _flat(steps["plain"])
    comparison = compare_steps(residual, plain, strata=(residual_depths, plain_depths))
    p = _p(comparison)
    longest = max(run.steps for run in (*plain, *residual))
    residual_mean, plain_mean = (restricted_mean(runs, longest) for runs in (residual, plain))
    test = "no run arrived" if p is None else f"log-rank p = {p:.2g}"
    return Result(
        outcome=decide(comparison),
        measured=(
            "residual networks reach half the loss of guessing after "
            f"{residual_mean:.0f} steps ({comparison.num_reached_a} of {comparison.n_a} "
            f"runs), plain networks after {plain_mean:.0f} ({comparison.num_reached_b} of "
            f"{comparison.n_b}; the others count as {longest:.0f}); {test}"
        ),
        numbers={"steps_reached": {kind: _numbers(steps[kind]) for kind in BOTH}, "p": p},
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
    steps: dict[tuple[Kind, int], list[Steps | None]] = {}
    last = 0.0
    for kind in BOTH:
        for depth in trained.budget.depths:
            runs = _steps(trained, kind, depth)
            steps[kind, depth] = runs
            last = max([last, *(run.steps for run in runs if run is not None)])
    by_kind: dict[Kind, _StepsByDepth] = {kind: {} for kind in BOTH}
    for (kind, depth), runs in steps.items():
        by_kind[kind][depth] = [run or Steps(last, False) for run in runs]
    return by_kind


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


def _flat(by_depth: _StepsByDepth) -> tuple[list[Steps], list[int]]:
    """Return the runs of all depths, and the depth of each run."""
    all_runs: list[Steps] = []
    depths: list[int] = []
    for depth, runs in by_depth.items():
        all_runs += runs
        depths += [depth] * len(runs)
    return all_runs, depths


def _numbers(by_depth: _StepsByDepth) -> dict[str, list[list[float]]]:
    numbers = {}
    for depth, runs in by_depth.items():
        numbers[str(depth)] = [list(run) for run in runs]
    return numbers


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
