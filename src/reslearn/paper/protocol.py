"""The training study behind the claims: each net at its best of a few learning rates, chosen on other seeds than it is judged on.

One learning rate for all depths would not tell depth from learning rate. A learning rate is chosen by the training loss at the end,
with batch-norm statistics recomputed (moving averages mislead early); a run that diverged is worse than any other (Sec. 4.2, Fig. 6).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from reslearn.paper.claim import Budget, Runs, RunSpec
from reslearn.runs import RunFolder
from reslearn.study.collect import Kind

BOTH: tuple[Kind, ...] = ("plain", "residual")
TRAINING_ERROR = "train_recomputed_top1_error_pct"
TRAINING_LOSS = "train_recomputed_loss"
TEST_ERROR = "test_top1_error_pct"

_PREFIX = {"plain": "plain", "residual": "resnet"}
# Paper: 110 layers start at 0.01 until the training error is below 80 % (Sec. 4.2).
WARM_UP_FROM_DEPTH = 110


@dataclass(frozen=True, kw_only=True)
class Choice:
    """The learning rate taken for a model, the losses it was taken by (inf: diverged), whether it lies at an edge of those tried."""

    model: str
    learning_rate: float
    losses: dict[float, float]

    @property
    def at_edge(self) -> bool:
        """Then a still better one may lie beyond."""
        return len(self.losses) > 1 and self.learning_rate in (min(self.losses), max(self.losses))


def model_name(kind: Kind, depth: int) -> str:
    """plain20, resnet56."""
    return f"{_PREFIX[kind]}{depth}"


def depths(budget: Budget, kind: Kind) -> tuple[int, ...]:
    """All depths at which a family is trained, rising."""
    return tuple(
        sorted({*budget.depths, *(budget.extra_residual_depths if kind == "residual" else ())})
    )


def models(budget: Budget, kinds: Sequence[Kind] = BOTH) -> list[str]:
    """The nets of the protocol."""
    return [model_name(kind, depth) for kind in kinds for depth in depths(budget, kind)]


def choice_conditions(budget: Budget, kinds: Sequence[Kind] = BOTH) -> list[RunSpec]:
    """Every net with every learning rate on the seeds to choose on; none where there is nothing to choose."""
    if len(budget.learning_rates) == 1:
        return []
    return [
        _choice_condition(budget, model, lr, seed)
        for model in models(budget, kinds)
        for lr in budget.learning_rates
        for seed in budget.choice_seeds
    ]


def choose(evidence: Runs, model: str) -> Choice:
    """The learning rate of the lowest mean training loss on the seeds to choose on; the smaller of two that are equal."""
    budget = evidence.budget
    losses: dict[float, float] = {}
    for lr in budget.learning_rates if len(budget.learning_rates) > 1 else ():
        runs = [
            evidence.runs.get(_choice_condition(budget, model, lr, seed))
            for seed in budget.choice_seeds
        ]
        losses[lr] = math.fsum(
            math.inf if run is None else _value(run, TRAINING_LOSS) for run in runs
        ) / len(runs)
    best = min(losses, key=lambda lr: (losses[lr], lr), default=budget.learning_rates[0])
    return Choice(model=model, learning_rate=best, losses=losses)


def judged_condition(evidence: Runs, model: str, seed: int) -> RunSpec:
    """The run of a net at its chosen learning rate."""
    return RunSpec(
        model=model,
        seed=seed,
        overrides=overrides(model, choose(evidence, model).learning_rate),
        why="to judge",
    )


def judged_conditions(evidence: Runs, kinds: Sequence[Kind] = BOTH) -> list[RunSpec]:
    """Every net at its chosen learning rate, on the seeds to judge on."""
    return [
        judged_condition(evidence, model, seed)
        for model in models(evidence.budget, kinds)
        for seed in evidence.budget.judge_seeds
    ]


def fixed_conditions(budget: Budget, kinds: Sequence[Kind] = BOTH) -> list[RunSpec]:
    """The same, known without any evidence, where there is one learning rate and so nothing to choose: the paper's tables and figures."""
    (lr,) = budget.learning_rates
    return [
        RunSpec(model=model, seed=seed, overrides=overrides(model, lr), why="to judge")
        for model in models(budget, kinds)
        for seed in budget.judge_seeds
    ]


def trained(evidence: Runs, kind: Kind) -> list[int]:
    """Depths of which a judged run is there."""
    seeds = evidence.budget.judge_seeds
    return [
        d
        for d in depths(evidence.budget, kind)
        if any(judged_run(evidence, model_name(kind, d), seed) for seed in seeds)
    ]


def judged_run(evidence: Runs, model: str, seed: int) -> RunFolder | None:
    """The finished run of `judged_condition`; None where it diverged."""
    return evidence.runs.get(judged_condition(evidence, model, seed))


def by_depth(evidence: Runs, kind: Kind, field: str, at: Sequence[int]) -> list[list[float]]:
    """One curve a judged seed: `field` of result.json at each depth of `at`, nan where the run diverged."""
    return [
        [
            math.nan
            if (run := judged_run(evidence, model_name(kind, depth), seed)) is None
            else _value(run, field)
            for depth in at
        ]
        for seed in evidence.budget.judge_seeds
    ]


def _choice_condition(budget: Budget, model: str, learning_rate: float, seed: int) -> RunSpec:
    """Nothing but its training loss is wanted of it."""
    spared = ("evaluation.test_curve=false", "evaluation.snapshots=[]", *budget.choice_overrides)
    return RunSpec(
        model=model,
        seed=seed,
        overrides=(*overrides(model, learning_rate), *spared),
        why="to choose its learning rate",
    )


def lost_but_deepest(curves: Sequence[Sequence[float]]) -> bool:
    """Whether a run diverged (nan) at another depth than the last: left out, it would speak for degradation."""
    return any(not math.isfinite(value) for curve in curves for value in curve[:-1])


def _value(run: RunFolder, field: str) -> float:
    value = run.result.get(field)
    if value is None:
        raise ValueError(f"{run.path} has no {field} in its result.json")
    return float(value)


def overrides(model: str, learning_rate: float) -> tuple[str, ...]:
    """What of a net's recipe the protocol sets: its learning rate, and the warm-up of the deepest."""
    depth = int("".join(character for character in model if character.isdigit()))
    warm_up = ("schedule.warm_up_lr=0.01",) if depth >= WARM_UP_FROM_DEPTH else ()
    return (f"optimizer.lr={learning_rate:g}", *warm_up)
