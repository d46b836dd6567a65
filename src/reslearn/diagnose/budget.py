"""The time that a diagnosis may take, and how long its trials may be so that all of them fit into it."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from reslearn.diagnose.problem import DiagnosisError

MIN_STEPS, MAX_STEPS = 30, 2000
_SPARE = 0.1
"""Share of the time that is left unplanned."""


@dataclass(kw_only=True)
class Clock:
    """Time that may be spent."""

    seconds: float
    started: float = field(default_factory=time.monotonic)

    def used(self) -> float:
        return time.monotonic() - self.started

    def left(self) -> float:
        return self.seconds - self.used()


def speedup(number: int, jobs: int) -> float:
    """By side by side over one by one, of so many trials of one length: the last ones leave some jobs without work."""
    return number / math.ceil(number / jobs)


def fitting_steps(
    parts: Sequence[tuple[int, float]],
    clock: Clock,
    measure: Callable[[int], float],
    *,
    jobs: int = 1,
) -> int:
    """Steps of a trial of length 1, where `parts` are numbers of trials that can be side by side and their lengths.

    `measure` makes trials of a number of steps, as many at once as there will be, and tells the seconds. DiagnosisError where the time
    does not even suffice for MIN_STEPS.
    """
    in_turn = [(math.ceil(number / jobs), length) for number, length in parts]
    num_trials, full_length = (
        sum(number for number, _ in in_turn),
        sum(number * length for number, length in in_turn),
    )

    def fitting(a_trial: float, a_step: float) -> int:
        fit = int(((1 - _SPARE) * clock.left() - num_trials * a_trial) / (full_length * a_step))
        if fit < MIN_STEPS:
            needed = math.ceil(
                (num_trials * a_trial + full_length * a_step * 2 * MIN_STEPS + clock.used())
                / (1 - _SPARE)
                / 60
            )
            raise DiagnosisError(
                f"minutes {clock.seconds / 60:g}: too few for this network on this machine; give {needed} or more"
            )
        return min(MAX_STEPS, fit)

    measure(1)  # not counted: it waits for what torch imports at its first step, seconds of it
    a_trial = measure(2)
    if 12 * a_trial > clock.left():
        fitting(a_trial, a_trial / 4)  # no time even for the next
    return fitting(a_trial, max(1e-5, (measure(22) - a_trial) / 20))
