"""C4: residual networks are easier to optimize (Sec. 1; Sec. 4.1, "converges faster at the early stage").

The rule, before any data: the steps until the training loss, as trained, is at or below half of that of guessing, ln(K) / 2 for K
classes. Runs that never get there are censored at their last step, diverged ones at the last step of any run: they never got there
either, and must not leave the count before others arrive. All depths that both families have count, as many runs of each in either
group, and a run is compared with those of its own depth. "shown" where the log-rank test, stratified by depth (it was not, before a
referee asked for it), has p < 0.05 and the restricted mean of the residual nets is smaller; "not shown"
where p < 0.05 and it is larger, or where all runs arrive and p is above 0.5; else "undecided".
"""

import math
from collections.abc import Sequence

from reslearn.paper import protocol
from reslearn.paper.claim import Budget, Claim, Finding, Outcome, Runs, RunSpec
from reslearn.paper.protocol import model_name
from reslearn.report import Figure, Series
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
CLEARLY_ALIKE = 0.5

CLAIM = Claim(
    identifier="C4",
    text="Residual networks are easier to optimize",
    section="Sec. 1 and 4.1",
    rule=(
        "Steps until the training loss is half that of guessing; runs that never arrive count as censored, not as missing. Same depths, "
        "same parameters. Shown: log-rank p, stratified by depth, < 0.05 and residual nets arrive sooner. Not shown: p < 0.05 the other "
        "way, or all arrive and p > 0.5."
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
    seen = {
        kind: {depth: _steps(evidence, kind, depth) for depth in evidence.budget.depths}
        for kind in protocol.BOTH
    }
    last = max(
        (
            run.steps
            for by_depth in seen.values()
            for runs in by_depth.values()
            for run in runs
            if run is not None
        ),
        default=0.0,
    )
    by_kind = {
        kind: {
            depth: [run or Steps(last, False) for run in runs] for depth, runs in by_depth.items()
        }
        for kind, by_depth in seen.items()
    }
    pooled = {
        kind: [run for runs in by_depth.values() for run in runs]
        for kind, by_depth in by_kind.items()
    }
    depths = {
        kind: [depth for depth, runs in by_depth.items() for _ in runs]
        for kind, by_depth in by_kind.items()
    }
    outcome, found = decide(
        pooled["residual"], pooled["plain"], (depths["residual"], depths["plain"])
    )
    longest = max(run.steps for runs in pooled.values() for run in runs)
    soon = {kind: restricted_mean(runs, longest) for kind, runs in pooled.items()}
    measured = (
        f"residual nets reach half the loss of guessing after {soon['residual']:.0f} steps ({found.num_reached_a} of {found.n_a} runs), "
        f"plain after {soon['plain']:.0f} ({found.num_reached_b} of {found.n_b}; the others count as {longest:.0f})"
    )
    p = _p(found)
    measured += "; no run arrived" if p is None else f"; log-rank p = {p:.2g}"
    numbers = {
        kind: {str(depth): [list(run) for run in runs] for depth, runs in one.items()}
        for kind, one in by_kind.items()
    }
    return Finding(
        claim=CLAIM,
        outcome=outcome,
        measured=measured,
        numbers={"steps_reached": numbers, "p": p},
        figures=(_figure(by_kind, longest, evidence.budget.judge_seeds),),
        rests_on=tuple(protocol.models(evidence.budget)),
    )


def decide(
    residual: Sequence[Steps],
    plain: Sequence[Steps],
    depths: tuple[Sequence[int], Sequence[int]] | None = None,
) -> tuple[Outcome, StepsComparison]:
    """The rule of this module, on the runs of both families and the depth of each."""
    found = compare_steps(residual, plain, strata=depths)
    p = _p(found)
    if p is None:
        return "undecided", found
    if p < SIGNIFICANCE and found.difference != 0:
        return ("shown" if found.difference < 0 else "not shown"), found
    everyone = found.num_reached_a == found.n_a and found.num_reached_b == found.n_b
    return ("not shown" if everyone and p > CLEARLY_ALIKE else "undecided"), found


def _p(found: StepsComparison) -> float | None:
    return found.p if found.p_exact is None else found.p_exact


def _steps(evidence: Runs, kind: Kind, depth: int) -> list[Steps | None]:
    """One a judged seed, None where it diverged."""
    runs = [
        protocol.judged_run(evidence, model_name(kind, depth), seed)
        for seed in evidence.budget.judge_seeds
    ]
    found: list[Steps | None] = []
    for run in runs:
        if run is None:
            found.append(None)
        else:
            threshold = math.log(run.recipe["model"]["num_classes"]) / 2
            found.append(steps_to_threshold(run.metrics("train"), threshold=threshold))
    return found


def _figure(
    by_kind: dict[Kind, dict[int, list[Steps]]], horizon: float, seeds: Sequence[int]
) -> Figure:
    series: list[Series] = []
    for kind, by_depth in by_kind.items():
        curves: dict[int, list[tuple[float, float]]] = {}
        for depth, runs in by_depth.items():
            for seed, run in zip(seeds, runs, strict=True):
                curves.setdefault(seed, []).append((depth, run.steps if run.reached else horizon))
        series += seeds_series(kind, curves, group=kind)
    caption = (
        f"Steps until the training loss is half that of guessing, or {horizon:.0f} where that is later: means are of steps so cut, and "
        f"where all seeds are, nothing is known above.{interval_note(len(seeds))}"
    )
    return Figure(
        "steps-to-half-loss", "How soon training gets somewhere", caption, "layers", "steps", series
    )
