"""Steps to a threshold: how soon runs reach a given training loss (claim C4, "easier to optimize").

A run that never gets there is censored at its last step: it says "later than this", which is neither a missing value nor its
last step. Hence Kaplan-Meier curves and their restricted means, from scipy.stats, and the log-rank test, here because runs of several
depths are no draws of one kind: it is stratified (Mantel and Haenszel 1959), which scipy's is not.
"""

import itertools
import math
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

_Dealt = tuple[Sequence["Steps"], Sequence["Steps"]]
_MOST_SPLITS = 1000  # up to 6 against 6 runs; beyond, the asymptotic p is good enough


class Steps(NamedTuple):
    """The step at which a run reached the threshold, or (`reached` false) the last step it was seen at."""

    steps: float
    reached: bool


@dataclass(frozen=True, kw_only=True)
class StepsComparison:
    """Two groups of runs on the way to a threshold.

    `restricted_mean_*`: mean steps when every run is cut at `horizon`, the longest time for which both groups were watched.
    `p`: log-rank, asymptotic, which flatters a handful of runs. `p_exact`: the same statistic over all ways of dealing the runs of each
    stratum into the two groups (3 against 3 cannot go below 0.1); None above 1,000 ways. Both are None where no run reached the threshold.
    """

    restricted_mean_a: float
    restricted_mean_b: float
    horizon: float
    num_reached_a: int
    num_reached_b: int
    n_a: int
    n_b: int
    p: float | None
    p_exact: float | None

    @property
    def difference(self) -> float:
        """Restricted mean of a minus that of b, in steps: negative where a is faster."""
        return self.restricted_mean_a - self.restricted_mean_b


def steps_to_threshold(
    records: Iterable[Mapping[str, Any]], *, threshold: float, key: str = "loss"
) -> Steps:
    """The first step of metrics `records` (of one kind) whose `key` is at or below `threshold`, else censored at the last step."""
    last: float | None = None
    for record in records:
        last = float(record["step"])
        value = record.get(key)
        if value is not None and math.isfinite(value) and value <= threshold:
            return Steps(last, True)
    if last is None:
        raise ValueError(f"no records: when {key} reached {threshold} cannot be told")
    return Steps(last, False)


def compare_steps(
    a: Sequence[Steps],
    b: Sequence[Steps],
    *,
    strata: tuple[Sequence[Hashable], Sequence[Hashable]] | None = None,
) -> StepsComparison:
    """Compare two groups of runs by the log-rank test and by restricted means. ValueError for an empty group.

    `strata` says of each run of a and of b what it is of, its depth say: runs are then compared with those of their stratum alone.
    """
    for name, group in (("a", a), ("b", b)):
        if not group:
            raise ValueError(f"no runs in group {name}: at least one is needed")
        for run in group:
            if not (math.isfinite(run.steps) and run.steps >= 0):
                raise ValueError(
                    f"steps = {run.steps} in group {name}: a finite number from 0 is needed"
                )
    horizon = min(max(run.steps for run in a), max(run.steps for run in b))
    reached_a, reached_b = (sum(run.reached for run in group) for group in (a, b))
    testable = reached_a + reached_b > 0
    labels_a, labels_b = strata or ([None] * len(a), [None] * len(b))
    dealt = [
        (
            [run for run, of in zip(a, labels_a, strict=True) if of == label],
            [run for run, of in zip(b, labels_b, strict=True) if of == label],
        )
        for label in dict.fromkeys([*labels_a, *labels_b])
    ]
    return StepsComparison(
        restricted_mean_a=restricted_mean(a, horizon),
        restricted_mean_b=restricted_mean(b, horizon),
        horizon=horizon,
        num_reached_a=reached_a,
        num_reached_b=reached_b,
        n_a=len(a),
        n_b=len(b),
        p=math.erfc(abs(_log_rank(dealt)) / math.sqrt(2)) if testable else None,
        p_exact=_exact_p(dealt) if testable else None,
    )


def restricted_mean(runs: Sequence[Steps], horizon: float) -> float:
    """Area under the Kaplan-Meier curve up to `horizon`: the mean of min(steps, horizon), with censoring accounted for."""
    if not any(run.reached for run in runs):
        return horizon
    import scipy.stats

    curve = scipy.stats.ecdf(_censored(runs)).sf
    area, since, height = 0.0, 0.0, 1.0
    for at, below in zip(curve.quantiles.tolist(), curve.probabilities.tolist(), strict=True):
        if at >= horizon:
            break
        area += height * (at - since)
        since, height = at, below
    return float(area + height * (horizon - since))


def _exact_p(strata: Sequence[_Dealt]) -> float | None:
    """Share of all ways to deal each stratum into groups of these sizes whose log-rank statistic is at least as extreme."""
    if math.prod(math.comb(len(a) + len(b), len(a)) for a, b in strata) > _MOST_SPLITS:
        return None
    observed = abs(_log_rank(strata))
    ways = [
        abs(_log_rank(dealt))
        for dealt in itertools.product(*(_ways([*a, *b], len(a)) for a, b in strata))
    ]
    return sum(statistic >= observed - 1e-9 for statistic in ways) / len(ways)


def _ways(runs: Sequence[Steps], number: int) -> Iterator[_Dealt]:
    for chosen in itertools.combinations(range(len(runs)), number):
        yield [runs[i] for i in chosen], [run for i, run in enumerate(runs) if i not in chosen]


def _log_rank(strata: Sequence[_Dealt]) -> float:
    """Arrivals in a beyond those expected if both groups were alike, in standard deviations, summed over strata; 0 where nobody arrives
    with another left to compare with."""
    beyond = variance = 0.0
    for a, b in strata:
        for step in {run.steps for run in (*a, *b) if run.reached}:
            at_risk_a, at_risk = (
                sum(run.steps >= step for run in group) for group in (a, (*a, *b))
            )
            arrived_a, arrived = (
                sum(run.reached and run.steps == step for run in group) for group in (a, (*a, *b))
            )
            share = at_risk_a / at_risk
            beyond += arrived_a - arrived * share
            variance += arrived * share * (1 - share) * (at_risk - arrived) / max(1, at_risk - 1)
    return beyond / math.sqrt(variance) if variance else 0.0


def _censored(runs: Sequence[Steps]) -> Any:
    import scipy.stats

    return scipy.stats.CensoredData(
        uncensored=[run.steps for run in runs if run.reached],
        right=[run.steps for run in runs if not run.reached],
    )
