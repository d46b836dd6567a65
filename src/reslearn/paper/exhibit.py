"""What a table or figure of the paper is to us: the runs it needs, and lines that set ours beside the paper's, each with a verdict.

A module (paper/exhibits/NAME.py) gives `EXHIBIT`, `conditions(budget)` (the runs it needs; shared between tables and figures, trained
once) and `measure(evidence) -> Measured` (reads finished runs). The rules below were written before any data; margins are theirs.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from reslearn.paper.claim import Budget, Runs, RunSpec
from reslearn.report import Drawing, Panels, Table
from reslearn.study import (
    CONFIDENCE,
    DegradationVerdict,
    Interval,
    Spread,
    Summary,
    compare_to,
    equivalence_to,
    needed_pairs_text,
    summary,
)

Outcome = Literal["reproduced", "not reproduced", "shown", "not shown", "undecided", "not run here"]
"""Of runs by the paper's own recipe on its own data: reproduced or not. Of other runs, and of what the paper leaves open: shown or not."""

MARGIN_PCT = 0.5
"""Points of error within which a mean counts as the paper's. Its numbers are of one run (five for 110 layers, which spread by 0.16)."""
MARGIN_OF_A_RISE_PCT = 1.0
"""Points of error below which a rise or fall with depth does not count."""


@dataclass(frozen=True, kw_only=True)
class Exhibit:
    """`name` is that of the command: table1 to table6, fig1, fig4, fig6, fig7, ambiguities. `data`: what the paper's own needs. Where the
    paper itself leaves a question open (`is_open`) no answer is against it. `names_seeds`: which they are belongs to what is run."""

    name: str
    title: str
    section: str
    data: Literal["none", "CIFAR-10", "ImageNet"]
    rule: str
    fewest_depths: int = 1
    most_depths: int | None = None
    is_open: bool = False
    names_seeds: bool = False


