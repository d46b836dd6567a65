"""C13: residual networks are trained end to end by SGD, without a change to the solver.

Paper: Sec. 1, 3.2.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from reslearn.paper.experiment import BOTH, Experiment, Result
from reslearn.paper.rules import all_of, verdict_on_claim
from reslearn.paper.trained import TRAINING_ERROR, WARM_UP_FROM_DEPTH, Trained
from reslearn.report.content import VerdictOutcome
from reslearn.runs import RunFolder, check_weights
from reslearn.study import Answer, Summary, margin_test, summary, withhold

EXPERIMENT = Experiment(
    name="C13",
    text="Trained end to end by SGD with backpropagation, no change to the solver",
    section="Sec. 1 and 3.2",
    rule=(
        "Three conditions. First, the record of every judged run says SGD with momentum, one loss "
        "at the end of the network, no average of the weights, and no warm-up below 110 layers "
        "(the paper itself warms up 110 layers). Second, the trained weights differ from the "
        "initial weights in every layer. Third, the 95 % interval of the residual networks' "
        "training error ends below half the error of guessing at every depth. Shown: all three "
        "hold. Not shown: a run has another solver or an untouched layer, or an interval begins "
        "above half the error of guessing. Undecided: everything else."
    ),
    kinds=BOTH,
)


def measure(trained: Trained) -> Result:
    """Read the recipes, compare weights before and after training, and judge the errors."""
    budget = trained.budget
    runs: list[RunFolder] = []
    for model in budget.models():
        runs += [run for run in trained.runs_of(model).values() if run is not None]
    changes: list[str] = []
    untouched: list[str] = []
    for run in runs:
        changes += [f"{run.path.name}: {change}" for change in solver_changes(run.recipe)]
        untouched += [f"{run.path.name}: {layer}" for layer in _untouched_layers(run)]
    depths = budget.depths_of("residual")
    errors = trained.by_depth("residual", TRAINING_ERROR)
    summaries = {
        depth: summary(values)
        for depth, values in zip(depths, zip(*errors, strict=True), strict=True)
    }
    guessing_pct = _guessing_pct(runs)
    outcome = decide(changes + untouched, summaries, guessing_pct=guessing_pct)
    if outcome == "shown" and not all(_has_both_weights(run) for run in runs):
        outcome = "undecided"  # nobody can see whether every layer was trained
    return Result(
        outcome=outcome,
        measured=(
            f"{len(runs)} runs, {len(changes)} with another solver, {len(untouched)} layers "
            f"untouched{_warm_up_text(depths)}; {_worst_text(summaries)} (guessing: "
            f"{guessing_pct:.0f} %)"
        ),
        numbers={
            "changes": changes,
            "untouched": untouched,
            "depths": list(depths),
            "residual_training_error_pct": errors,
        },
    )


def decide(
    violations: Sequence[str], errors_by_depth: Mapping[int, Summary], *, guessing_pct: float
) -> VerdictOutcome:
    """Apply the rule.

    Args:
        violations: Changes to the solver and untouched layers.
        errors_by_depth: Training error of the residual networks in percent.
        guessing_pct: Error of guessing in percent.
    """
    if violations:
        return "not shown"
    half = guessing_pct / 2
    answers = [_is_below(error, half) for error in errors_by_depth.values()]
    is_lost = any(error.num_diverged for error in errors_by_depth.values())
    return verdict_on_claim(withhold(all_of(*answers), rules_out_yes=is_lost))


def _is_below(error: Summary, bound: float) -> Answer:
    """Decide whether the interval of an error lies below a bound ("no": above it)."""
    reversed_interval = None if error.interval is None else error.interval.scaled_by(-1)
    return margin_test(reversed_interval, -bound)


def solver_changes(recipe: Mapping[str, Any]) -> list[str]:
    """Return the settings of a resolved recipe that are not plain SGD with momentum on one loss."""
    optimizer, schedule, train = recipe["optimizer"], recipe["schedule"], recipe["train"]
    depth = int("".join(character for character in recipe["model"]["name"] if character.isdigit()))
    is_warmed_up = schedule["warm_up_lr"] is not None and depth < WARM_UP_FROM_DEPTH
    changes = {
        f"optimizer.name = {optimizer['name']}": optimizer["name"] != "sgd",
        "optimizer.momentum = 0": not optimizer["momentum"],
        "optimizer.nesterov = true": optimizer["nesterov"],
        "train.ema is set": train["ema"] is not None,
        "schedule.warm_up_lr is set": is_warmed_up,
    }
    return [change for change, is_made in changes.items() if is_made]


def _has_both_weights(run: RunFolder) -> bool:
    return 0 in run.snapshots() and run.bundle_path.exists()


def _untouched_layers(run: RunFolder) -> list[str]:
    """Return the weights that training left equal in every bit."""
    if not _has_both_weights(run):
        return []
    from safetensors.numpy import load_file

    paths = run.snapshots()[0], run.bundle_path
    for path in paths:
        check_weights(run, path)
    before, after = (load_file(path) for path in paths)
    return [
        name
        for name, weights in before.items()
        if name.endswith(".weight") and name in after and (weights == after[name]).all()
    ]


def _guessing_pct(runs: Sequence[RunFolder]) -> float:
    classes = runs[0].recipe["model"]["num_classes"] if runs else 10
    return 100 * (1 - 1 / int(classes))


def _warm_up_text(depths: Sequence[int]) -> str:
    warmed_up = [str(depth) for depth in depths if depth >= WARM_UP_FROM_DEPTH]
    return f" ({', '.join(warmed_up)} layers warmed up, as in the paper)" if warmed_up else ""


def _worst_text(errors_by_depth: Mapping[int, Summary]) -> str:
    def mean(depth: int) -> float:
        error = errors_by_depth[depth]
        return error.mean if error.n else math.inf

    worst = max(errors_by_depth, key=mean)
    return f"residual training error at most {errors_by_depth[worst].mean:.1f} % at {worst} layers"
