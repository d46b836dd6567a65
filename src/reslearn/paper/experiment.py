"""The vocabulary of this room: an experiment of the paper, the runs it needs, and its result.

A claim (paper/claims), a table or a figure (paper/exhibits) is a module with two names.
`EXPERIMENT` is the question and its decision rule. `measure(trained) -> Result` reads finished runs
and applies the rule. Each run is trained once, however many experiments need it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

from reslearn.report import Drawing, Panels, Table
from reslearn.report.content import VerdictOutcome
from reslearn.study import CONFIDENCE, Interval, Summary, summary
from reslearn.study.collect import Kind

BOTH: tuple[Kind, ...] = ("plain", "residual")


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """One claim, table or figure of the paper.

    Attributes:
        name: "C1" to "C14" for claims; the name of the command for tables and figures.
        text: The claim in words, or the title of the table or figure.
        section: The place in the paper.
        rule: The decision rule in words, with its margins. It was written before any data.
        kinds: Families of networks that are trained at each depth of the budget, at the best of its
            learning rates.
        specs: Further runs that the experiment needs, by budget.
        data: The data of the paper's own experiment; "none" if nothing is trained.
        depths: Depths by the name of the budget. Empty if the user cannot choose depths.
        extra_residual_depths: Depths by the name of the budget at which only residual networks are
            trained.
        min_depths, max_depths: How many depths the user may choose.
        is_open: The paper leaves the question open, so that no verdict contradicts it.
        has_fixed_seeds: The experiment itself names the seeds of its runs.
    """

    name: str
    text: str
    section: str
    rule: str
    kinds: tuple[Kind, ...] = ()
    specs: Callable[[Budget], list[RunSpec]] | None = None
    data: Literal["none", "CIFAR-10", "ImageNet"] = "CIFAR-10"
    depths: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    extra_residual_depths: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    min_depths: int = 1
    max_depths: int | None = None
    is_open: bool = False
    has_fixed_seeds: bool = False


@dataclass(frozen=True, kw_only=True)
class RunSpec:
    """One run: a model, a seed, and settings that differ from the recipe of the budget.

    `why` is displayed during training. Two specs that differ only in `why` are the same run.
    """

    model: str
    seed: int
    overrides: tuple[str, ...] = ()
    why: str = field(default="", compare=False)


@dataclass(frozen=True, kw_only=True)
class Budget:
    """The amount of computation for an experiment: recipe, depths, learning rates and seeds.

    Attributes:
        recipe: Name of the recipe of all runs.
        overrides: Settings of all runs that differ from the recipe.
        depths: Depths at which both families are trained.
        learning_rates: Candidates. Each network is trained at the best of them.
        choice_seeds: Seeds of the runs that choose learning rates. Disjoint from `judge_seeds`.
        judge_seeds: Seeds of the runs that verdicts rest on.
        extra_residual_depths: Depths at which only residual networks are trained, such as
            ResNet-110.
        choice_overrides: Settings of the runs that choose learning rates, such as a shorter
            schedule.
    """

    name: Literal["demo", "smoke", "short", "medium", "full"]
    data: str
    recipe: str
    overrides: tuple[str, ...]
    depths: tuple[int, ...]
    learning_rates: tuple[float, ...]
    choice_seeds: tuple[int, ...]
    judge_seeds: tuple[int, ...]
    extra_residual_depths: tuple[int, ...] = ()
    choice_overrides: tuple[str, ...] = ()

    def depths_of(self, kind: Kind) -> tuple[int, ...]:
        """Return all depths at which a family is trained, in rising order."""
        extra = self.extra_residual_depths if kind == "residual" else ()
        return tuple(sorted({*self.depths, *extra}))

    def models(self, kinds: Sequence[Kind] = BOTH) -> list[str]:
        """Return the names of the networks of `kinds`, by kind and depth."""
        models: list[str] = []
        for kind in kinds:
            models += [model_name(kind, depth) for depth in self.depths_of(kind)]
        return models


def model_name(kind: Kind, depth: int) -> str:
    """Return the name of a network for CIFAR, such as "plain20" or "resnet56"."""
    return f"{'plain' if kind == 'plain' else 'resnet'}{depth}"


@dataclass(frozen=True, kw_only=True)
class Line:
    """A number of the paper beside ours, or a difference that the paper shows, with its verdict.

    Attributes:
        what: What the line is about. It identifies the line in JSON.
        unit: "%", "points", "10^6", "10^9" or "standard deviation".
        paper: The number in the paper; None if the line is about a difference between our own runs.
        values: Our numbers, one per seed; nan for a run without a result.
        difference: Ours minus the paper's, or the mean of `values` if they are differences already.
        interval: Interval of the difference.
        because: One sentence on the verdict.
        num_lost: Number of runs behind the line that have no result.
        confidence: Confidence of `interval`.
    """

    what: str
    unit: str
    paper: float | None
    values: tuple[float, ...]
    difference: float | None
    interval: Interval | None
    outcome: VerdictOutcome
    because: str = ""
    num_lost: int = 0
    confidence: float = CONFIDENCE

    @property
    def summary(self) -> Summary | None:
        """Mean, spread and interval of `values`; None without values."""
        return summary(self.values) if self.values else None


@dataclass(frozen=True, kw_only=True)
class Result:
    """What an experiment measured. A claim has one `outcome`; a table or figure has one per line.

    Attributes:
        outcome: The verdict on a claim; None for tables and figures.
        measured: The measurement in one sentence, for the table of claims.
        lines: Lines with verdicts.
        tables: Numbers without a verdict.
        notes: Facts that a reader needs before the numbers.
        numbers: All measured numbers, as JSON values after `runs.to_json_value`.
        rests_on: Names of runs or networks. None stands for all networks of the experiment's
            `kinds`.
    """

    outcome: VerdictOutcome | None = None
    measured: str = ""
    lines: tuple[Line, ...] = ()
    figures: tuple[Drawing | Panels, ...] = ()
    tables: tuple[Table, ...] = ()
    notes: tuple[str, ...] = ()
    numbers: Mapping[str, Any] = field(default_factory=dict)
    rests_on: tuple[str, ...] | None = None

    @property
    def outcomes(self) -> tuple[VerdictOutcome, ...]:
        """All verdicts: the verdict on the claim, or the verdict of each line."""
        verdicts = tuple(line.outcome for line in self.lines)
        return verdicts if self.outcome is None else (self.outcome, *verdicts)


class ExperimentModule(Protocol):
    """A module of paper/claims or paper/exhibits, or an object with the same two names."""

    EXPERIMENT: Experiment

    def measure(self, trained: Any) -> Result: ...


class Fit(Protocol):
    """`reslearn.train.fit`, passed in by the command line: this room does not import `train`."""

    def __call__(
        self, model: Any, batches: Any, loss: Any, optimizer: Any, *, steps: int
    ) -> list[Any]: ...


class Evaluate(Protocol):
    """Evaluates runs by a protocol of testing: `evaluate` of the command line, passed in."""

    def __call__(self, source: Sequence[Path], *, protocol: Any, data_dir: Path | None) -> Any: ...
