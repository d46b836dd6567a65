"""Degradation verdict: does training error increase with depth? (C1, C7, C8; Sec. 1, Fig. 1.)

The rule was written before any data were seen. It is the docstring of `degradation_verdict`, and
applies to plain and residual networks alike.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from reslearn.study.collect import Kind, Row
from reslearn.study.estimate import CONFIDENCE, Interval
from reslearn.study.margin import Answer, margin_test, withhold
from reslearn.study.power import needed_pairs_text
from reslearn.study.statistics import Comparison, Summary, compare, summary
from reslearn.study.text import number_text

MARGIN_PCT = 1.0
"""Default margin in points of training error: smaller differences between depths do not count."""

Pairs = tuple[list[float], list[float]]
"""Training errors of the deepest and of a shallower network, in the order of common seeds."""


class DepthRow(NamedTuple):
    """One run: layers, seed, training error in percent (nan for a diverged run)."""

    depth: int
    seed: int
    training_error_pct: float


@dataclass(frozen=True, kw_only=True)
class DegradationVerdict:
    """The answer and its evidence. Differences are deepest minus shallower, in points of error.

    Attributes:
        answer: "yes" if training error increases with depth.
        reason: The evidence for the answer, in one line.
        margin_pct: Differences up to this size do not count.
        deepest: Greatest depth.
        reference_depth: Shallower depth with the lowest error. None if no depth has two pairs.
        confidence: Confidence of the simultaneous intervals, 1 - 0.05 / k.
        difference_pct: Mean difference to the reference depth.
        interval_low_pct: Lower end of its simultaneous interval, which decides "yes".
        interval_high_pct: Upper end of its simultaneous interval.
        highest_pct: Greatest upper end of the 95 % intervals of all shallower depths. Decides "no".
        num_diverged: Number of diverged runs at all depths.
        depths: Each depth with its mean error.
        comparisons: Each shallower depth with its difference, paired by seed, and the simultaneous
            interval.
        rows: All runs.
    """

    answer: Answer
    reason: str
    margin_pct: float
    deepest: int
    reference_depth: int | None
    confidence: float
    difference_pct: float | None
    interval_low_pct: float | None
    interval_high_pct: float | None
    highest_pct: float | None
    num_diverged: int
    depths: tuple[tuple[int, Summary], ...]
    comparisons: tuple[tuple[int, Comparison], ...]
    rows: tuple[DepthRow, ...]


def degradation_verdicts(
    rows: Sequence[Row], *, diverged: Sequence[Row] = (), margin_pct: float = MARGIN_PCT
) -> dict[Kind, DegradationVerdict | str]:
    """Return the verdict for each kind of network that has at least two depths.

    If a kind cannot be judged, for example because one depth has two recipes, the result holds the
    reason as text in place of the verdict.

    Args:
        rows: Complete runs.
        diverged: Diverged runs, which must not help a verdict by their absence.
        margin_pct: Margin in points of training error.
    """
    field = training_field(rows)
    verdicts: dict[Kind, DegradationVerdict | str] = {}
    kinds: tuple[Kind, ...] = ("plain", "residual")
    for kind in kinds:
        if len({row.depth for row in (*rows, *diverged) if row.kind == kind}) < 2:
            continue
        try:
            series = depth_rows([*rows, *diverged], kind=kind, field=field)
            verdicts[kind] = degradation_verdict(series, margin_pct=margin_pct)
        except ValueError as error:
            verdicts[kind] = str(error)
    return verdicts


def degradation_verdict(
    rows: Iterable[tuple[int, int, float]], *, margin_pct: float
) -> DegradationVerdict:
    """Decide whether the deepest network is harder to train than a shallower one.

    Let D be the greatest depth, and k the number of shallower depths. Each shallower depth d has
    the differences error(D, seed) - error(d, seed), over the seeds that both depths have. Runs with
    the same seed share the order and the augmentation of images. The reference is the depth with
    the lowest mean training error in these pairs, among the depths with at least two pairs. Ties go
    to the shallowest.

    - "yes": the mean difference to the reference is above `margin_pct`, and its interval lies above
      0. The reference is selected on the same data, which favors a lucky depth. The interval is
      therefore simultaneous, with a confidence of 1 - 0.05 / k (Bonferroni). At 95 % it holds for
      all k differences at once, so it holds for the selected one.
    - "no": for every shallower depth, the 95 % interval ends below `margin_pct`. No correction is
      needed, because all k depths must pass (intersection-union test). A deepest network that is
      better, or worse by less than the margin, gives a "no".
    - "undecided": everything else, including fewer than two depths or two common seeds.

    Diverged runs are left out of differences, counted and reported. They must not help the answer
    that their absence favors: a diverged run at depth D rules out "no", and a diverged run at the
    reference depth rules out "yes".

    A study makes one such test per series. Correct for several series in the calling code.

    Args:
        rows: (depth, seed, training error in percent) of each run; nan or inf if it diverged.
        margin_pct: Margin in points of training error, at least 0.

    Raises:
        ValueError: If there are no rows, a (depth, seed) occurs twice, or an error is outside
            0 to 100.
    """
    return _verdict(_checked(rows, margin_pct), margin_pct)


def depth_rows(
    rows: Iterable[Row], *, kind: Kind, field: str = "train_recomputed_top1_error_pct"
) -> list[DepthRow]:
    """Select the runs of one kind as rows for `degradation_verdict`.

    The error of a diverged run, which is a row with an empty result, is nan.

    Raises:
        ValueError: If a run has no `field` in its result, or one depth has several recipes.
    """
    selected = [row for row in rows if row.kind == kind and row.depth is not None]
    for row in selected:
        if row.result and row.result.get(field) is None:
            raise ValueError(f"{row.folder} has no {field} in its result.json")
        protocols = {peer.protocol for peer in selected if peer.depth == row.depth}
        if len(protocols) > 1:
            raise ValueError(
                f"runs of {row.model} follow {len(protocols)} recipes: a verdict needs runs of one "
                "recipe; pass the folders of one recipe only"
            )
    return [
        DepthRow(row.depth or 0, row.seed, float(row.result.get(field, math.nan)))
        for row in selected
    ]


def training_field(rows: Iterable[Row]) -> str:
    """Return the name of the training error that runs are compared by.

    The error with recomputed batch-norm statistics is preferred, if all runs have it.
    """
    recomputed = "train_recomputed_top1_error_pct"
    if all(row.result.get(recomputed) is not None for row in rows):
        return recomputed
    return "train_top1_error_pct"


def _verdict(series: Sequence[DepthRow], margin_pct: float) -> DegradationVerdict:
    errors: dict[int, dict[int, float]] = {}
    for row in sorted(series, key=lambda row: row.depth):
        errors.setdefault(row.depth, {})[row.seed] = row.training_error_pct
    *shallower, deepest = errors
    simultaneous = 1 - (1 - CONFIDENCE) / max(1, len(shallower))
    pairs = _pairs_by_depth(errors)
    comparisons = {
        depth: compare(*sides, paired=True, confidence=simultaneous)
        for depth, sides in pairs.items()
    }
    reference = _reference(pairs, comparisons)
    difference = None if reference is None else comparisons[reference]
    highest = _highest_end(pairs, shallower)
    diverged = Counter(row.depth for row in series if not math.isfinite(row.training_error_pct))
    if difference is None or reference is None:
        answer: Answer = "undecided"
        reason = _why_untestable(deepest, shallower, diverged.total())
    else:
        answer, reason = _decide(
            difference, simultaneous, highest, margin_pct, diverged, (deepest, reference)
        )
        if answer == "undecided":
            reason += _needed_seeds(pairs[reference], margin_pct, 1 - simultaneous)
    return DegradationVerdict(
        answer=answer,
        reason=reason,
        margin_pct=margin_pct,
        deepest=deepest,
        reference_depth=reference,
        confidence=simultaneous,
        difference_pct=None if difference is None else difference.difference,
        interval_low_pct=None if difference is None else difference.interval_low,
        interval_high_pct=None if difference is None else difference.interval_high,
        highest_pct=highest,
        num_diverged=diverged.total(),
        depths=tuple((depth, summary(list(errors[depth].values()))) for depth in errors),
        comparisons=tuple(comparisons.items()),
        rows=tuple(sorted(series)),
    )


def _pairs_by_depth(errors: dict[int, dict[int, float]]) -> dict[int, Pairs]:
    """Return the paired errors of each shallower depth that shares a seed with the deepest."""
    *shallower, deepest = errors
    pairs = {}
    for depth in shallower:
        seeds = sorted(errors[depth].keys() & errors[deepest].keys())
        if seeds:
            deep = [errors[deepest][seed] for seed in seeds]
            pairs[depth] = (deep, [errors[depth][seed] for seed in seeds])
    return pairs


def _reference(pairs: dict[int, Pairs], comparisons: dict[int, Comparison]) -> int | None:
    """Return the depth with the lowest mean training error over finite pairs."""
    means: dict[int, float] = {}
    for depth, (deep, shallow) in pairs.items():
        if comparisons[depth].interval is None:
            continue
        finite = [
            shallow_error
            for deep_error, shallow_error in zip(deep, shallow, strict=True)
            if math.isfinite(deep_error) and math.isfinite(shallow_error)
        ]
        means[depth] = math.fsum(finite) / len(finite)
    return min(means, key=lambda depth: (means[depth], depth), default=None)


def _highest_end(pairs: dict[int, Pairs], shallower: Sequence[int]) -> float | None:
    """Return the greatest upper end of the 95 % intervals; None unless all depths have one."""
    ends = [compare(*sides, paired=True).interval_high for sides in pairs.values()]
    finite = [end for end in ends if end is not None]
    return max(finite) if finite and len(finite) == len(shallower) else None


def _decide(
    difference: Comparison,
    confidence: float,
    highest: float | None,
    margin_pct: float,
    diverged: Counter[int],
    depths: tuple[int, int],
) -> tuple[Answer, str]:
    """Apply the rule to the deepest depth and the reference depth."""
    deepest, reference = depths
    numbers = number_text(
        difference.difference,
        signed=True,
        unit="points of training error",
        interval=difference.interval,
        confidence=confidence,
    )
    evidence = f"depth {deepest} against {reference}: {numbers}, n={difference.n_a}"
    # The simultaneous interval decides "yes", the highest of the 95 % intervals decides "no".
    ends = Interval(difference.interval_low or 0.0, math.inf if highest is None else highest)
    answer = margin_test(ends, margin_pct, mean=difference.difference)
    if answer == "undecided":
        return answer, (
            f"{evidence}: neither above 0 and more than {margin_pct:g}, "
            f"nor below {margin_pct:g} for certain"
        )
    suspect = reference if answer == "yes" else deepest
    answer_with_lost_runs = withhold(
        answer,
        rules_out_yes=diverged[reference] > 0,
        rules_out_no=diverged[deepest] > 0,
    )
    if answer_with_lost_runs == "undecided":
        return "undecided", (
            f"{evidence}; but {diverged[suspect]} run(s) of depth {suspect} diverged "
            "and could have been the worst"
        )
    if answer == "yes":
        return answer, f"{evidence}: above 0, and more than {margin_pct:g}"
    return answer, (
        f"{evidence}; no shallower depth is better by {margin_pct:g} "
        f"(95 % intervals end at {highest:+.2f})"
    )


def _why_untestable(deepest: int, shallower: Sequence[int], num_diverged: int) -> str:
    if not shallower:
        return f"only depth {deepest} has finished runs: at least two depths are needed"
    diverged = f" ({num_diverged} run(s) diverged)" if num_diverged else ""
    return (
        f"fewer than two seeds are common to depth {deepest} and a shallower one{diverged}: "
        "run more seeds of both"
    )


def _needed_seeds(pairs: Pairs, margin_pct: float, significance: float) -> str:
    """Return how many seeds per depth would distinguish the margin from 0, at the same spread."""
    differences = [deep - shallow for deep, shallow in zip(*pairs, strict=True)]
    finite = [difference for difference in differences if math.isfinite(difference)]
    deviation = summary(finite).standard_deviation if finite else None
    if not deviation or not margin_pct:
        return ""
    seeds = needed_pairs_text(margin_pct, deviation, significance=significance)
    unit = "point" if margin_pct == 1 else "points"
    return (
        f"; to distinguish {margin_pct:g} {unit} from 0 takes {seeds} seeds per depth (power 80 %)"
    )


def _checked(rows: Iterable[tuple[int, int, float]], margin_pct: float) -> list[DepthRow]:
    if not (math.isfinite(margin_pct) and margin_pct >= 0):
        raise ValueError(
            f"margin_pct = {margin_pct}: it must be a finite number of points, at least 0"
        )
    series = [DepthRow(*row) for row in rows]
    if not series:
        raise ValueError("no rows: at least one (depth, seed, training error in percent) is needed")
    keys: set[tuple[int, int]] = set()
    for depth, seed, error_pct in series:
        if math.isfinite(error_pct) and not 0 <= error_pct <= 100:
            raise ValueError(
                f"error {error_pct} at depth {depth}, seed {seed}: 0 to 100 percent is allowed"
            )
        if (depth, seed) in keys:
            raise ValueError(
                f"depth {depth}, seed {seed} is given twice: pass one run of one recipe for each"
            )
        keys.add((depth, seed))
    return series
