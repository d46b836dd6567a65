"""Save and restore the state of a training.

A run that is resumed from a checkpoint repeats the bits of an unbroken one.
"""

import io
from pathlib import Path
from typing import Any

import torch

from reslearn.runs import RunError, RunFolder
from reslearn.train.distributed import ALONE, Processes
from reslearn.train.step import NonFiniteLossError, State


def save_checkpoint(
    folder: RunFolder, state: State, *, seconds: float, processes: Processes = ALONE
) -> None:
    """Write the checkpoint of `state.step`. All processes must call this together.

    The checkpoint holds the state of process 0. Weights are equal on all processes, and the running
    statistics of the other processes are never read.

    Args:
        folder: Receives the checkpoint.
        state: The state to save.
        seconds: Training time so far, including the time before the run was resumed.
        processes: The processes that train together.

    Raises:
        NonFiniteLossError: If a weight is NaN or infinite. The earlier checkpoint stays the newest.
    """
    if not all(bool(torch.isfinite(parameter).all()) for parameter in state.model.parameters()):
        raise NonFiniteLossError(f"a weight is NaN or infinite after step {state.step}")
    meter = state.meter.state_dict()
    if not processes.is_first:
        return
    content = {
        "model": state.model.state_dict(),
        "optimizer": state.optimizer.state_dict(),
        "average": state.average.state_dict(),
        "meter": meter,
        "step": state.step,
        **state.learning_rate.state_dict(),
        "seconds": seconds,
        "metrics_bytes": folder.metrics_size(),
    }
    # torch.save to a file reports a full disk by an error of its own, so it saves to memory here.
    buffer = io.BytesIO()
    torch.save(content, buffer)
    folder.write_checkpoint(state.step, lambda file: file.write(buffer.getbuffer()))


def restore_checkpoint(path: Path, state: State, *, device: str) -> tuple[float, int]:
    """Set `state` to what the checkpoint at `path` holds.

    Returns:
        The training time in seconds, and the size of metrics.jsonl in bytes, at the checkpoint.

    Raises:
        RunError: If the file is damaged, not a checkpoint, or the checkpoint of another network.
    """
    advice = "remove it to resume from an older one, or start again in another folder"
    try:
        content: Any = torch.load(path, map_location=device, weights_only=True)
    except Exception as error:  # torch's readers raise many types of errors
        raise RunError(
            f"{path}: not a checkpoint, or a damaged one ({type(error).__name__}); {advice}"
        ) from None
    try:
        state.model.load_state_dict(content["model"])
        state.optimizer.load_state_dict(content["optimizer"])
        state.average.load_state_dict(content["average"])
        state.meter.load_state_dict(content["meter"])
        state.step = int(content["step"])
        state.learning_rate.load_state_dict(content)
        return float(content["seconds"]), int(content["metrics_bytes"])
    except (KeyError, IndexError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise RunError(f"{path}: a checkpoint of another network ({reason}); {advice}") from None
