"""Make a run end in time: if the machine is slower or faster than planned, the end moves.

The schedule is not cut off. The rest of it passes faster or slower (`LearningRate.move_end`), so
the learning rate still falls to its end. A machine that was busy while it was measured may allow
more than the planned steps. Each move is recorded, and a recipe with these moves repeats the
run.
"""

import time
from collections import deque
from collections.abc import Callable

_WINDOW_SECONDS = 20.0
_CHECK_SECONDS = 1.0
_CHECK_SHARE = 0.03
"""The pace is checked after this part of the remaining time, so there are at most 100 moves."""
_TOO_LONG, _TOO_SHORT = 0.02, 0.1
"""Errors of the end above which it moves: too long, as a part of the remaining steps; too short, as
a part of all steps."""
_LONGEST = 3
"""If the time allows more than this multiple of the planned steps, it was left free on purpose.
The end then does not move beyond the plan."""
_RESERVE = 0.05
"""A move leaves this part of the remaining time free."""
_EVALUATION_PER_STEP = 0.35
"""Time to evaluate an image, relative to training on it: a third of the products, and reading."""
_EVALUATIONS_ARE_SLOWER = 1.3
"""A reserve, because nothing can be shortened after the last step."""
_WRITING_SECONDS = 3.0
"""The last checkpoint, the bundle, and the end of the process."""


class TimeLimit:
    """Watches the pace of a training and says when its end must move.

    Args:
        at: The moment, of `clock`, at which the whole run must be over.
        closing_images: Images that are evaluated after the last step.
        images_per_step: Images of a batch.
        clock: Returns seconds.
    """

    def __init__(
        self,
        at: float,
        *,
        closing_images: int = 0,
        images_per_step: int = 1,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.clock = clock
        self._at = at
        self._closing_images, self._images_per_step = closing_images, images_per_step
        self._seconds_per_image = 0.0  # of an evaluation
        self._ticks = deque[tuple[int, float]]()  # steps done, and seconds of training
        self._first_step = 0
        self._evaluated_seconds = 0.0
        self._checked_at = 0.0

    def moved_end(self, step: int, last_step: int, planned: int) -> int | None:
        """Return a new last step if the run would end too late or too early, else None.

        The pace is measured over the last twenty seconds, and over all evaluations so far.

        Args:
            step: Steps done.
            last_step: The present end.
            planned: The end that was planned.
        """
        now = self.clock()
        if not self._ticks:  # the first step is slower, since it warms up
            self._ticks.append((step, now))
            self._first_step, self._checked_at = step, now
            return None
        wait_seconds = max(_CHECK_SECONDS, _CHECK_SHARE * (self._at - now))
        if now < self._checked_at + wait_seconds:
            return None
        self._checked_at = now
        seconds_per_step = self._seconds_per_step(step, now)
        seconds_left = self._at - now - self._closing_seconds(seconds_per_step)
        num_left = last_step - step
        num_possible = int((1 - _RESERVE) * seconds_left / seconds_per_step)
        longest = _LONGEST * planned if step + num_possible <= _LONGEST * planned else planned
        num_possible = min(max(1, num_possible), longest - step)
        is_too_long = seconds_per_step * num_left > seconds_left
        if is_too_long and num_possible < min(num_left, (1 - _TOO_LONG) * num_left + 1):
            return step + num_possible
        if num_possible - num_left > _TOO_SHORT * last_step:
            return step + num_possible
        return None

    def evaluated(self, num_images: int, seconds: float) -> None:
        """Take an evaluation of `num_images` during training into account."""
        self._evaluated_seconds += seconds
        self._seconds_per_image = seconds / num_images

    def _closing_seconds(self, seconds_per_step: float) -> float:
        """Return the time of all that follows the last step, at the present speed."""
        estimate = _EVALUATION_PER_STEP * seconds_per_step / self._images_per_step
        per_image = _EVALUATIONS_ARE_SLOWER * max(estimate, self._seconds_per_image)
        return self._closing_images * per_image + _WRITING_SECONDS

    def _seconds_per_step(self, step: int, now: float) -> float:
        """Return the time of a step and its share of the evaluations."""
        trained_seconds = now - self._evaluated_seconds
        self._ticks.append((step, trained_seconds))
        while len(self._ticks) > 2 and trained_seconds - self._ticks[1][1] > _WINDOW_SECONDS:
            self._ticks.popleft()
        since_step, since = self._ticks[0]
        share = self._evaluated_seconds / (step - self._first_step)
        return (trained_seconds - since) / (step - since_step) + share
