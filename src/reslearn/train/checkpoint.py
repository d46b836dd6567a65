"""Everything needed to go on bit for bit, in one file, written aside and renamed; read back with weights_only."""

import io
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from reslearn.runs import RunError, RunFolder
from reslearn.train.average import Average, NoAverage
from reslearn.train.distributed import ALONE, Processes
from reslearn.train.loop import NonFiniteLossError, State
from reslearn.train.meter import Meter
from reslearn.train.schedule import Waiting


@dataclass(kw_only=True)
class Training:
    """All that changes while a network trains, and so must survive."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    average: Average | NoAverage
    meter: Meter
    state: State

    @property
    def network(self) -> nn.Module:
        """What is evaluated and kept: the average of the weights where there is one."""
        return self.average.network if isinstance(self.average, Average) else self.model


def save(
    folder: RunFolder, training: Training, *, seconds: float, processes: Processes = ALONE
) -> None:
    """Write the checkpoint of `state.step`, all processes together. NonFiniteLossError instead of one that could not be trained from.

    What it holds is process 0's: weights are the same on all, and the running statistics of the others are never read.
    """
    if not all(bool(torch.isfinite(parameter).all()) for parameter in training.model.parameters()):
        raise NonFiniteLossError(f"a weight is no finite number after step {training.state.step}")
    meter = training.meter.state_dict()
    if not processes.is_first:
        return
    average = None
    if isinstance(training.average, Average):
        average = {
            "network": training.average.network.state_dict(),
            "num_updates": training.average.num_updates,
        }
    buffer = io.BytesIO()  # torch turns a full disk into an error of its own; so its bytes are made first, and written by us
    torch.save(
        {
            "model": training.model.state_dict(),
            "optimizer": training.optimizer.state_dict(),
            "average": average,
            "meter": meter,
            "step": training.state.step,
            "warmed_up_at_step": training.state.warmed_up_at_step,
            "waiting": asdict(training.state.waiting),
            "seconds": seconds,
            "metrics_bytes": folder.metrics_size(),
        },
        buffer,
    )
    folder.write_checkpoint(training.state.step, lambda file: file.write(buffer.getbuffer()))


def restore(path: Path, training: Training, *, device: str) -> tuple[float, int]:
    """Put everything but the metrics file back to where `path` was saved; returns its seconds and its bytes of metrics.

    Raises RunError in one line for a file that is truncated, foreign, or of another network.
    """
    advice = "remove it to go on from an older one, or start anew in another folder"
    try:
        content: Any = torch.load(path, map_location=device, weights_only=True)
    except Exception as error:  # torch raises whatever its readers run into: RuntimeError, UnpicklingError, EOFError, ...
        raise RunError(
            f"{path}: no checkpoint, or a damaged one ({type(error).__name__}); {advice}"
        ) from None
    try:
        training.model.load_state_dict(content["model"])
        training.optimizer.load_state_dict(content["optimizer"])
        if isinstance(training.average, Average):
            training.average.network.load_state_dict(content["average"]["network"])
            training.average.num_updates = int(content["average"]["num_updates"])
        training.meter.load_state_dict(content["meter"])
        training.state.step, training.state.warmed_up_at_step = (
            int(content["step"]),
            content["warmed_up_at_step"],
        )
        training.state.waiting = Waiting(
            **content.get("waiting", {})
        )  # absent before there was a plateau schedule
        return float(content["seconds"]), int(content["metrics_bytes"])
    except (KeyError, IndexError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        told = f"{type(error).__name__}: {error}".splitlines()[0]
        raise RunError(f"{path}: a checkpoint of something else ({told}); {advice}") from None
