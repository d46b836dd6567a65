"""Finished runs by network, seed and depth, each network at its best learning rate.

A learning rate is chosen per network, on seeds that no verdict uses. One rate for all depths would
not separate the effect of depth from the effect of the learning rate. The criterion is the training
loss at the end with recomputed batch-norm statistics, since moving averages are misleading early in
training. A diverged run is worse than any other. Paper: Sec. 4.2, Fig. 6.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reslearn.paper.experiment import (
    BOTH,
    Budget,
    Evaluate,
    Experiment,
    Fit,
    RunSpec,
    model_name,
)
from reslearn.runs import RunFolder
from reslearn.study.collect import Kind

if TYPE_CHECKING:
    from reslearn.analysis import Subject

TRAINING_ERROR = "train_recomputed_top1_error_pct"
TRAINING_LOSS = "train_recomputed_loss"
TEST_ERROR = "test_top1_error_pct"

# Paper: 110 layers start at 0.01 until the training error is below 80 % (Sec. 4.2).
WARM_UP_FROM_DEPTH = 110


@dataclass(kw_only=True)
class Trained:
    """The runs of one budget. Each result is read once, and each learning rate is chosen once.

    Attributes:
        runs: Finished runs by spec.
        diverged: Specs of runs whose loss or weights became infinite or nan. They count as
            evidence.
        failures: Reasons of runs that failed otherwise (no memory, a full disk). They are no
            evidence.
        folder: Folder for files of the experiments.
        fit: Trains the small networks of claim C11.
        evaluate: Evaluates networks by the protocols for ImageNet.
    """

    budget: Budget
    folder: Path
    fit: Fit
    evaluate: Evaluate | None = None
    data_dir: Path | None = None
    runs: dict[RunSpec, RunFolder] = field(default_factory=dict)
    diverged: set[RunSpec] = field(default_factory=set)
    failures: dict[RunSpec, str] = field(default_factory=dict)
    _results: dict[RunSpec, Mapping[str, Any]] = field(default_factory=dict)
    _choices: dict[str, dict[float, float]] = field(default_factory=dict)

    @property
    def seeds(self) -> tuple[int, ...]:
        """Seeds of the judged runs."""
        return self.budget.judge_seeds

    def by_depth(
        self, kind: Kind, result_field: str, depths: Sequence[int] | None = None
    ) -> list[list[float]]:
        """Return one curve over `depths` per judged seed.

        Args:
            result_field: Field of result.json, for example `TRAINING_ERROR`.
            depths: All depths of the kind by default.

        Returns:
            Values [seeds][depths]; nan where the run diverged.
        """
        depths = self.budget.depths_of(kind) if depths is None else depths
        return [
            [self.value(model_name(kind, depth), seed, result_field) for depth in depths]
            for seed in self.seeds
        ]

    def value(self, model: str, seed: int, result_field: str) -> float:
        """Return a field of the result of a judged run; nan if the run diverged."""
        spec = self.judged_spec(model, seed)
        return self._number(spec, result_field) if spec in self.runs else math.nan

    def run(self, model: str, seed: int) -> RunFolder | None:
        """Return the judged run of a network; None if it diverged."""
        return self.runs.get(self.judged_spec(model, seed))

    def runs_of(self, model: str) -> dict[int, RunFolder | None]:
        """Return the judged runs of a network by seed; None for a run that diverged."""
        return {seed: self.run(model, seed) for seed in self.seeds}

    def result(self, spec: RunSpec) -> Mapping[str, Any]:
        """Return the content of result.json, which is read and verified once."""
        if spec not in self._results:
            self._results[spec] = self.runs[spec].result
        return self._results[spec]

    def finished_depths(self, kind: Kind) -> list[int]:
        """Return the depths at which at least one judged run is finished."""
        return [
            depth
            for depth in self.budget.depths_of(kind)
            if any(self.runs_of(model_name(kind, depth)).values())
        ]

    def is_lost(self, *models: str) -> bool:
        """Return whether a judged run of one of `models` diverged."""
        return any(None in self.runs_of(model).values() for model in models)

    def subjects(self, model: str) -> dict[int, Subject]:
        """Open the judged runs of a network for analysis, by seed. Diverged runs are missing."""
        from reslearn.analysis import Subject

        return {
            seed: Subject.open(run, data_dir=self.data_dir)
            for seed, run in self.runs_of(model).items()
            if run is not None
        }

    def judged_spec(self, model: str, seed: int) -> RunSpec:
        """Return the run of a network at its chosen learning rate."""
        return spec_at_rate(model, seed, self.learning_rate(model))

    def judged_specs(self, kinds: Sequence[Kind] = BOTH) -> list[RunSpec]:
        """Return the runs of all networks of `kinds` at their chosen learning rates."""
        cells = itertools.product(self.budget.models(kinds), self.seeds)
        return [self.judged_spec(model, seed) for model, seed in cells]

    def learning_rate(self, model: str) -> float:
        """Return the learning rate with the lowest mean training loss; the smallest of equals."""
        losses = self.choice_losses(model)
        if not losses:
            return self.budget.learning_rates[0]
        return min(losses, key=lambda rate: (losses[rate], rate))

    def choice_losses(self, model: str) -> dict[float, float]:
        """Return the mean training loss by learning rate on the choice seeds.

        A diverged run has an infinite loss. The result is empty if the budget has only one learning
        rate.
        """
        if model not in self._choices:
            rates = self.budget.learning_rates
            rates = rates if len(rates) > 1 else ()
            self._choices[model] = {rate: self._mean_choice_loss(model, rate) for rate in rates}
        return self._choices[model]

    def _mean_choice_loss(self, model: str, rate: float) -> float:
        specs = [_choice_spec(self.budget, model, rate, seed) for seed in self.budget.choice_seeds]
        losses = [
            self._number(spec, TRAINING_LOSS) if spec in self.runs else math.inf for spec in specs
        ]
        return math.fsum(losses) / len(losses)

    def _number(self, spec: RunSpec, result_field: str) -> float:
        number = self.result(spec).get(result_field)
        if number is None:
            raise ValueError(f"{self.runs[spec].path} has no {result_field} in its result.json")
        return float(number)


def choice_specs(budget: Budget, kinds: Sequence[Kind] = BOTH) -> list[RunSpec]:
    """Return the runs that choose learning rates; none if there is only one rate."""
    if len(budget.learning_rates) == 1:
        return []
    cells = itertools.product(budget.models(kinds), budget.learning_rates, budget.choice_seeds)
    return [_choice_spec(budget, model, rate, seed) for model, rate, seed in cells]


def first_specs(experiment: Experiment, budget: Budget) -> list[RunSpec]:
    """Return the runs of an experiment that are known before any training.

    With several learning rates these are the runs that choose among them. With one rate they are
    all runs.
    """
    specs = choice_specs(budget, experiment.kinds)
    if len(budget.learning_rates) == 1:
        specs += specs_at_rate(budget, experiment.kinds, budget.learning_rates[0])
    if experiment.specs is not None:
        specs += experiment.specs(budget)
    return specs


def specs_at_rate(budget: Budget, kinds: Sequence[Kind], learning_rate: float) -> list[RunSpec]:
    """Return the judged runs of all networks of `kinds` at one learning rate."""
    cells = itertools.product(budget.models(kinds), budget.judge_seeds)
    return [spec_at_rate(model, seed, learning_rate) for model, seed in cells]


def spec_at_rate(model: str, seed: int, learning_rate: float) -> RunSpec:
    """Return the judged run of a network at a learning rate."""
    settings = recipe_settings(model, learning_rate)
    return RunSpec(model=model, seed=seed, overrides=settings, why="to judge")


def recipe_settings(model: str, learning_rate: float) -> tuple[str, ...]:
    """Return the settings of a network: its learning rate, and the warm-up of deep networks."""
    depth = int("".join(character for character in model if character.isdigit()))
    warm_up = ("schedule.warm_up_lr=0.01",) if depth >= WARM_UP_FROM_DEPTH else ()
    return (f"optimizer.lr={learning_rate:g}", *warm_up)


def is_shallow_run_lost(curves: Sequence[Sequence[float]]) -> bool:
    """Return whether a run at another depth than the last diverged.

    Without that run, depth looks more harmful than it is.
    """
    return is_any_run_lost([curve[:-1] for curve in curves])


def is_any_run_lost(curves: Sequence[Sequence[float]]) -> bool:
    """Return whether a run of the curves diverged."""
    return not all(map(math.isfinite, itertools.chain.from_iterable(curves)))


def _choice_spec(budget: Budget, model: str, learning_rate: float, seed: int) -> RunSpec:
    # Only the training loss of these runs is used, so they save no snapshots and no curve of test
    # errors.
    unneeded = ("evaluation.test_curve=false", "evaluation.snapshots=[]")
    settings = (*recipe_settings(model, learning_rate), *unneeded, *budget.choice_overrides)
    return RunSpec(model=model, seed=seed, overrides=settings, why="to choose its learning rate")
