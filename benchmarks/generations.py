"""The two generations of networks with known truths, which `reslearn bench diagnose` runs."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from benchmarks.causes import members as second_members
from benchmarks.causes import truth as second_truth
from benchmarks.depth import members as first_members
from benchmarks.depth import truth as first_truth
from benchmarks.depth.truth import Truth

from reslearn.diagnose import Problem


class AnyMember(Protocol):
    """A network of either generation."""

    @property
    def name(self) -> str: ...
    @property
    def kind(self) -> str: ...
    @property
    def half(self) -> str: ...
    @property
    def truths(self) -> tuple[str, ...]: ...
    def problem(self) -> Problem:
        """Return the problem of `reslearn diagnose`."""


@dataclass(frozen=True, kw_only=True)
class Generation:
    """Networks, how their truth is settled, and the files of results.

    Attributes:
        truths: Lies beside the networks, because it belongs to them.
        verdicts: Lies in results/, because it belongs to the current diagnosis.
        checks_construction: Truths by construction are verified, and are in the file too.
    """

    number: int
    members: Callable[[], Sequence[AnyMember]]
    truth_of: Callable[..., Truth]
    truths: Path
    verdicts: Path
    checks_construction: bool


_BENCHMARKS = Path(__file__).parent
_RESULTS = Path(__file__).parents[1] / "results"
FIRST = Generation(
    number=1,
    members=first_members.members,
    truth_of=first_truth.truth_of,
    truths=_BENCHMARKS / "depth" / "truth.jsonl",
    verdicts=_RESULTS / "depth" / "verdicts.jsonl",
    checks_construction=False,
)
SECOND = Generation(
    number=2,
    members=second_members.members,
    truth_of=second_truth.truth_of,
    truths=_BENCHMARKS / "causes" / "truth.jsonl",
    verdicts=_RESULTS / "causes" / "verdicts.jsonl",
    checks_construction=True,
)
GENERATIONS = {generation.number: generation for generation in (FIRST, SECOND)}
HALVES = first_members.HALVES
