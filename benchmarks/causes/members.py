"""The second generation of networks with known causes, and how it is split into halves.

The first generation is benchmarks/depth; its held-out half was read while rules changed. This one
has other families and other data. Networks are written as users write them (networks/).

Members of each kind are split into two halves by a hash of their names. Rules may be tuned on one
half and are scored on the other, which is diagnosed once. halves.json records the halves.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any, Literal

from benchmarks.causes.constructed import constructed
from benchmarks.causes.degraded import degraded, slow
from benchmarks.causes.healthy import healthy
from benchmarks.causes.tasks import Pair

from reslearn.diagnose import Problem, make_problem
from reslearn.diagnose.verdict_rules import VerdictName

HALVES = ("tuning", "held-out")
RECORDED_HALVES = Path(__file__).parent / "halves.json"
BATCH_SIZE = 32


@dataclass(frozen=True, kw_only=True)
class Member:
    """A network of the benchmark.

    Attributes:
        kind: Members of one kind are in both halves.
        optimizer: A name of `make_problem`, or a function of parameters and a learning rate.
        loss: By default cross-entropy for classes and mean squared error for regression.
        truths: The verdicts that are right by construction; empty if the truth is measured.
        cured: Fields of the twin without the fault, if the truth is known by construction.
        measured_on: The data on which the fault shows. Shuffled targets can be memorized.
        shallow: Builds the same network with fewer layers, for a deep network.
        shortcuts: Builds the same network with shortcuts, for a plain one.
    """

    name: str
    kind: str
    half: str
    build: Callable[[], Any]
    data: Callable[[], Pair]
    lr: float
    optimizer: Any = "adam"
    loss: Any = None
    truths: tuple[VerdictName, ...] = ()
    cured: dict[str, Any] = field(default_factory=dict)
    measured_on: Literal["train", "held-out"] = "train"
    shallow: Callable[[], Any] | None = None
    shortcuts: Callable[[], Any] | None = None

    def problem(self) -> Problem:
        """Return the problem of `reslearn diagnose`."""
        return make_problem(
            self.build,
            self.data(),
            name=self.name,
            loss=self.loss,
            optimizer=self.optimizer,
            lr=self.lr,
            batch_size=BATCH_SIZE,
        )

    def twin(self, **changes: Any) -> "Member":
        """Return the member with some fields changed."""
        return replace(self, **changes)


@cache
def members() -> tuple[Member, ...]:
    """Return all members, in the order of the hash of their names.

    So a benchmark that was stopped has measured a random part of each kind.
    """
    specified = [*healthy(), *degraded(), *slow(), *constructed()]
    specified.sort(key=lambda fields: _hash(fields["name"]))
    numbers: dict[str, int] = {}
    chosen = []
    for fields in specified:
        number = numbers.get(fields["kind"], 0)
        numbers[fields["kind"]] = number + 1
        chosen.append(Member(**fields, half=HALVES[number % 2]))
    return tuple(chosen)


def _hash(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()
