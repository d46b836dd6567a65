"""Compare verdicts with truths: the confusion matrix, false alarms, and missed degradations."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

from benchmarks.depth.rivals import NAMES as RIVALS

from reslearn.study import Interval, bootstrap, proportion

NO_ALARM = ("healthy", "undecided")


@dataclass(frozen=True, kw_only=True)
class Judged:
    """A member with a settled truth, its verdict, and the alarm of each rival."""

    name: str
    truths: tuple[str, ...]
    verdict: str
    seconds: float
    alarms: dict[str, bool]

    @property
    def is_right(self) -> bool:
        """Whether the verdict is one of the truths."""
        return self.verdict in self.truths


@dataclass(frozen=True, kw_only=True)
class Rate:
    """`hits` of `n` in percent, with the exact 95 % interval (Clopper and Pearson).

    The percentages are None if `n` is 0.
    """

    hits: int
    n: int
    pct: float | None
    low_pct: float | None
    high_pct: float | None

    def __str__(self) -> str:
        if self.pct is None:
            return "none"
        return (
            f"{self.hits} of {self.n}: {self.pct:.0f} % [{self.low_pct:.0f}, {self.high_pct:.0f}]"
        )


@dataclass(frozen=True, kw_only=True)
class Score:
    """How often diagnoses and rivals are right and wrong.

    Attributes:
        confusion: Number of members by truth and verdict.
        rivals: Alarms among healthy members and among degraded ones, by rival.
        seconds_interval: 95 % interval of the median over members, by bootstrap.
        unsettled: Number of members that are left out because their truth is not settled.
    """

    confusion: dict[str, dict[str, int]]
    false_alarms: Rate
    healthy_undecided: Rate
    degradations_missed: Rate
    right: Rate
    rivals: dict[str, tuple[Rate, Rate]]
    seconds_median: float
    seconds_interval: Interval | None
    seconds_max: float
    unsettled: int
    wrong: tuple[str, ...]


def score(judged: Sequence[Judged], *, num_unsettled: int = 0) -> Score:
    """Score the judged members.

    Raises:
        ValueError: If there are none.
    """
    if not judged:
        raise ValueError("no member has both a truth and a verdict yet: run some first")
    confusion: dict[str, Counter[str]] = {}
    for member in judged:
        confusion.setdefault(member.truths[0], Counter())[member.verdict] += 1
    healthy = [member for member in judged if member.truths == ("healthy",)]
    degraded = [member for member in judged if member.truths[0] == "degradation"]
    rivals = {}
    for name in RIVALS:
        rivals[name] = (
            _share(member.alarms[name] for member in healthy),
            _share(member.alarms[name] for member in degraded),
        )
    seconds = [member.seconds for member in judged]
    wrong = [member for member in judged if not member.is_right]
    return Score(
        confusion={truth: dict(row.most_common()) for truth, row in confusion.items()},
        false_alarms=_share(member.verdict not in NO_ALARM for member in healthy),
        healthy_undecided=_share(member.verdict == "undecided" for member in healthy),
        degradations_missed=_share(not member.is_right for member in degraded),
        right=_share(member.is_right for member in judged),
        rivals=rivals,
        seconds_median=median(seconds),
        seconds_interval=bootstrap(seconds, median),
        seconds_max=max(seconds),
        unsettled=num_unsettled,
        wrong=tuple(
            f"{member.name}: {member.verdict}, is {' or '.join(member.truths)}" for member in wrong
        ),
    )


def rate(hits: int, n: int) -> Rate:
    """Return a rate with its interval."""
    if not n:
        return Rate(hits=0, n=0, pct=None, low_pct=None, high_pct=None)
    interval = proportion(hits, n)
    return Rate(
        hits=hits, n=n, pct=100 * hits / n, low_pct=100 * interval.low, high_pct=100 * interval.high
    )


def _share(flags: Iterable[bool]) -> Rate:
    counted = list(flags)
    return rate(sum(counted), len(counted))


def table(result: Score) -> str:
    """Return the score as text for people."""
    verdicts: set[str] = set()
    for row in result.confusion.values():
        verdicts.update(row)
    width = max(len(truth) for truth in result.confusion)
    lines = [f"{'truth':{width}}  verdicts"]
    for truth, row in sorted(result.confusion.items()):
        counts = [f"{row[verdict]} {verdict}" for verdict in sorted(verdicts) if verdict in row]
        lines.append(f"{truth:{width}}  {', '.join(counts)}")
    lines += [
        "",
        f"false alarms among the healthy  {result.false_alarms}",
        f"healthy, left undecided         {result.healthy_undecided}",
        f"degradations missed             {result.degradations_missed}",
        f"right verdicts                  {result.right}",
        f"left out, truth not settled     {result.unsettled}",
    ]
    for name, (healthy, degraded) in result.rivals.items():
        lines.append(f"rival, {name:24} alarms: healthy {healthy}; degraded {degraded}")
    interval = ""
    if result.seconds_interval is not None:
        interval = f" [{result.seconds_interval.low:.0f}, {result.seconds_interval.high:.0f}]"
    lines.append(
        f"seconds per network on one core: median {result.seconds_median:.0f}{interval}, "
        f"maximum {result.seconds_max:.0f}"
    )
    return "\n".join([*lines, *(f"wrong: {line}" for line in result.wrong)])


def to_json(result: Score) -> dict[str, Any]:
    """Return the score as plain JSON values."""
    return asdict(result)
