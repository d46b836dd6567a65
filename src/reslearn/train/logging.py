"""The log of a run: metrics.jsonl, TensorBoard, bundles, checkpoints and the display.

With many processes, only process 0 writes and prints.
"""

import math
import time
from pathlib import Path
from types import TracebackType
from typing import Any

from torch import nn

from reslearn import recipes
from reslearn.evaluate import Metrics
from reslearn.interop import to_bytes
from reslearn.progress import ProgressDisplay
from reslearn.runs import RunFolder
from reslearn.train.checkpoints import save_checkpoint
from reslearn.train.display import TrainingDisplay
from reslearn.train.loop import Log
from reslearn.train.setup import RunSetup
from reslearn.train.step import NonFiniteLossError, Reading, State

# Of a cosine or triangular schedule. Straight lines between so many points are exact to 0.1 %.
_NUM_GRADUAL_LR_LINES = 40


class RunLog(Log):
    """Writes what happens during one run into its folder, and shows it. A context manager.

    Args:
        setup: The run.
        folder: Its folder, which receives all files.
        seconds: Training time before the run was resumed.
        resumed_at_step: 0 for a new run.
        last_step: Steps of the whole run.
        tensorboard: Also write TensorBoard event files.
    """

    def __init__(
        self,
        setup: RunSetup,
        folder: RunFolder,
        *,
        seconds: float = 0.0,
        resumed_at_step: int = 0,
        last_step: int | None = None,
        tensorboard: bool = False,
    ) -> None:
        self.folder = folder
        self._setup = setup
        self._is_writer = setup.processes.is_first
        self._gradual_lr_every = math.ceil(setup.num_steps / _NUM_GRADUAL_LR_LINES)
        self._started_at = time.monotonic() - seconds
        self._checkpoint_at = time.monotonic()
        self._progress = ProgressDisplay(quiet=not self._is_writer)
        self._display = TrainingDisplay(
            self._progress,
            title=f"{setup.recipe.model.name} on {setup.dataset.name}",
            num_steps=setup.num_steps if last_step is None else last_step,
            images_per_step=setup.recipe.train.batch_size,
            steps_per_epoch=setup.steps_per_epoch,
            first_step=resumed_at_step,
            is_compiled=setup.numerics.compiled,
        )
        self._is_end_moved = False
        self._events: Any = None
        if tensorboard and self._is_writer:
            self._events = _open_events(folder.path, resumed_at_step=resumed_at_step)

    def __enter__(self) -> "RunLog":
        self._progress.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._events is not None:
            self._events.close()
        self._progress.__exit__(kind, error, trace)

    @property
    def seconds(self) -> float:
        """Training time, including the time before the run was resumed."""
        return time.monotonic() - self._started_at

    def say(self, text: str) -> None:
        """Print one line about this run on the error stream."""
        self._progress.print(f"{self._setup.recipe.model.name}: {text}")

    def reading(self, reading: Reading) -> None:
        """Write a line of kind "train": means over the steps since the line before."""
        values = {
            "loss": reading.loss,
            "top1_error_pct": reading.top1_error_pct,
            "lr": reading.lr,
        }
        self._write("train", reading.step, values)
        self._display.read(loss=reading.loss, top1_error_pct=reading.top1_error_pct)

    def step(self, state: State, *, previous_lr: float) -> None:
        """Move the display. Write a line of kind "lr" at step 1 and if the rate has changed."""
        self._display.step(state.step)
        if state.step == 1:
            self._write("lr", 1, {"lr": state.lr})
            return
        is_recorded = state.learning_rate.is_recorded(
            state.step - 1, is_changed=state.lr != previous_lr, every=self._gradual_lr_every
        )
        if is_recorded:
            self._write("lr", state.step, {"lr": state.lr, "previous_lr": previous_lr})

    def evaluation(self, name: str, step: int, metrics: Metrics) -> None:
        """Write a line of kind "validation" or "test".

        Raises:
            NonFiniteLossError: If the loss is NaN or infinite.
        """
        check_finite(name, step, metrics)
        values = {"loss": metrics.loss, "top1_error_pct": metrics.top1_error_pct}
        self._write(name, step, values)
        self._display.evaluated(name, metrics.top1_error_pct)

    def end_moved(self, last_step: int) -> None:
        """Show that the run ends at `last_step`, because of its speed and its time limit."""
        if not self._is_end_moved:
            self._is_end_moved = True
            self.say(
                "not at the planned speed: to end in time, the schedule ends at about step "
                f"{last_step:,}"
            )
        self._display.move_end(last_step)

    def snapshot(self, state: State) -> None:
        """Write the network of this step as a bundle below snapshots/."""
        self.bundle(state.network, self.folder.snapshot_path(state.step), metrics={})

    def bundle(
        self,
        network: nn.Module,
        path: Path,
        *,
        metrics: dict[str, Any],
        temperature: float | None = None,
    ) -> None:
        """Write `network`, its preprocessing, `metrics` and the temperature to one file."""
        if not self._is_writer:
            return
        recipe = self._setup.recipe
        content = to_bytes(
            network,
            spec=recipe.model.model_dump(),
            classes=self._setup.dataset.classes,
            preprocess=self._setup.preprocess,
            metrics=metrics,
            recipe_hash=recipes.recipe_hash(recipe.to_dict()),
            temperature=temperature,
        )
        self.folder.write_file(path, content)

    def is_checkpoint_due(self, every_seconds: float) -> bool:
        """Return whether the last checkpoint is at least `every_seconds` old."""
        return time.monotonic() - self._checkpoint_at >= every_seconds

    def checkpoint(self, state: State) -> None:
        """Write everything that a resumed run needs. All processes must call this together."""
        processes = self._setup.processes
        save_checkpoint(self.folder, state, seconds=self.seconds, processes=processes)
        self._checkpoint_at = time.monotonic()

    def _write(self, kind: str, step: int, values: dict[str, float]) -> None:
        if not self._is_writer:
            return
        line = {
            "kind": kind,
            "step": step,
            "epoch": round(step / self._setup.steps_per_epoch, 4),
            "images": step * self._setup.recipe.train.batch_size,
            "seconds": round(self.seconds, 3),
            **values,
        }
        self.folder.append_metrics(line)
        if self._events is not None:
            self._write_events(kind, step, values)

    def _write_events(self, kind: str, step: int, values: dict[str, float]) -> None:
        if kind == "lr":
            # Both ends of the change lie on the curve that the readings draw.
            if "previous_lr" in values:
                self._events.add_scalar("train/lr", values["previous_lr"], step - 1)
            self._events.add_scalar("train/lr", values["lr"], step)
            return
        for name, value in values.items():
            self._events.add_scalar(f"{kind}/{name}", value, step)


def check_finite(name: str, step: int, metrics: Metrics) -> None:
    """Raise NonFiniteLossError if the loss on the set called `name` is NaN or infinite."""
    if not math.isfinite(metrics.loss):
        raise NonFiniteLossError(
            f"the loss on the {name} images is {metrics.loss} after step {step}"
        )


def require_tensorboard() -> None:
    """Raise ValueError if TensorBoard is not installed."""
    try:
        import torch.utils.tensorboard  # noqa: F401
    except ImportError:
        raise ValueError(
            "--tensorboard needs an extra that is not installed: "
            "run pip install 'reslearn[tensorboard]'"
        ) from None


def _open_events(folder: Path, *, resumed_at_step: int) -> Any:
    """Open an event file, which lets TensorBoard forget what came after `resumed_at_step`."""
    from torch.utils.tensorboard import SummaryWriter

    purge_step = resumed_at_step + 1 if resumed_at_step else None
    return SummaryWriter(str(folder), purge_step=purge_step)
