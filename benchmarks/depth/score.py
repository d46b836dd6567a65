"""Verdicts against truths: the confusion matrix, how often the healthy are alarmed and the degraded missed, and how often rivals do."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

from benchmarks.depth.rivals import NAMES as RIVALS

from reslearn.study import Interval, bootstrap, proportion

NO_ALARM = ("healthy", "undecided")


@dataclass(frozen=True, kw_only=True)
class Judged:
    """A member with settled truth, and what was said of it. `alarms`: what each rival says."""

    name: str
    truths: tuple[str, ...]
    verdict: str
    seconds: float
    alarms: dict[str, bool]

    @property
    def is_right(self) -> bool:
        """Whether a right name was given."""
        return self.verdict in self.truths


@dataclass(frozen=True, kw_only=True)
class Rate:
    """`hits` of `n`, in per cent, with the exact 95 % interval (Clopper and Pearson); None of none."""

    hits: int
    n: int
    pct: float | None
    low_pct: float | None
    high_pct: float | None

    def __str__(self) -> str:
        return (
            "none"
            if self.pct is None
            else f"{self.hits} of {self.n}: {self.pct:.0f} % [{self.low_pct:.0f}, {self.high_pct:.0f}]"
        )


@dataclass(frozen=True, kw_only=True)
class Score:
    """`confusion[truth][verdict]`: how many. Rivals: alarms among the healthy and among the degraded, by name."""

    confusion: dict[str, dict[str, int]]
    false_alarms: Rate
    healthy_undecided: Rate
    degradations_missed: Rate
    right: Rate
    rivals: dict[str, tuple[Rate, Rate]]
    seconds_median: float
    seconds_interval: Interval | None  # of the median over networks, by bootstrap
    seconds_max: float
    unsettled: int
    wrong: tuple[str, ...]


def rate(hits: int, n: int) -> Rate:
    """With its interval."""
    if not n:
        return Rate(hits=0, n=0, pct=None, low_pct=None, high_pct=None)
    interval = proportion(hits, n)
    return Rate(
        hits=hits, n=n, pct=100 * hits / n, low_pct=100 * interval.low, high_pct=100 * interval.high
    )


def score(judged: Sequence[Judged], *, unsettled: int = 0) -> Score:
    """ValueError where nothing was judged. `unsettled`: members that were measured and are left out, since their truth did not come out."""
    if not judged:
        raise ValueError("no member has both a truth and a verdict yet")
    confusion: dict[str, Counter[str]] = {}
    for one in judged:
        confusion.setdefault(one.truths[0], Counter())[one.verdict] += 1
    healthy = [one for one in judged if one.truths == ("healthy",)]
    degraded = [one for one in judged if one.truths[0] == "degradation"]
    return Score(
        confusion={truth: dict(row.most_common()) for truth, row in confusion.items()},
        false_alarms=_share(one.verdict not in NO_ALARM for one in healthy),
        healthy_undecided=_share(one.verdict == "undecided" for one in healthy),
        degradations_missed=_share(not one.is_right for one in degraded),
        right=_share(one.is_right for one in judged),
        rivals={
            name: (
                _share(one.alarms[name] for one in healthy),
                _share(one.alarms[name] for one in degraded),
            )
            for name in RIVALS
        },
        seconds_median=median(one.seconds for one in judged),
        seconds_interval=bootstrap([one.seconds for one in judged], median),
        seconds_max=max(one.seconds for one in judged),
        unsettled=unsettled,
        wrong=tuple(
            f"{one.name}: {one.verdict}, is {' or '.join(one.truths)}"
            for one in judged
            if not one.is_right
        ),
    )


def table(found: Score) -> str:
    """For people."""
    names = sorted({verdict for row in found.confusion.values() for verdict in row})
    wide = max(len(truth) for truth in found.confusion)
    lines = [f"{'truth':{wide}}  verdicts"]
    for truth, row in sorted(found.confusion.items()):
        lines.append(
            f"{truth:{wide}}  " + ", ".join(f"{row[name]} {name}" for name in names if name in row)
        )
    lines += [
        "",
        f"false alarms among the healthy  {found.false_alarms}",
        f"healthy, left undecided         {found.healthy_undecided}",
        f"degradations missed             {found.degradations_missed}",
        f"right verdicts                  {found.right}",
        f"left out, truth not settled     {found.unsettled}",
    ]
    lines += [
        f"rival, {name:24} alarms: healthy {healthy}; degraded {degraded}"
        for name, (healthy, degraded) in found.rivals.items()
    ]
    spread = (
        ""
        if found.seconds_interval is None
        else f" [{found.seconds_interval.low:.0f}, {found.seconds_interval.high:.0f}]"
    )
    lines += [
        f"a network took {found.seconds_median:.0f} s{spread} in the median, {found.seconds_max:.0f} s at most, on one core"
    ]
    return "\n".join([*lines, *(f"wrong: {line}" for line in found.wrong)])


def to_json(found: Score) -> dict[str, Any]:
    """Plain values."""
    return asdict(found)


def _share(hits: Any) -> Rate:
    flags = [bool(hit) for hit in hits]
    return rate(sum(flags), len(flags))
