"""Does training error degrade with depth? The decision rule, written down before any data (claims C1, C7, C8; Sec. 1, Fig. 1).

The rule is `degradation_verdict`'s docstring; the code below it does just that. It serves plain and residual series alike.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from reslearn.study.collect import Kind, Row
from reslearn.study.estimate import CONFIDENCE, Interval
from reslearn.study.margin import Answer, margin_test
from reslearn.study.power import pairs_told
from reslearn.study.statistics import Comparison, Summary, compare, summary
from reslearn.study.text import number_text

MARGIN_PCT = 1.0
"""Points of training error below which a difference between depths does not count, unless a study says otherwise."""


class DepthRow(NamedTuple):
    """One run: layers, seed, training error in per cent (nan for a run that diverged)."""

    depth: int
    seed: int
    training_error_pct: float


@dataclass(frozen=True, kw_only=True)
class DegradationVerdict:
    """The answer and all it rests on. Differences are deepest minus shallower, in per cent points of training error."""

    answer: Answer
    reason: str
    margin_pct: float
    deepest: int
    reference_depth: int | None
    confidence: float
    """Of the simultaneous interval: 1 - 0.05 / k."""
    difference_pct: float | None
    interval_low_pct: float | None
    """Lower end of the simultaneous interval: the one "yes" is decided by."""
    interval_high_pct: float | None
    """Upper end of the simultaneous interval against the reference depth."""
    highest_pct: float | None
    """Greatest upper end of the plain 95 % intervals over all shallower depths: the one "no" is decided by."""
    num_diverged: int
    depths: tuple[tuple[int, Summary], ...]
    comparisons: tuple[tuple[int, Comparison], ...]
    """Every shallower depth against the deepest, with its simultaneous interval, paired by seed."""
    rows: tuple[DepthRow, ...]


def degradation_verdict(
    rows: Iterable[tuple[int, int, float]], *, margin_pct: float
) -> DegradationVerdict:
    """Is the deepest net harder to train than a shallower one? `rows` are (depth, seed, training error in per cent).

    The rule. Let D be the greatest depth and k the number of shallower depths. For each shallower depth d take the differences
    error(D, seed) - error(d, seed) over the seeds that both have: runs of one seed share the order of images and their augmentation.
    The reference is the shallower depth with the lowest mean training error among those pairs (ties: the shallowest), out of the
    depths with at least two pairs.

    - "yes": the mean difference to the reference is more than `margin_pct`, and its interval lies above 0. The reference is picked from
      the same data, which favors a lucky depth; so this interval is simultaneous, t at a confidence of 1 - 0.05 / k
      (Bonferroni): with 95 % it holds for all k differences at once, whichever is picked.
    - "no": for every shallower depth the upper end of the plain 95 % interval is below `margin_pct`. All k must pass, and a wrong "no"
      needs the worst of them to pass by luck, so that no correction is due (intersection-union test). A deepest net that is
      better, or worse by less than the margin, is a "no".
    - "undecided": anything else, fewer than two depths, or fewer than two seeds in common.

    Diverged runs (not finite) are left out of differences, counted and shown, and may not help the answer that leaving them out
    favors: one at depth D rules out "no", one at the reference depth rules out "yes".

    A study makes one such test a series; families of series are the caller's to correct. ValueError for no rows, a row given twice, or
    an error outside 0 to 100.
    """
    given = _checked(rows, margin_pct)
    errors: dict[int, dict[int, float]] = {
        depth: {} for depth in sorted({row.depth for row in given})
    }
    for row in given:
        errors[row.depth][row.seed] = row.training_error_pct
    deepest = max(errors)
    shallower = [depth for depth in errors if depth != deepest]
    simultaneous = _simultaneous(shallower)
    pairs = {depth: sorted(errors[depth].keys() & errors[deepest].keys()) for depth in shallower}
    sides = {
        d: ([errors[deepest][s] for s in pairs[d]], [errors[d][s] for s in pairs[d]])
        for d in shallower
        if pairs[d]
    }
    comparisons = {
        depth: compare(*both, paired=True, confidence=simultaneous) for depth, both in sides.items()
    }
    plain = {depth: compare(*both, paired=True) for depth, both in sides.items()}
    testable = bool(shallower) and all(
        depth in plain and plain[depth].interval is not None for depth in shallower
    )
    reference = _reference(
        {depth: both for depth, both in sides.items() if plain[depth].interval is not None}
    )
    chosen = None if reference is None else comparisons[reference]
    highest = max(
        (c.interval_high for c in plain.values() if c.interval_high is not None), default=None
    )
    diverged = {
        depth: sum(not math.isfinite(error) for error in errors[depth].values()) for depth in errors
    }
    answer, reason = _decide(
        deepest, reference, chosen, highest if testable else None, margin_pct, diverged, shallower
    )
    if answer == "undecided" and reference is not None:
        reason += _seeds_needed(*sides[reference], margin_pct, 1 - simultaneous)
    return DegradationVerdict(
        answer=answer,
        reason=reason,
        margin_pct=margin_pct,
        deepest=deepest,
        reference_depth=reference,
        confidence=simultaneous,
        difference_pct=None if chosen is None else chosen.difference,
        interval_low_pct=None if chosen is None else chosen.interval_low,
        interval_high_pct=None if chosen is None else chosen.interval_high,
        highest_pct=highest if testable else None,
        num_diverged=sum(diverged.values()),
        depths=tuple((depth, summary(list(errors[depth].values()))) for depth in errors),
        comparisons=tuple(comparisons.items()),
        rows=tuple(sorted(given)),
    )


def depth_rows(
    rows: Iterable[Row], *, kind: Kind, field: str = "train_recomputed_top1_error_pct"
) -> list[DepthRow]:
    """The runs of one kind as `degradation_verdict` takes them. ValueError where a run has no such field or one depth has two recipes."""
    chosen = [row for row in rows if row.kind == kind and row.depth is not None]
    for row in chosen:
        if row.result.get(field) is None:
            raise ValueError(f"{row.folder} has no {field} in its result.json")
        others = {other.protocol for other in chosen if other.depth == row.depth}
        if len(others) > 1:
            raise ValueError(
                f"runs of {row.model} follow {len(others)} recipes: choose one before a verdict"
            )
    return [DepthRow(row.depth or 0, row.seed, float(row.result[field])) for row in chosen]


def degradation_verdicts(
    rows: Sequence[Row], *, margin_pct: float = MARGIN_PCT
) -> dict[Kind, DegradationVerdict | str]:
    """The degradation verdict on each kind of net of which there are two depths; a text that says why where there can be none."""
    verdicts: dict[Kind, DegradationVerdict | str] = {}
    kinds: tuple[Kind, ...] = ("plain", "residual")
    for kind in kinds:
        if len({row.depth for row in rows if row.kind == kind}) > 1:
            try:
                verdicts[kind] = degradation_verdict(
                    depth_rows(rows, kind=kind, field=training_field(rows)), margin_pct=margin_pct
                )
            except (
                ValueError
            ) as error:  # two recipes at one depth, say: the table stands, the verdict does not
                verdicts[kind] = str(error)
    return verdicts


def training_field(rows: Iterable[Row]) -> str:
    """The training error by which runs are compared: with batch-norm statistics recomputed, where all of them have that."""
    recomputed = "train_recomputed_top1_error_pct"
    return (
        recomputed
        if all(row.result.get(recomputed) is not None for row in rows)
        else "train_top1_error_pct"
    )


def _simultaneous(shallower: Sequence[int]) -> float:
    """The confidence at which as many intervals as there are shallower depths hold at once at 95 % (Bonferroni)."""
    return 1 - (1 - CONFIDENCE) / max(1, len(shallower))


def _decide(
    deepest: int,
    reference: int | None,
    chosen: Comparison | None,
    highest: float | None,
    margin_pct: float,
    diverged: dict[int, int],
    shallower: Sequence[int],
) -> tuple[Answer, str]:
    if not shallower:
        return (
            "undecided",
            f"only depth {deepest} has finished runs: at least two depths are needed",
        )
    if reference is None or chosen is None or chosen.interval is None:
        lost = f" ({sum(diverged.values())} run(s) diverged)" if any(diverged.values()) else ""
        return (
            "undecided",
            f"fewer than two seeds are common to depth {deepest} and a shallower one{lost}",
        )
    numbers = number_text(
        chosen.difference,
        signed=True,
        unit="points of training error",
        interval=chosen.interval,
        confidence=_simultaneous(shallower),
    )
    found = f"depth {deepest} against {reference}: {numbers}, n={chosen.n_a}"
    # "yes" is decided by the simultaneous interval, "no" by the worst of the plain ones.
    both = Interval(chosen.interval.low, math.inf if highest is None else highest)
    answer = margin_test(both, margin_pct, mean=chosen.difference)
    suspect = {"yes": reference, "no": deepest}.get(answer)
    if suspect is not None and diverged[suspect]:
        return (
            "undecided",
            f"{found}; but {diverged[suspect]} run(s) of depth {suspect} diverged and could have been the worst",
        )
    if answer == "yes":
        return "yes", f"{found}: above 0, and more than {margin_pct:g}"
    if answer == "no":
        return (
            "no",
            f"{found}; no shallower depth is better by {margin_pct:g} (95 % intervals end at {highest:+.2f})",
        )
    return (
        "undecided",
        f"{found}: neither above 0 and more than {margin_pct:g}, nor below {margin_pct:g} for certain",
    )


def _seeds_needed(
    deep: list[float], shallow: list[float], margin_pct: float, significance: float
) -> str:
    """How many pairs of seeds it takes until the simultaneous interval tells the margin from 0, by the spread of those that there are."""
    differences = [a - b for a, b in zip(deep, shallow, strict=True) if math.isfinite(a - b)]
    deviation = summary(differences).standard_deviation if differences else None
    if not deviation or not margin_pct:
        return ""
    needed, points = (
        pairs_told(margin_pct, deviation, significance=significance),
        "point" if margin_pct == 1 else "points",
    )
    return f"; to tell {margin_pct:g} {points} from 0 takes {needed} seeds a depth (power 80 %)"


def _reference(sides: dict[int, tuple[list[float], list[float]]]) -> int | None:
    """The depth of lowest mean training error over finite pairs."""
    means: dict[int, float] = {}
    for depth, (deep, shallow) in sides.items():
        finite = [
            right
            for left, right in zip(deep, shallow, strict=True)
            if math.isfinite(left) and math.isfinite(right)
        ]
        if finite:
            means[depth] = math.fsum(finite) / len(finite)
    return min(means, key=lambda depth: (means[depth], depth), default=None)


def _checked(rows: Iterable[tuple[int, int, float]], margin_pct: float) -> list[DepthRow]:
    if not (math.isfinite(margin_pct) and margin_pct >= 0):
        raise ValueError(
            f"margin_pct = {margin_pct}: a finite number of per cent points from 0 is needed"
        )
    given = [DepthRow(*row) for row in rows]
    if not given:
        raise ValueError("no rows of (depth, seed, training error in per cent): no verdict")
    seen: set[tuple[int, int]] = set()
    for row in given:
        if math.isfinite(row.training_error_pct) and not 0 <= row.training_error_pct <= 100:
            raise ValueError(
                f"error {row.training_error_pct} at depth {row.depth}, seed {row.seed}: 0 to 100 per cent is allowed"
            )
        if (row.depth, row.seed) in seen:
            raise ValueError(
                f"depth {row.depth}, seed {row.seed} is given twice: one run of one recipe for each"
            )
        seen.add((row.depth, row.seed))
    return given
