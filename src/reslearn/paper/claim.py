"""What a claim of the paper is to us: its words, a decision rule written before the data, the runs it rests on, and a finding.

A claim module (paper/claims/cNN.py) gives `CLAIM`, `conditions(budget)` (the runs it needs; shared between claims, trained once) and
`judge(evidence) -> Finding` (reads finished run folders, never trains a recipe itself). It may give `judged_conditions(evidence)`:
runs that are known only after the first, trained next; most want `protocol.judged_conditions`, each net at its chosen learning rate.
A run that diverged is missing in `evidence.runs`; `protocol.judged_run(evidence, "plain56", seed)` finds the others.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

from reslearn.report import Figure
from reslearn.runs import RunFolder

Outcome = Literal["shown", "not shown", "undecided", "not testable here"]


@dataclass(frozen=True, kw_only=True)
class Claim:
    """`identifier` is C1 to C14; `rule` says in words what `judge` applies, margins included."""

    identifier: str
    text: str
    section: str
    rule: str


@dataclass(frozen=True, kw_only=True)
class RunSpec:
    """One run that a claim needs: a model, a seed and values that differ from the budget's recipe. `why` is shown while it trains."""

    model: str
    seed: int
    overrides: tuple[str, ...] = ()
    why: str = field(default="", compare=False)


@dataclass(frozen=True, kw_only=True)
class Budget:
    """How much is spent: depths, learning rates to choose among, seeds to choose on and seeds to judge on (never the same).

    `extra_residual_depths`: beyond the depths at which both families are compared, as the paper's ResNet-110. `choice_overrides`: how runs
    to choose on differ from those to judge on, in length say.
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


class ClaimModule(Protocol):
    """What every module in paper/claims is."""

    CLAIM: Claim

    def conditions(self, budget: Budget) -> "list[RunSpec]": ...
    def judge(self, evidence: "Runs") -> "Finding": ...


class Fit(Protocol):
    """`reslearn.train.fit`, handed in by the command line: `paper` does not import `train`."""

    def __call__(
        self, model: Any, batches: Any, loss: Any, optimizer: Any, *, steps: int
    ) -> list[Any]: ...


class Evaluate(Protocol):
    """`reslearn.train.evaluate_bundle`, handed in likewise: runs by a protocol of testing, several as an ensemble, to metrics."""

    def __call__(self, source: Sequence[Path], *, protocol: Any, data_dir: Path | None) -> Any: ...


def _no_evaluation(source: Sequence[Path], *, protocol: Any, data_dir: Path | None) -> Any:
    raise ValueError(
        "nothing to evaluate with was handed in: run_exhibit(..., evaluate=reslearn.train.evaluate_bundle)"
    )


@dataclass(frozen=True, kw_only=True)
class Runs:
    """What `judge` may look at: finished runs by condition, a place for its own files, and `fit` for small fits of its own (C11)."""

    budget: Budget
    runs: Mapping[RunSpec, RunFolder]
    folder: Path
    fit: Fit
    evaluate: Evaluate = _no_evaluation
    data_dir: Path | None = None
    say: Callable[[str], None] = lambda text: None


@dataclass(frozen=True, kw_only=True)
class Finding:
    """A verdict with what it rests on. `measured` is one line for the table; `numbers` is JSON by `runs.plain`."""

    claim: Claim
    outcome: Outcome
    measured: str
    numbers: Mapping[str, Any] = field(default_factory=dict)
    figures: tuple[Figure, ...] = ()
    rests_on: tuple[str, ...] = ()
