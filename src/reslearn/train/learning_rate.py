"""The learning rate of each step: warm-up, schedule, plateau, and moved ends of a schedule.

A schedule whose end is moved passes faster from then on, so that a run ends in time
(train/time_limit.py).
"""

import itertools
import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from reslearn import recipes

# Differences of the slope, in factors per step, from which on a gradual schedule has a corner.
_CORNER = 1e-3


@dataclass(frozen=True, kw_only=True)
class WarmUp:
    """A small learning rate at the start of training (Sec. 4.2).

    Attributes:
        lr: The learning rate while warming up (paper: 0.01).
        error_pct: The warm-up ends when the training error falls below this (paper: 80 %).
        num_steps: If not None, the warm-up lasts this many steps instead, whatever the error.
    """

    lr: float
    error_pct: float
    num_steps: int | None = None


MovedEnd = tuple[int, int]
"""A step from which on a schedule passes faster or slower, and the step at which it now ends."""


def _constant(step: float) -> float:
    return 1.0


class LearningRate:
    """The learning rate of each step: first an optional warm-up, then a schedule.

    It has a state, like torch.optim.lr_scheduler: a warm-up waits for the training error (Sec.
    4.2), and a plateau schedule waits for the validation error (Sec. 3.4).

    Args:
        schedule: Maps the index of a step, from 0, to a factor of the base learning rate.
        warm_up: The warm-up; None: no warm-up.
        plateau: Lowers the rate when the validation error stops falling. Replaces `schedule`.
        is_gradual: `schedule` changes the rate at every step.
        num_steps: Steps of the schedule. `move_end` needs them.
        ends: Moved ends of a run that is repeated.
    """

    def __init__(
        self,
        schedule: Callable[[float], float] = _constant,
        *,
        warm_up: WarmUp | None = None,
        plateau: recipes.Plateau | None = None,
        is_gradual: bool = False,
        num_steps: int = 0,
        ends: Sequence[MovedEnd] = (),
    ) -> None:
        self._schedule, self._warm_up, self._plateau = schedule, warm_up, plateau
        self._is_gradual, self._num_steps = is_gradual, num_steps
        self.ends = list(ends)
        self.warmed_up_at_step: int | None = None
        self.best_error_pct = math.inf
        self.num_waited = 0  # evaluations since the best one or the last drop
        self.num_drops = 0

    @property
    def is_warming_up(self) -> bool:
        """Whether the next step is part of the warm-up."""
        return self._warm_up is not None and self.warmed_up_at_step is None

    def factor(self, step: int) -> float:
        """Return the factor of the base learning rate after the warm-up."""
        if self._plateau is not None:
            return self._plateau.factor**self.num_drops
        return self._schedule(self._planned_step(step))

    def last_step(self, num_steps: int) -> int:
        """Return the step at which a run that was planned for `num_steps` steps ends."""
        return self.ends[-1][1] if self.ends else num_steps

    def move_end(self, step: int, last_step: int) -> None:
        """Let the rest of the schedule, from `step` on, end at `last_step`."""
        assert step < last_step
        self.ends.append((step, last_step))

    def _planned_step(self, step: int) -> float:
        """Return the step of the planned schedule that stands at `step` after all moves."""
        start, planned, pace = 0, 0.0, 1.0
        for moved_at, last_step in self.ends:
            if moved_at > step:
                break
            planned += (moved_at - start) * pace
            start, pace = moved_at, (self._num_steps - planned) / (last_step - moved_at)
        return step if start == 0 and pace == 1.0 else planned + (step - start) * pace

    def apply(self, optimizer: torch.optim.Optimizer, step: int) -> None:
        """Set the learning rate of every parameter group for the step with index `step`, from 0."""
        warm_up = self._warm_up
        if warm_up is not None and step == warm_up.num_steps:
            self.warmed_up_at_step = step
        for group in optimizer.param_groups:
            if warm_up is not None and self.is_warming_up:
                group["lr"] = warm_up.lr * group.get("lr_scale", 1.0)
            else:
                group["lr"] = group["base_lr"] * self.factor(step)

    def is_recorded(self, step: int, *, is_changed: bool, every: int) -> bool:
        """Return whether a log should record the rate of the step with index `step`.

        Every change is recorded, unless the schedule changes the rate at every step. Then every
        `every`th step is recorded, and each step after a corner of the schedule.

        Args:
            step: The step whose rate was set last.
            is_changed: Whether its rate differs from the rate of the step before.
            every: Steps between two records of a gradual change.
        """
        if not self._is_gradual or self.is_warming_up or step == self.warmed_up_at_step:
            return is_changed
        return step % every == 0 or (step > 1 and self._has_corner(step - 1))

    def _has_corner(self, step: int) -> bool:
        """Return whether the schedule turns at `step` or changes its slope at once."""
        before, here, after = (self.factor(step + offset) for offset in (-1, 0, 1))
        rise, next_rise = here - before, after - here
        is_turn = rise != next_rise and rise * next_rise <= 0
        return is_turn or abs(next_rise - rise) > _CORNER

    def observe_training(self, error_pct: float, *, step: int) -> None:
        """End the warm-up if the training error of a reading is low enough after `step` steps."""
        warm_up = self._warm_up
        if warm_up is None or warm_up.num_steps is not None:
            return
        if math.isnan(error_pct):
            raise ValueError(
                "warm_up waits for the training error, which is known only for outputs [B, K] with "
                "integer targets [B]: give the warm-up num_steps"
            )
        if self.is_warming_up and error_pct < warm_up.error_pct:
            self.warmed_up_at_step = step

    def observe_validation(self, error_pct: float) -> None:
        """Lower the rate of a plateau schedule if the validation error has stopped falling.

        Validation errors during the warm-up are ignored.
        """
        plateau = self._plateau
        if plateau is None or self.is_warming_up:
            return
        if error_pct < self.best_error_pct - plateau.improvement_pct:
            self.best_error_pct, self.num_waited = error_pct, 0
            return
        self.num_waited += 1
        if self.num_waited >= plateau.patience and self.num_drops < plateau.max_drops:
            self.num_drops += 1
            self.num_waited = 0

    def state_dict(self) -> dict[str, Any]:
        """Return plain values under the keys that a checkpoint has for them."""
        waiting = {
            "best_error_pct": self.best_error_pct,
            "num_waited": self.num_waited,
            "num_drops": self.num_drops,
        }
        return {
            "warmed_up_at_step": self.warmed_up_at_step,
            "waiting": waiting,
            "ends": [list(end) for end in self.ends],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the values that `state_dict` returned."""
        self.warmed_up_at_step = state["warmed_up_at_step"]
        # Checkpoints of earlier versions have no moved ends.
        self.ends = [(step, last_step) for step, last_step in state.get("ends", self.ends)]
        waiting = state["waiting"]
        self.best_error_pct = waiting["best_error_pct"]
        self.num_waited, self.num_drops = waiting["num_waited"], waiting["num_drops"]


def build_learning_rate(
    schedule: recipes.Schedule, steps_of: Callable[[recipes.Length], int]
) -> LearningRate:
    """Build the learning rate of a recipe. `steps_of` converts its durations to steps."""
    warm_up = None
    if schedule.warm_up_lr:
        duration = schedule.warm_up_duration
        warm_up = WarmUp(
            lr=schedule.warm_up_lr,
            error_pct=schedule.warm_up_error_pct,
            num_steps=None if duration is None else steps_of(duration),
        )
    total = steps_of(schedule.duration)
    options: dict[str, Any] = {"warm_up": warm_up, "num_steps": total, "ends": schedule.ends}
    if isinstance(schedule, recipes.Plateau):
        return LearningRate(plateau=schedule, **options)
    if isinstance(schedule, recipes.Constant):
        return LearningRate(**options)
    if isinstance(schedule, recipes.Stepwise):
        milestones = [steps_of(milestone) for milestone in schedule.milestones]
        return LearningRate(_stepwise(milestones, schedule.factor), **options)
    rise = schedule.rise * total
    if isinstance(schedule, recipes.Cosine):
        return LearningRate(_cosine(total, rise), is_gradual=True, **options)
    triangular = _triangular(total, rise, schedule.floor)
    return LearningRate(triangular, is_gradual=True, **options)


def check_milestones(recipe: recipes.Recipe, num_images: int) -> None:
    """Raise ValueError if milestones do not rise, and warn about milestones after the end.

    Milestones in epochs and in steps can be compared only if the number of training images is
    known.
    """
    schedule, batch_size = recipe.schedule, recipe.train.batch_size
    if not isinstance(schedule, recipes.Stepwise):
        return
    steps = [
        milestone.steps(num_images=num_images, batch_size=batch_size)
        for milestone in schedule.milestones
    ]
    if any(later <= earlier for earlier, later in itertools.pairwise(steps)):
        raise ValueError(
            f"schedule.milestones = {', '.join(map(str, schedule.milestones))}: "
            f"with {num_images:,} images in batches of {batch_size:,} these are the steps "
            f"{', '.join(map(str, steps))}, but each milestone must be later than the one before"
        )
    last = schedule.duration.steps(num_images=num_images, batch_size=batch_size)
    milestones_after_end = [
        str(milestone)
        for milestone, step in zip(schedule.milestones, steps, strict=True)
        if step >= last
    ]
    if milestones_after_end:
        warnings.warn(
            f"schedule.milestones: {', '.join(milestones_after_end)} without effect, "
            f"since training ends after {schedule.duration}",
            stacklevel=4,
        )


def _stepwise(milestones: list[int], factor: float) -> Callable[[float], float]:
    return lambda step: factor ** sum(step >= milestone for milestone in milestones)


def _cosine(total: int, rise: float) -> Callable[[float], float]:
    def schedule(step: float) -> float:
        return _risen(step, rise) * (1 + math.cos(math.pi * _fallen(step, total, rise))) / 2

    return schedule


def _triangular(total: int, rise: float, floor: float) -> Callable[[float], float]:
    def schedule(step: float) -> float:
        return _risen(step, rise) * (1 - (1 - floor) * _fallen(step, total, rise))

    return schedule


def _risen(step: float, rise: float) -> float:
    """Return the share of the linear rise, which takes `rise` steps, that has been reached."""
    # (step + 1): the first step has a small learning rate, not zero.
    return min(1.0, (step + 1) / rise) if rise else 1.0


def _fallen(step: float, total: int, rise: float) -> float:
    """Return the share of the steps after the rise that has passed."""
    return max(0.0, (step - rise) / (total - rise))
