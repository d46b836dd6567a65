"""The decision rules of this room. They were written before any data.

Every comparison of an interval with a margin is made by `study.margin`. This module turns the
answers into verdicts and into lines of tables.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

from reslearn.paper.experiment import Line
from reslearn.paper.trained import Trained
from reslearn.report.content import VerdictOutcome
from reslearn.study import (
    Answer,
    DegradationVerdict,
    Interval,
    Spread,
    Summary,
    compare,
    compare_to,
    equivalence_test,
    equivalence_to,
    margin_test,
    needed_pairs_text,
    summary,
)

MARGIN_PCT = 0.5
"""Points of error within which a mean counts as the paper's.

The paper's numbers are of one run each (five runs for 110 layers, with a standard deviation of
0.16).
"""
MARGIN_OF_A_RISE_PCT = 1.0
"""Points of error below which a rise or fall with depth does not count."""

OTHER_RUNS_RULE = (
    " For runs of the paper's own recipe on its own data (--budget full) the verdict is "
    "reproduced or not reproduced. For other runs the same rule gives shown or not shown."
)

_CIFAR10_FINGERPRINT = "804876dd0acf5ac2"  # of all 60,000 images as published


def verdict_on_claim(answer: Answer) -> VerdictOutcome:
    """Return the verdict on a claim for the answer to "is it so?"."""
    outcomes: dict[Answer, VerdictOutcome] = {
        "yes": "shown",
        "no": "not shown",
        "undecided": "undecided",
    }
    return outcomes[answer]


def effect_test(numbers: Summary, margin: float, *, scale: float = 1.0) -> Answer:
    """Decide whether an effect lies above 0 and is more than `margin` in the mean.

    Args:
        numbers: The effect, with its interval over seeds.
        scale: Factor from the unit of `numbers` to the unit of `margin`. A negative factor reverses
            the direction.
    """
    interval = None if numbers.interval is None else numbers.interval.scaled_by(scale)
    return margin_test(interval, margin, mean=numbers.mean * scale)


def all_of(*answers: Answer) -> Answer:
    """Return "yes" if all answers are "yes", "no" if one is "no", and "undecided" otherwise."""
    if "no" in answers:
        return "no"
    return "yes" if all(answer == "yes" for answer in answers) else "undecided"


def is_papers_own(trained: Trained) -> bool:
    """Return whether the runs follow the full recipe of Sec. 4.2 on the images of CIFAR-10.

    The numbers of other runs have no reason to agree with the paper's.
    """
    if trained.budget.name != "full":
        return False
    fingerprints = {
        run.environment.get("data", {}).get("fingerprint") for run in trained.runs.values()
    }
    return fingerprints == {_CIFAR10_FINGERPRINT}


def exact(what: str, unit: str, value: float, paper: float, *, within: float) -> Line:
    """Compare two numbers without randomness: reproduced if they differ by at most `within`."""
    difference = value - paper
    agrees = abs(difference) <= within * (1 + 1e-9)
    return Line(
        what=what,
        unit=unit,
        paper=paper,
        values=(value,),
        difference=difference,
        interval=None,
        outcome="reproduced" if agrees else "not reproduced",
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
    """Compare our mean error with the paper's.

    The rule:

    - "reproduced": two one-sided t tests at 5 % place the mean within `margin` points of the
      paper's number.
    - "not reproduced": the 95 % interval lies outside this margin.
    - "undecided": everything else. A diverged run rules out "reproduced". So do runs that all gave
      exactly the same number, because their spread says nothing.
    - "not run here": the protocol is not the paper's (`same_protocol`). The numbers are shown
      without a verdict.

    Args:
        values: Our errors in percent, one per seed.
        spread: Spread of the paper's number, if that is a mean of several runs.
    """
    if not values:
        return not_run(what, "", unit="%", paper=paper)
    numbers = summary(values)
    interval = compare_to(values, paper, spread=spread).interval
    outcome: VerdictOutcome = "not run here"
    because = "another protocol than the paper's (--budget full on its own data)"
    if same_protocol:
        outcome, because = _agreement(values, paper, numbers, interval, margin, spread)
    return Line(
        what=what,
        unit="%",
        paper=paper,
        values=tuple(values),
        difference=None if math.isnan(numbers.mean) else numbers.mean - paper,
        interval=interval,
        outcome=outcome,
        because=because,
        num_lost=numbers.num_diverged,
    )


def _agreement(
    values: Sequence[float],
    paper: float,
    numbers: Summary,
    interval: Interval | None,
    margin: float,
    spread: Spread | None,
) -> tuple[VerdictOutcome, str]:
    """Apply the rule of `against_paper` to runs of the paper's own protocol."""
    if numbers.standard_deviation == 0:
        return "undecided", f"{numbers.n} runs gave exactly the same number"
    test = equivalence_to(values, paper, margin=margin, spread=spread)
    if test.equivalent:
        if numbers.num_diverged:
            return "undecided", f"{numbers.num_diverged} diverged"
        return "reproduced", f"within {margin:g} points (p = {test.p:.2g})"
    if equivalence_test(interval, margin) == "no":
        return "not reproduced", f"more than {margin:g} points away"
    because = f"neither within {margin:g} points nor outside"
    if interval is None:
        because = "one seed has no interval"
    return "undecided", because + _seeds_needed(margin, numbers, "points")


