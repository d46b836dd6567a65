"""Learning rates as values: step in, factor out; the paper's warm-up, which waits for the training error (Sec. 4.2), and its plateau,
which waits for the validation error (Sec. 3.4)."""

import math
from collections.abc import Callable
from dataclasses import dataclass

from reslearn.recipes import Constant, Cosine, Length, Plateau, Schedule, Stepwise


@dataclass(frozen=True, kw_only=True)
class WarmUp:
    """Train at `lr` until the training error read from the loop is below `error_pct` (paper: 0.01 and 80 %), or for `num_steps` steps."""

    lr: float
    error_pct: float
    num_steps: int | None = None


@dataclass(kw_only=True)
class Waiting:
    """How long a plateau has lasted: all that its decisions rest on. Plain numbers, which a checkpoint holds."""

    best_error_pct: float = math.inf
    num_waited: int = 0
    num_drops: int = 0

    def observe(self, error_pct: float, plateau: Plateau) -> None:
        """One evaluation on validation images; the learning rate is that of `num_drops` from the next step on."""
        if error_pct < self.best_error_pct - plateau.improvement_pct:
            self.best_error_pct, self.num_waited = error_pct, 0
            return
        self.num_waited += 1
        if self.num_waited >= plateau.patience and self.num_drops < plateau.max_drops:
            self.num_drops, self.num_waited = self.num_drops + 1, 0


def factor(
    schedule: Schedule, *, num_images: int, batch_size: int, waiting: Waiting | None = None
) -> Callable[[int], float]:
    """A function from the step about to be made (from 0) to the multiple of the base learning rate; a plateau reads `waiting`."""

    def in_steps(length: Length) -> int:
        return length.steps(num_images=num_images, batch_size=batch_size)

    total = in_steps(schedule.duration)
    if isinstance(schedule, Constant):
        return lambda step: 1.0
    if isinstance(schedule, Plateau):
        assert waiting is not None, "a plateau has a state"
        return lambda step: schedule.factor**waiting.num_drops
    if isinstance(schedule, Stepwise):
        milestones = [in_steps(milestone) for milestone in schedule.milestones]
        return lambda step: schedule.factor ** sum(step >= milestone for milestone in milestones)
    rise = schedule.rise * total

    def risen(step: int) -> float:
        # (step + 1): the first step is made at a small rate, not at none
        return min(1.0, (step + 1) / rise) if rise else 1.0

    def fallen(step: int) -> float:
        return max(0.0, (step - rise) / (total - rise))

    if isinstance(schedule, Cosine):
        return lambda step: risen(step) * (1 + math.cos(math.pi * fallen(step))) / 2
    return lambda step: risen(step) * (1 - (1 - schedule.floor) * fallen(step))
