"""The display of a training: a bar on a terminal, elsewhere one line per ten seconds.

It is moved by time. Each step costs one reading of the clock. The display never waits for the
device, so on a GPU the step that it shows may be ahead of the device by up to one reading.
"""

import time
from collections import deque
from datetime import timedelta

from reslearn.progress import SECONDS_PER_LINE, ProgressDisplay

_SECONDS_PER_TICK = 1.0
_NUM_TICKS = 30


class TrainingDisplay:
    """Shows step, epoch, loss, error, speed and remaining time of a training on `progress`.

    Loss and error are from the last reading.

    Args:
        progress: Where to show it.
        title: What is trained, and on what.
        num_steps: Steps of the whole run.
        first_step: Steps that were done before the run was resumed.
        images_per_step: Images of one batch.
        steps_per_epoch: Steps that see as many images as the training set has.
        is_compiled: The first step compiles the network.
    """

    def __init__(
        self,
        progress: ProgressDisplay,
        *,
        title: str,
        num_steps: int,
        images_per_step: int,
        steps_per_epoch: float,
        first_step: int = 0,
        is_compiled: bool = False,
    ) -> None:
        self._title, self._num_steps = title, num_steps
        self._images_per_step, self._steps_per_epoch = images_per_step, steps_per_epoch
        self._progress = progress
        self._bar = progress.add_bar(title, total=num_steps)
        self._pace = _Pace()
        self._metrics = self._accuracy = ""
        self._line_at = time.monotonic()
        self._tick_at = -1.0
        start = f"step {first_step}/{num_steps}"
        progress.update(self._bar, first_step, "", start + "  compiling" * is_compiled)

    def read(self, *, loss: float, top1_error_pct: float) -> None:
        """Show this loss and this error in percent from the next tick on."""
        self._metrics = f"  loss {loss:.4f}  error {top1_error_pct:.2f} %"

    def step(self, step: int) -> None:
        """Show that `step` steps are done. Called after every step."""
        now = time.monotonic()
        is_last = step == self._num_steps
        if now >= self._tick_at or is_last:
            self._tick_at = now + _SECONDS_PER_TICK
            self._pace.tick(step, now)
            self._show(step, now, is_last=is_last)
        self._pace.step_at = now

    def move_end(self, num_steps: int) -> None:
        """Show that the run now ends at `num_steps` steps."""
        self._num_steps = num_steps

    def evaluated(self, name: str, top1_error_pct: float) -> None:
        """Show the accuracy on the set called `name` from the next tick on.

        The time since the last step was an evaluation, which is not part of the speed.
        """
        if name == "validation":
            self._accuracy = f"  validation accuracy {100 - top1_error_pct:.1f} %"
        self._pace.pause(time.monotonic())

    def _show(self, step: int, now: float, *, is_last: bool) -> None:
        state = f"step {step}/{self._num_steps}  epoch {step / self._steps_per_epoch:.2f}"
        state += self._metrics + self._accuracy
        time_left = ""
        if self._pace.is_known:
            state += f"  {self._images_per_step / self._pace.seconds_per_step:,.0f} images/s"
            seconds = (self._num_steps - step) * self._pace.seconds_per_step_and_pause
            time_left = "" if is_last else f"{timedelta(seconds=round(seconds))} left"
        self._progress.update(self._bar, step, time_left, state)
        if not self._progress.has_bars and (now - self._line_at >= SECONDS_PER_LINE or is_last):
            self._line_at = now
            self._progress.print(f"{self._title}  {state}  {time_left}".rstrip())


class _Pace:
    """Seconds per step, over the last ticks of this session.

    The first step is left out: it may include compilation and the start of the loader.

    Attributes:
        step_at: When the last step ended.
    """

    def __init__(self) -> None:
        self.step_at = time.monotonic()
        self._ticks: deque[tuple[int, float]] = deque(maxlen=_NUM_TICKS)  # steps and seconds
        self._first_step = self._last_step = 0
        self._last_at: float | None = None
        self._paused_since_tick = self._paused = 0.0

    @property
    def is_known(self) -> bool:
        return bool(self._ticks)

    @property
    def seconds_per_step(self) -> float:
        steps, seconds = map(sum, zip(*self._ticks, strict=True))
        return max(1e-9, seconds / steps)

    @property
    def seconds_per_step_and_pause(self) -> float:
        """The time of one step and its share of the evaluations so far."""
        return self.seconds_per_step + self._paused / (self._last_step - self._first_step)

    def tick(self, step: int, now: float) -> None:
        if self._last_at is None:
            self._first_step = step
        elif step > self._last_step:
            seconds = now - self._last_at - self._paused_since_tick
            self._ticks.append((step - self._last_step, seconds))
        self._last_step, self._last_at, self._paused_since_tick = step, now, 0.0

    def pause(self, now: float) -> None:
        self._paused_since_tick += now - self.step_at
        self._paused += now - self.step_at
        self.step_at = now
