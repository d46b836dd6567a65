"""Compare verdicts with truths: the confusion matrix, false alarms, and faults that are missed."""

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
    kind: str
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
        ill_wrong: Ill members that were called healthy, or by a wrong name.
        undecided: Members of any truth that were left undecided.
        by_kind: Right verdicts by kind.
        rivals: Alarms among healthy, degraded and all ill members, by rival.
        seconds_interval: 95 % interval of the median over members, by bootstrap.
        unsettled: Number of members that are left out because their truth is not settled.
    """

    confusion: dict[str, dict[str, int]]
    false_alarms: Rate
    healthy_undecided: Rate
    degradations_missed: Rate
    ill_wrong: Rate
    ill_undecided: Rate
    undecided: Rate
    right: Rate
    by_kind: dict[str, Rate]
    rivals: dict[str, tuple[Rate, Rate, Rate]]
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
    ill = [member for member in judged if "healthy" not in member.truths]
    rivals = {}
    for name in RIVALS:
        rivals[name] = (
            _share(member.alarms[name] for member in healthy),
            _share(member.alarms[name] for member in degraded),
            _share(member.alarms[name] for member in ill),
        )
    by_kind: dict[str, list[bool]] = {}
    for member in judged:
        by_kind.setdefault(member.kind, []).append(member.is_right)
    seconds = [member.seconds for member in judged]
    wrong = [member for member in judged if not member.is_right]
    return Score(
        confusion={truth: dict(row.most_common()) for truth, row in confusion.items()},
        false_alarms=_share(member.verdict not in NO_ALARM for member in healthy),
        healthy_undecided=_share(member.verdict == "undecided" for member in healthy),
        degradations_missed=_share(not member.is_right for member in degraded),
        ill_wrong=_share(not member.is_right and member.verdict != "undecided" for member in ill),
        ill_undecided=_share(
            not member.is_right and member.verdict == "undecided" for member in ill
        ),
        undecided=_share(
            not member.is_right and member.verdict == "undecided" for member in judged
        ),
        right=_share(member.is_right for member in judged),
        by_kind={kind: _share(flags) for kind, flags in sorted(by_kind.items())},
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
        f"ill, missed or misnamed         {result.ill_wrong}",
        f"ill, left undecided             {result.ill_undecided}",
        f"undecided                       {result.undecided}",
        f"right verdicts                  {result.right}",
        f"left out, truth not settled     {result.unsettled}",
    ]
    for kind, right in result.by_kind.items():
        lines.append(f"right, {kind:24} {right}")
    for name, (healthy, degraded, ill) in result.rivals.items():
        lines.append(f"rival, {name:24} alarms: healthy {healthy}; degraded {degraded}; ill {ill}")
    interval = ""
    if result.seconds_interval is not None:
        interval = f" [{result.seconds_interval.low:.0f}, {result.seconds_interval.high:.0f}]"
    lines.append(
        f"seconds per network: median {result.seconds_median:.0f}{interval}, "
        f"maximum {result.seconds_max:.0f}"
    )
    return "\n".join([*lines, *(f"wrong: {line}" for line in result.wrong)])


def to_json(result: Score) -> dict[str, Any]:
    """Return the score as plain JSON values."""
    return asdict(result)
