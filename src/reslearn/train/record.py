"""What a training writes while it goes: lines of metrics.jsonl (and of TensorBoard, where asked for), and bundles."""

import math
import time
from pathlib import Path
from typing import Any

from torch import nn

from reslearn import recipes
from reslearn.evaluate import Metrics
from reslearn.interop import to_bytes
from reslearn.runs import RunFolder, write_atomically
from reslearn.train.loop import NonFiniteLossError
from reslearn.train.meter import Reading
from reslearn.train.setup import Prepared
from reslearn.train.tensorboard import Events, NoEvents


class Clock:
    """Seconds of the run, those before it was resumed included."""

    def __init__(self, before: float) -> None:
        self._zero = time.monotonic() - before
        self.mark()

    def seconds(self) -> float:
        """Since the run began."""
        return time.monotonic() - self._zero

    def mark(self) -> None:
        """Note that a checkpoint was written."""
        self._marked_at = time.monotonic()

    def since_mark(self) -> float:
        """Seconds since the last checkpoint."""
        return time.monotonic() - self._marked_at


class Record:
    """The record of one training in its folder. Of many processes the first alone writes."""

    def __init__(
        self, prepared: Prepared, folder: RunFolder, clock: Clock, events: Events | NoEvents
    ) -> None:
        self.folder, self.clock = folder, clock
        self._prepared, self._events = prepared, events

    def reading(self, reading: Reading) -> None:
        """A line of kind "train": means over the steps since the last one."""
        self._line(
            "train",
            reading.step,
            loss=reading.loss,
            top1_error_pct=reading.top1_error_pct,
            lr=reading.lr,
        )

    def evaluation(self, kind: str, step: int, metrics: Metrics) -> None:
        """A line of kind "validation" or "test". Raises NonFiniteLossError where its loss is no finite number."""
        check_finite(kind, step, metrics)
        self._line(kind, step, loss=metrics.loss, top1_error_pct=metrics.top1_error_pct)

    def bundle(self, net: nn.Module, path: Path, *, metrics: dict[str, Any]) -> None:
        """Write the bundle of `net`."""
        if not self._prepared.processes.is_first:
            return
        recipe = self._prepared.recipe
        content = to_bytes(
            net,
            spec=recipe.model.model_dump(),
            classes=self._prepared.dataset.classes,
            preprocess=self._prepared.preprocess,
            metrics=metrics,
            recipe_hash=recipes.recipe_hash(recipe.to_dict()),
        )
        path.parent.mkdir(exist_ok=True)
        write_atomically(path, lambda file: file.write(content))

    def _line(self, kind: str, step: int, **values: float) -> None:
        if not self._prepared.processes.is_first:
            return
        position = {
            "step": step,
            "epoch": round(step / self._prepared.steps_per_epoch, 4),
            "images": step * self._prepared.recipe.train.batch_size,
            "seconds": round(self.clock.seconds(), 3),
        }
        self.folder.append_metrics({"kind": kind, **position, **values})
        self._events.add(kind, step, values)


def check_finite(kind: str, step: int, metrics: Metrics) -> None:
    """Raise NonFiniteLossError where a network, evaluated, gives a loss that is no finite number."""
    if not math.isfinite(metrics.loss):
        raise NonFiniteLossError(
            f"the loss on the {kind} images is {metrics.loss} after step {step}"
        )
