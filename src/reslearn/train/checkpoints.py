"""Save and restore the state of a training.

A run that is resumed from a checkpoint repeats the bits of an unbroken one.
"""

import hashlib
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from reslearn.runs import DamagedCheckpointError, RunError, RunFolder
from reslearn.train.distributed import ALONE, Processes
from reslearn.train.step import State


@dataclass(frozen=True, kw_only=True)
class RestoredRun:
    """What a checkpoint holds beside the state.

    Attributes:
        seconds: Training time up to the checkpoint.
        metrics_bytes: Size of metrics.jsonl at the checkpoint.
        metrics_sha256: Digest of these bytes.
    """

    seconds: float
    metrics_bytes: int
    metrics_sha256: str


NEW_RUN = RestoredRun(seconds=0.0, metrics_bytes=0, metrics_sha256=hashlib.sha256(b"").hexdigest())


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
        NonFiniteLossError: If a value of the state is NaN or infinite. The earlier checkpoint stays
            the newest.
    """
    state.check_finite(processes)
    meter = state.meter.state_dict()
    if not processes.is_first:
        return
    metrics_bytes, metrics_sha256 = folder.sync_metrics()
    content = {
        "model": state.model.state_dict(),
        "optimizer": state.optimizer.state_dict(),
        "average": state.average.state_dict(),
        "meter": meter,
        "step": state.step,
        **state.learning_rate.state_dict(),
        "selection": state.selection.state_dict(),
        "seconds": seconds,
        "metrics_bytes": metrics_bytes,
        "metrics_sha256": metrics_sha256,
        "run": folder.identity(),
    }
    # torch.save to a file reports a full disk by an error of its own, so it saves to memory here.
    buffer = io.BytesIO()
    torch.save(content, buffer)
    folder.write_checkpoint(state.step, buffer.getbuffer())


def find_checkpoint(folder: RunFolder) -> tuple[Path | None, list[Path]]:
    """Return the newest checkpoint that is not damaged; None if the run has no checkpoint.

    Damaged checkpoints that are newer are renamed, so that they are not the newest any more. They
    are returned too.

    Raises:
        RunError: If all checkpoints of the run are damaged.
    """
    damaged: list[Path] = []
    message = ""
    for path in reversed(folder.checkpoints()):
        try:
            folder.read_checkpoint(path)
            return path, [folder.set_aside(damaged_path) for damaged_path in damaged]
        except DamagedCheckpointError as error:
            message = f"{error}, and there is no other checkpoint: train again in another folder"
            damaged.append(path)
    if damaged:
        raise RunError(message)
    return None, []


def restore_checkpoint(folder: RunFolder, path: Path, state: State, *, device: str) -> RestoredRun:
    """Set `state` to what the checkpoint at `path` holds.

    Raises:
        RunError: If the file is damaged, not a checkpoint, or the checkpoint of another run.
    """
    content = io.BytesIO(folder.read_checkpoint(path))
    try:
        saved: Any = torch.load(content, map_location=device, weights_only=True)
        identity = saved["run"]
    except Exception as error:  # torch's readers raise many types of errors
        raise RunError(
            f"{path} is a checkpoint of another program or version ({type(error).__name__}): "
            "train again in another folder"
        ) from None
    if identity != folder.identity():
        raise RunError(
            f"{path} is a checkpoint of another run, or recipe.json or environment.json was "
            "changed since: put the old file back, or train again in another folder"
        )
    state.model.load_state_dict(saved["model"])
    state.optimizer.load_state_dict(saved["optimizer"])
    state.average.load_state_dict(saved["average"])
    state.meter.load_state_dict(saved["meter"])
    state.step = int(saved["step"])
    state.learning_rate.load_state_dict(saved)
    if "selection" in saved:  # checkpoints of earlier versions have none
        state.selection.load_state_dict(saved["selection"])
    return RestoredRun(
        seconds=float(saved["seconds"]),
        metrics_bytes=int(saved["metrics_bytes"]),
        metrics_sha256=str(saved["metrics_sha256"]),
    )
