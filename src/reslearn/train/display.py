"""What a person sees of a training: a bar on a terminal, plain lines elsewhere, nothing under RESLEARN_PROGRESS=off."""

import time
from datetime import timedelta
from types import TracebackType

from reslearn.progress import ProgressDisplay

_LINE_EVERY_SECONDS = 10.0


class Display:
    """Shows epoch, loss, error, images per second and time left; a context manager."""

    def __init__(
        self,
        *,
        title: str,
        num_steps: int,
        images_per_step: int,
        steps_per_epoch: float,
        quiet: bool = False,
    ) -> None:
        self._title, self._num_steps, self._images_per_step, self._steps_per_epoch = (
            title,
            num_steps,
            images_per_step,
            steps_per_epoch,
        )
        self._progress = ProgressDisplay(quiet=quiet)
        self._bar = self._progress.add_bar(title, total=num_steps)
        self._last = self._line_at = time.monotonic()
        self._first: tuple[int, float] | None = (
            None  # step and moment of the first reading: compilation is before it
        )
        self._last_step = 0

    def __enter__(self) -> "Display":
        self._progress.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._progress.__exit__(kind, error, trace)

    def show(self, *, step: int, loss: float, top1_error_pct: float) -> None:
        """One reading."""
        now, speed, left = time.monotonic(), "", ""
        if self._first is None:
            self._first = step, now
        else:
            speed = f"  {(step - self._last_step) * self._images_per_step / (now - self._last):,.0f} images/s"
            seconds = (self._num_steps - step) * (now - self._first[1]) / (step - self._first[0])
            left = f"  {timedelta(seconds=round(seconds))} left" if step < self._num_steps else ""
        self._last, self._last_step = now, step
        epoch = step / self._steps_per_epoch
        state = f"epoch {epoch:.2f}  loss {loss:.4f}  error {top1_error_pct:.2f} %{speed}"
        if self._progress.has_bars:
            self._progress.update(self._bar, step, state)
        elif now - self._line_at >= _LINE_EVERY_SECONDS or step == self._num_steps:
            self._line_at = now
            self._progress.print(f"{self._title}  step {step}/{self._num_steps}  {state}{left}")

    def say(self, text: str) -> None:
        """A line that stays."""
        self._progress.print(text)