def not_run(
    what: str,
    because: str,
    *,
    unit: str = "points",
    paper: float | None = None,
    values: tuple[float, ...] = (),
) -> Line:
    """Make a line without a verdict: there are no runs, or no number of the paper."""
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
    """Judge differences that are above 0 according to a figure of the paper.

    The rule:

    - "reproduced" ("shown" for another protocol than the paper's): the 95 % interval lies above 0
      and the mean is more than `margin`.
    - "not reproduced" ("not shown"): the interval ends at or below `margin`.
    - "undecided": everything else, a single seed, and any diverged run.

    Args:
        differences: One difference per seed; nan if one of its runs diverged.
    """
    numbers = summary(differences)
    answer: Answer = "undecided"
    because = ""
    if numbers.interval is None:
        because = "fewer than two seeds"
    elif numbers.num_diverged:
        because = f"{numbers.num_diverged} diverged"
    else:
        answer = margin_test(numbers.interval, margin, mean=numbers.mean, no_at_margin=True)
        if answer == "undecided":
            because = f"the interval does not separate a rise above {margin:g} from no rise"
            if numbers.mean > 0:
                because += _seeds_needed(numbers.mean, numbers, unit)
    return Line(
        what=what,
        unit=unit,
        paper=None,
        values=tuple(differences),
        difference=None if math.isnan(numbers.mean) else numbers.mean,
        interval=numbers.interval,
        outcome=_verdict_on_line(answer, same_protocol=same_protocol),
        because=because,
        num_lost=numbers.num_diverged,
    )


def degrades(
    what: str, verdict: DegradationVerdict, *, paper_says: Literal["yes", "no"], same_protocol: bool
) -> Line:
    """Compare the degradation verdict of `study` with what a figure of the paper shows."""
    answer: Answer = "undecided"
    if verdict.answer != "undecided":
        answer = "yes" if verdict.answer == paper_says else "no"
    interval = None
    if verdict.interval_low_pct is not None and verdict.interval_high_pct is not None:
        interval = Interval(verdict.interval_low_pct, verdict.interval_high_pct)
    return Line(
        what=what,
        unit="points",
        paper=None,
        values=_degradation_by_seed(verdict),
        difference=verdict.difference_pct,
        interval=interval,
        outcome=_verdict_on_line(answer, same_protocol=same_protocol),
        because=verdict.reason,
        num_lost=verdict.num_diverged,
        confidence=verdict.confidence,
    )


def _degradation_by_seed(verdict: DegradationVerdict) -> tuple[float, ...]:
    """Return the error at the greatest depth minus the reference depth, per common seed."""
    errors: dict[int | None, dict[int, float]] = {}
    for row in verdict.rows:
        errors.setdefault(row.depth, {})[row.seed] = row.training_error_pct
    deepest, reference = (
        errors.get(depth, {}) for depth in (verdict.deepest, verdict.reference_depth)
    )
    return tuple(
        deepest[seed] - reference[seed] for seed in sorted(deepest.keys() & reference.keys())
    )


def moves(what: str, differences: Sequence[float], *, p: float | None, margin: float) -> Line:
    """Judge whether a switch moves the error.

    The rule: "shown" if `p` is below 5 %. "not shown" if the 95 % interval lies within `margin` on
    both sides. "undecided" for everything else, and if a run diverged.

    Args:
        differences: Error with the switch minus error without, one per seed.
        p: p value, corrected for all switches that are judged together.
    """
    numbers = compare(differences, [0.0] * len(differences), paired=True)
    outcome: VerdictOutcome = "undecided"
    if numbers.interval is not None and not numbers.num_diverged:
        if p is not None and p < 0.05:
            outcome = "shown"
        elif equivalence_test(numbers.interval, margin) == "yes":
            outcome = "not shown"
    return Line(
        what=what,
        unit="points",
        paper=None,
        values=tuple(differences),
        difference=None if math.isnan(numbers.difference) else numbers.difference,
        interval=numbers.interval,
        outcome=outcome,
        because="fewer than two seeds" if p is None else "",
        num_lost=numbers.num_diverged,
    )


def _verdict_on_line(answer: Answer, *, same_protocol: bool) -> VerdictOutcome:
    if answer == "undecided":
        return "undecided"
    if same_protocol:
        return "reproduced" if answer == "yes" else "not reproduced"
    return "shown" if answer == "yes" else "not shown"


def _seeds_needed(difference: float, numbers: Summary, unit: str) -> str:
    """Return how many seeds it takes to tell the difference from 0 by a t test at 5 %."""
    if not numbers.standard_deviation or not difference:
        return ""
    seeds = needed_pairs_text(difference, numbers.standard_deviation)
    return (
        f"; {seeds} seeds are needed to tell {abs(difference):.2g} {unit} from 0 with a power of "
        "80 %"
    )