@dataclass(frozen=True, kw_only=True)
class Line:
    """One number of the paper beside ours. `values` are one a seed (nan: no result), `difference` is ours minus the paper's, or, where
    `paper` is None, the difference between two conditions that the line is about. `because` is one sentence on the verdict, `num_lost`
    the number of runs behind it that have no result, `confidence` that of `interval`."""

    what: str
    unit: str
    paper: float | None
    values: tuple[float, ...]
    difference: float | None
    interval: Interval | None
    outcome: Outcome
    because: str = ""
    num_lost: int = 0
    confidence: float = CONFIDENCE

    @property
    def summary(self) -> Summary | None:
        """Mean, spread and interval of `values`; None without any."""
        return summary(self.values) if self.values else None


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What a table or figure came to. `tables` hold what has no verdict."""

    lines: tuple[Line, ...]
    figures: tuple[Drawing | Panels, ...] = ()
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

    def conditions(self, budget: Budget) -> list[RunSpec]: ...
    def measure(self, evidence: Runs) -> Measured: ...


OTHER_RUNS_RULE = (
    " Of the paper's own recipe on its own data (--budget full) that reads reproduced or not reproduced; of other runs the same rule says "
    "shown or not shown."
)


_CIFAR10 = "804876dd0acf5ac2"  # the fingerprint of all 60,000 images as published


def is_papers_own(evidence: Runs) -> bool:
    """Whether the runs are those of Sec. 4.2: its recipe in full, on the images of CIFAR-10. Numbers of others have no reason to agree."""
    if evidence.budget.name != "full":  # told without opening a run, once for every line of a table
        return False
    return {
        run.environment.get("data", {}).get("fingerprint") for run in evidence.runs.values()
    } == {_CIFAR10}


def exact(what: str, unit: str, ours: float, paper: float, *, within: float) -> Line:
    """A number that nothing random enters: reproduced where it is at most `within` away from what the paper prints."""
    off = ours - paper
    outcome: Outcome = "reproduced" if abs(off) <= within * (1 + 1e-9) else "not reproduced"
    return Line(
        what=what,
        unit=unit,
        paper=paper,
        values=(ours,),
        difference=off,
        interval=None,
        outcome=outcome,
    )


def against_paper(
    what: str,
    values: Sequence[float],
    paper: float,
    *,
    same_protocol: bool,
    margin: float = MARGIN_PCT,
    spread: Spread | None = None,
) -> Line:
    """An error of ours against the paper's, in per cent; `spread` where the paper's is a mean of several runs.

    Reproduced: two one-sided t tests at 5 % place the mean within `margin` points of the paper's number. Not reproduced: the 95 %
    interval lies outside that margin. Undecided: anything else. Not run here: another protocol than the paper's was run
    (`same_protocol`), whose numbers have no reason to agree; they are shown all the same. A run that diverged rules out "reproduced",
    and so do runs that all gave the very same number, whose spread says nothing.
    """
    if not values:
        return not_run(what, "", unit="%", paper=paper)
    test, numbers = equivalence_to(values, paper, margin=margin, spread=spread), summary(values)
    around = compare_to(values, paper, spread=spread).interval
    outcome: Outcome
    if not same_protocol:
        outcome, because = (
            "not run here",
            "another protocol than the paper's (--budget full on its own data)",
        )
    elif numbers.standard_deviation == 0:
        outcome, because = "undecided", f"{numbers.n} runs gave the very same number"
    elif test.equivalent:
        lost = numbers.num_diverged
        outcome, because = (
            ("undecided", f"{lost} diverged")
            if lost
            else ("reproduced", f"within {margin:g} points (p = {test.p:.2g})")
        )
    elif around is not None and (around.low > margin or around.high < -margin):
        outcome, because = "not reproduced", f"more than {margin:g} points away"
    else:
        outcome, because = (
            "undecided",
            "one seed has no interval"
            if around is None
            else f"neither within {margin:g} points nor outside",
        )
        because += _seeds_to_see(margin, numbers, "points")
    difference = None if math.isnan(numbers.mean) else numbers.mean - paper
    return Line(
        what=what,
        unit="%",
        paper=paper,
        values=tuple(values),
        difference=difference,
        interval=around,
        outcome=outcome,
        because=because,
        num_lost=numbers.num_diverged,
    )


def not_run(
    what: str,
    because: str,
    *,
    unit: str = "points",
    paper: float | None = None,
    values: tuple[float, ...] = (),
) -> Line:
    """A line of which there are no runs, or runs (`values`) that no number of the paper stands beside."""
    return Line(
        what=what,
        unit=unit,
        paper=paper,
        values=values,
        difference=None,
        interval=None,
        outcome="not run here",
        because=because,
    )


def rises(
    what: str,
    differences: Sequence[float],
    *,
    same_protocol: bool,
    unit: str = "points",
    margin: float = MARGIN_OF_A_RISE_PCT,
) -> Line:
    """Differences, one a seed, of which the paper's picture says that they are above 0.

    Reproduced (of another protocol than the paper's: shown): the 95 % interval lies above 0 and the mean is more than `margin`. Not
    reproduced (not shown): the interval ends at or below `margin`. Undecided: anything else, one seed, and where a run diverged.
    """
    yes, no = _answers(same_protocol)
    numbers = summary(differences)
    outcome: Outcome = "undecided"
    because = ""
    if numbers.interval is None:
        because = "fewer than two seeds"
    elif numbers.num_diverged:
        because = f"{numbers.num_diverged} diverged"
    elif numbers.interval.low > 0 and numbers.mean > margin:
        outcome = yes
    elif numbers.interval.high <= margin:
        outcome = no
    else:
        because = f"the interval does not tell a rise above {margin:g} from none"
        if numbers.mean > 0:
            because += _seeds_to_see(numbers.mean, numbers, unit)
    mean = None if math.isnan(numbers.mean) else numbers.mean
    return Line(
        what=what,
        unit=unit,
        paper=None,
        values=tuple(differences),
        difference=mean,
        interval=numbers.interval,
        outcome=outcome,
        because=because,
        num_lost=numbers.num_diverged,
    )


def _seeds_to_see(difference: float, numbers: Summary, unit: str) -> str:
    """How many seeds it would take until a t test at 5 % tells the difference from 0, by the spread of those that there are."""
    if not numbers.standard_deviation or not difference:
        return ""
    return f"; to tell {abs(difference):.2g} {unit} from 0 takes {needed_pairs_text(difference, numbers.standard_deviation)} seeds (power 80 %)"


def _answers(same_protocol: bool) -> tuple[Outcome, Outcome]:
    return ("reproduced", "not reproduced") if same_protocol else ("shown", "not shown")


def degrades(
    what: str, verdict: DegradationVerdict, *, paper_says: Literal["yes", "no"], same_protocol: bool
) -> Line:
    """The degradation verdict of `study`, against what the paper's picture says."""
    yes, no = _answers(same_protocol)
    outcome: Outcome = (
        "undecided"
        if verdict.answer == "undecided"
        else yes
        if verdict.answer == paper_says
        else no
    )
    deepest = {
        row.seed: row.training_error_pct for row in verdict.rows if row.depth == verdict.deepest
    }
    reference = {
        row.seed: row.training_error_pct
        for row in verdict.rows
        if row.depth == verdict.reference_depth
    }
    values = tuple(
        deepest[seed] - reference[seed] for seed in sorted(deepest.keys() & reference.keys())
    )
    low, high = verdict.interval_low_pct, verdict.interval_high_pct
    return Line(
        what=what,
        unit="points",
        paper=None,
        values=values,
        difference=verdict.difference_pct,
        interval=None if low is None or high is None else Interval(low, high),
        outcome=outcome,
        because=verdict.reason,
        num_lost=verdict.num_diverged,
        confidence=verdict.confidence,
    )
