"""C13: residual networks are trained end to end by SGD with backpropagation, without a change to the solver (Sec. 1, 3.2).

The rule, before any data: every judged run of both families records plain SGD with momentum, one loss at the end of the network, no
average of the weights and no warm-up (the paper itself warms up its 110 layers, which is said); the trained weights differ
from the initial ones in every layer; and at every depth the 95 % interval of the residual nets' training error ends below half of
that of guessing. All three: "shown". A run by another solver or an untouched layer: "not shown", as is an interval that begins above half
of guessing; else "undecided".
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from reslearn.paper import protocol
from reslearn.paper.claim import Budget, Claim, Finding, Outcome, Runs, RunSpec
from reslearn.runs import RunFolder
from reslearn.study import Summary, summary

CLAIM = Claim(
    identifier="C13",
    text="Trained end to end by SGD with backpropagation, no change to the solver",
    section="Sec. 1 and 3.2",
    rule=(
        "The record of every judged run: SGD with momentum, one loss, no averaging, no warm-up below 110 layers; every layer's weights "
        "moved; and the 95 % interval of residual training error ends below half that of guessing at every depth."
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
    found = [
        protocol.judged_run(evidence, model, seed)
        for model in protocol.models(evidence.budget)
        for seed in evidence.budget.judge_seeds
    ]
    runs = [run for run in found if run is not None]
    changes = [
        f"{run.path.name}: {line}" for run in runs for line in changes_to_the_solver(run.recipe)
    ]
    untouched = [f"{run.path.name}: {name}" for run in runs for name in _untouched_layers(run)]
    at = protocol.depths(evidence.budget, "residual")
    curves = protocol.by_depth(evidence, "residual", protocol.TRAINING_ERROR, at)
    by_depth = {
        depth: summary([curve[index] for curve in curves]) for index, depth in enumerate(at)
    }
    guessing = _guessing_pct(runs)
    outcome = decide(changes + untouched, by_depth, guessing_pct=guessing)
    unseen = [
        run.path.name for run in runs if 0 not in run.snapshots() or not run.bundle_path.exists()
    ]
    if unseen and outcome == "shown":
        outcome = "undecided"  # whether every layer was trained cannot be seen there
    warm = [depth for depth in at if depth >= protocol.WARM_UP_FROM_DEPTH]
    measured = (
        f"{len(runs)} runs, {len(changes)} with another solver, {len(untouched)} layers untouched"
    )
    measured += f" ({', '.join(map(str, warm))} layers warmed up, as the paper's)" if warm else ""
    worst = max(by_depth, key=lambda depth: by_depth[depth].mean if by_depth[depth].n else math.inf)
    measured += f"; residual training error at most {by_depth[worst].mean:.1f} % (at {worst} layers; guessing: {guessing:.0f} %)"
    numbers = {
        "changes": changes,
        "untouched": untouched,
        "depths": list(at),
        "residual_training_error_pct": curves,
    }
    return Finding(
        claim=CLAIM,
        outcome=outcome,
        measured=measured,
        numbers=numbers,
        rests_on=tuple(protocol.models(evidence.budget)),
    )


def decide(
    changes: Sequence[str], by_depth: Mapping[int, Summary], *, guessing_pct: float
) -> Outcome:
    """The rule of this module: what was changed (solver) or left untouched (layers), and residual training error by depth."""
    if changes:
        return "not shown"
    intervals = [numbers.interval for numbers in by_depth.values()]
    if any(interval is not None and interval.low > guessing_pct / 2 for interval in intervals):
        return "not shown"
    diverged = any(numbers.num_diverged for numbers in by_depth.values())
    if not diverged and all(
        interval is not None and interval.high < guessing_pct / 2 for interval in intervals
    ):
        return "shown"
    return "undecided"


def changes_to_the_solver(recipe: Mapping[str, Any]) -> list[str]:
    """What in a resolved recipe is more than SGD with momentum on one loss; empty for the paper's solver."""
    optimizer, schedule, train = recipe["optimizer"], recipe["schedule"], recipe["train"]
    depth = int("".join(character for character in recipe["model"]["name"] if character.isdigit()))
    found = [f"optimizer.name = {optimizer['name']}"] if optimizer["name"] != "sgd" else []
    found += ["optimizer.momentum = 0"] if not optimizer["momentum"] else []
    found += ["optimizer.nesterov = true"] if optimizer["nesterov"] else []
    found += ["train.ema is set"] if train["ema"] is not None else []
    found += (
        ["schedule.warm_up_lr is set"]
        if schedule["warm_up_lr"] is not None and depth < protocol.WARM_UP_FROM_DEPTH
        else []
    )
    return found


def _untouched_layers(run: RunFolder) -> list[str]:
    """Weights that are after training, to the bit, what they were before; none where the beginning was not kept."""
    first = run.snapshots().get(0)
    if first is None or not run.bundle_path.exists():
        return []
    from safetensors.numpy import load_file

    before, after = load_file(first), load_file(run.bundle_path)
    return [
        name
        for name, value in before.items()
        if name.endswith(".weight") and name in after and (value == after[name]).all()
    ]


def _guessing_pct(runs: Sequence[RunFolder]) -> float:
    classes = runs[0].recipe["model"]["num_classes"] if runs else 10
    return 100 * (1 - 1 / int(classes))
