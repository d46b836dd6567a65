"""Everything that changes during training and must survive, and the checkpoint that holds it.

A run that is resumed from a checkpoint repeats the bits of an unbroken one.
"""

import copy
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from reslearn.runs import RunError, RunFolder
from reslearn.train.distributed import ALONE, Processes
from reslearn.train.optimizer import LearningRate
from reslearn.train.step import Meter, NonFiniteLossError


@dataclass(kw_only=True)
class State:
    """Everything that changes during training.

    Order, crops and flips of the images are pure functions of (seed, epoch, index), so no random
    state is among it.
    """

    model: nn.Module
    optimizer: torch.optim.Optimizer
    learning_rate: LearningRate
    average: "WeightAverage"
    meter: Meter
    step: int = 0  # steps done

    @property
    def network(self) -> nn.Module:
        """The network to evaluate and save: the average of the weights if there is one."""
        return self.average.network


class WeightAverage:
    """An exponential moving average of the weights and of the batch-norm statistics.

    After each step: average = decay x average + (1 - decay) x weight. At update t the decay is
    min(decay, (1 + t) / (10 + t)), so that the random initial weights are forgotten quickly.

    Args:
        model: The network that trains.
        decay: None: no average. Then `network` is `model` itself.
    """

    def __init__(self, model: nn.Module, *, decay: float | None) -> None:
        self.decay = decay
        self.num_updates = 0
        self.network = model
        if decay is None:
            return
        self.network = copy.deepcopy(model).eval().requires_grad_(False)
        averages, weights = self.network.state_dict(), model.state_dict()
        floats = [name for name, value in averages.items() if value.is_floating_point()]
        counters = [name for name in averages if name not in floats]
        self._averages = [averages[name] for name in floats]
        self._weights = [weights[name] for name in floats]
        self._counters = [(averages[name], weights[name]) for name in counters]

    @torch.no_grad()
    def update(self) -> None:
        """Include the weights after a step."""
        if self.decay is None:
            return
        decay = min(self.decay, (1 + self.num_updates) / (10 + self.num_updates))
        self.num_updates += 1
        torch._foreach_lerp_(self._averages, self._weights, 1 - decay)
        for average_counter, counter in self._counters:
            average_counter.copy_(counter)

    def state_dict(self) -> dict[str, Any] | None:
        """Return the averaged weights and the number of updates; None without an average."""
        if self.decay is None:
            return None
        return {"network": self.network.state_dict(), "num_updates": self.num_updates}

    def load_state_dict(self, state: dict[str, Any] | None) -> None:
        """Restore the values that `state_dict` returned."""
        if self.decay is None:
            return
        if state is None:
            raise ValueError("there is no average of the weights")
        self.network.load_state_dict(state["network"])
        self.num_updates = int(state["num_updates"])


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
