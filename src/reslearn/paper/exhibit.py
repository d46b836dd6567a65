"""What a table or figure of the paper is to us: the runs it needs, and lines that set ours beside the paper's, each with a verdict.

A module (paper/exhibits/NAME.py) gives `EXHIBIT`, `conditions(budget)` (the runs it needs; shared between tables and figures, trained
once) and `measure(evidence) -> Measured` (reads finished runs). The rules below were written before any data; margins are theirs.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from reslearn.paper.claim import Budget, Condition, Evidence
from reslearn.report import Figure, Panels, Table
from reslearn.study import DegradationVerdict, Interval, Summary, equivalence_to, summary

Outcome = Literal["reproduced", "not reproduced", "shown", "not shown", "undecided", "not run here"]
"""Against the paper: reproduced or not. Of a question that the paper leaves open: shown or not shown."""

MARGIN_PCT = 0.5
"""Points of error within which a mean counts as the paper's. Its numbers are of one run (five for 110 layers, which spread by 0.16)."""
MARGIN_OF_A_RISE_PCT = 1.0
"""Points of error below which a rise or fall with depth does not count."""


@dataclass(frozen=True, kw_only=True)
class Exhibit:
    """`name` is that of the command: table1 to table6, fig1, fig4, fig6, fig7, ambiguities. `data`: what the paper's own needs."""

    name: str
    title: str
    section: str
    data: Literal["none", "CIFAR-10", "ImageNet"]
    rule: str
    fewest_depths: int = 1


@dataclass(frozen=True, kw_only=True)
class Line:
    """One number of the paper beside ours. `values` are one a seed (nan: diverged), `difference` is ours minus the paper's, or, where
    `paper` is None, the difference between two conditions that the line is about. `because` is one sentence on the verdict."""

    what: str
    unit: str
    paper: float | None
    values: tuple[float, ...]
    difference: float | None
    interval: Interval | None
    outcome: Outcome
    because: str = ""

    @property
    def summary(self) -> Summary | None:
        """Mean, spread and interval of `values`; None without any."""
        return summary(self.values) if self.values else None


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What a table or figure came to. `tables` hold what has no verdict."""

    lines: tuple[Line, ...]
    figures: tuple[Figure | Panels, ...] = ()
    tables: tuple[Table, ...] = ()
    notes: tuple[str, ...] = ()
    numbers: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Depths:
    """At which depths nets are compared. `residual`: further ones, that only residual nets have, as the paper's ResNet-110."""

    both: tuple[int, ...]
    residual: tuple[int, ...] = ()


class ExhibitModule(Protocol):
    """What every module in paper/exhibits is. `DEPTHS` by the name of the budget; empty where depth is no question."""

    EXHIBIT: Exhibit
    DEPTHS: Mapping[str, Depths]

    def conditions(self, budget: Budget) -> list[Condition]: ...
    def measure(self, evidence: Evidence) -> Measured: ...


def exact(what: str, unit: str, ours: float, paper: float, *, last_digit: float) -> Line:
    """A number that nothing random enters: reproduced where it is less than one unit of the last digit that the paper prints away."""
    off = ours - paper
    outcome: Outcome = "reproduced" if abs(off) < last_digit else "not reproduced"
    return Line(what=what, unit=unit, paper=paper, values=(ours,), difference=off, interval=None, outcome=outcome)


def against_paper(what: str, values: Sequence[float], paper: float, *, same_protocol: bool, margin: float = MARGIN_PCT) -> Line:
    """An error of ours against the paper's, in per cent.

    Reproduced: two one-sided t tests at 5 % place the mean within `margin` points of the paper's number. Not reproduced: the 95 %
    interval lies outside that margin. Undecided: anything else. Not run here: another protocol than the paper's was run
    (`same_protocol`), whose numbers have no reason to agree; they are shown all the same. A run that diverged rules out "reproduced".
    """
    if not values:
        return Line(what=what, unit="%", paper=paper, values=(), difference=None, interval=None, outcome="not run here")
    test, numbers = equivalence_to(values, paper, margin=margin), summary(values)
    around = None if numbers.interval is None else Interval(numbers.interval.low - paper, numbers.interval.high - paper)
    outcome: Outcome
    if not same_protocol:
        outcome, because = "not run here", "another protocol than the paper's (--budget full on its own data)"
    elif test.equivalent:
        lost = numbers.num_diverged
        outcome, because = ("undecided", f"{lost} diverged") if lost else ("reproduced", f"within {margin:g} points (p = {test.p:.2g})")
    elif around is not None and (around.low > margin or around.high < -margin):
        outcome, because = "not reproduced", f"more than {margin:g} points away"
    else:
        outcome, because = "undecided", "one seed has no interval" if around is None else f"neither within {margin:g} points nor outside"
    difference = None if math.isnan(numbers.mean) else numbers.mean - paper
    return Line(
        what=what, unit="%", paper=paper, values=tuple(values), difference=difference, interval=around, outcome=outcome, because=because
    )  # fmt: skip


def rises(what: str, differences: Sequence[float], *, unit: str = "points", margin: float = MARGIN_OF_A_RISE_PCT) -> Line:
    """Differences, one a seed, of which the paper's picture says that they are above 0.

    Reproduced: the 95 % interval lies above 0 and the mean is more than `margin`. Not reproduced: the interval ends at or below `margin`.
    Undecided: anything else, one seed, and where a run diverged.
    """
    numbers = summary(differences)
    outcome: Outcome = "undecided"
    because = ""
    if numbers.interval is None:
        because = "fewer than two seeds"
    elif numbers.num_diverged:
        because = f"{numbers.num_diverged} diverged"
    elif numbers.interval.low > 0 and numbers.mean > margin:
        outcome = "reproduced"
    elif numbers.interval.high <= margin:
        outcome = "not reproduced"
    else:
        because = f"the interval does not tell a rise above {margin:g} from none"
    mean = None if math.isnan(numbers.mean) else numbers.mean
    return Line(
        what=what, unit=unit, paper=None, values=tuple(differences), difference=mean, interval=numbers.interval, outcome=outcome,
        because=because,
    )  # fmt: skip


def degrades(what: str, verdict: DegradationVerdict, *, paper_says: Literal["yes", "no"]) -> Line:
    """The degradation verdict of `study`, against what the paper's picture says."""
    outcome: Outcome = "undecided" if verdict.answer == "undecided" else "reproduced" if verdict.answer == paper_says else "not reproduced"
    deepest = {row.seed: row.training_error_pct for row in verdict.rows if row.depth == verdict.deepest}
    reference = {row.seed: row.training_error_pct for row in verdict.rows if row.depth == verdict.reference_depth}
    values = tuple(deepest[seed] - reference[seed] for seed in sorted(deepest.keys() & reference.keys()))
    low, high = verdict.interval_low_pct, verdict.interval_high_pct
    return Line(
        what=what, unit="points", paper=None, values=values, difference=verdict.difference_pct,
        interval=None if low is None or high is None else Interval(low, high), outcome=outcome, because=verdict.reason,
    )  # fmt: skip
