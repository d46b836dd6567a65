"""Steps to a threshold: how soon runs reach a given training loss (claim C4, "easier to optimise").

A run that never gets there is censored at its last step: it says "later than this", which is neither a missing value nor its
last step. Hence Kaplan-Meier curves, their restricted means, and the log-rank test, from scipy.stats.
"""

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

_MOST_SPLITS = 1000  # up to 6 against 6 runs; beyond, the asymptotic p is good enough


class Steps(NamedTuple):
    """The step at which a run reached the threshold, or (`reached` false) the last step it was seen at."""

    steps: float
    reached: bool


@dataclass(frozen=True, kw_only=True)
class StepsComparison:
    """Two groups of runs on the way to a threshold.

    `restricted_mean_*`: mean steps when every run is cut at `horizon`, the longest time for which both groups were watched.
    `p`: log-rank, asymptotic, which flatters a handful of runs. `p_exact`: the same statistic over all ways of dealing the runs into
    the two groups (3 against 3 cannot go below 0.1); None above 1,000 ways. Both are None where no run reached the threshold.
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


def steps_to_threshold(records: Iterable[Mapping[str, Any]], *, threshold: float, key: str = "loss") -> Steps:
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


def compare_steps(a: Sequence[Steps], b: Sequence[Steps]) -> StepsComparison:
    """Compare two groups of runs by the log-rank test and by restricted means. ValueError for an empty group."""
    for name, group in (("a", a), ("b", b)):
        if not group:
            raise ValueError(f"no runs in group {name}: at least one is needed")
        for run in group:
            if not (math.isfinite(run.steps) and run.steps >= 0):
                raise ValueError(f"steps = {run.steps} in group {name}: a finite number from 0 is needed")
    horizon = min(max(run.steps for run in a), max(run.steps for run in b))
    reached_a, reached_b = (sum(run.reached for run in group) for group in (a, b))
    testable = reached_a + reached_b > 0
    return StepsComparison(
        restricted_mean_a=restricted_mean(a, horizon),
        restricted_mean_b=restricted_mean(b, horizon),
        horizon=horizon,
        num_reached_a=reached_a,
        num_reached_b=reached_b,
        n_a=len(a),
        n_b=len(b),
        p=_log_rank(a, b)[1] if testable else None,
        p_exact=_exact_p(a, b) if testable else None,
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


def _exact_p(a: Sequence[Steps], b: Sequence[Steps]) -> float | None:
    """Share of all splits into groups of these sizes whose log-rank statistic is at least as extreme."""
    if math.comb(len(a) + len(b), len(a)) > _MOST_SPLITS:
        return None
    runs = [*a, *b]
    observed = abs(_log_rank(a, b)[0])
    extreme = total = 0
    for chosen in itertools.combinations(range(len(runs)), len(a)):
        group = set(chosen)
        statistic, _ = _log_rank([runs[i] for i in chosen], [run for i, run in enumerate(runs) if i not in group])
        extreme += abs(statistic) >= observed - 1e-9
        total += 1
    return extreme / total


def _log_rank(a: Sequence[Steps], b: Sequence[Steps]) -> tuple[float, float]:
    """Statistic and asymptotic p; (0, 1) where every event happens with nobody left to compare with."""
    import numpy
    import scipy.stats

    with numpy.errstate(invalid="ignore", divide="ignore"):
        result = scipy.stats.logrank(_censored(a), _censored(b))
    statistic, p = float(result.statistic), float(result.pvalue)
    return (statistic, p) if math.isfinite(statistic) else (0.0, 1.0)


def _censored(runs: Sequence[Steps]) -> Any:
    import scipy.stats

    return scipy.stats.CensoredData(
        uncensored=[run.steps for run in runs if run.reached], right=[run.steps for run in runs if not run.reached]
    )
