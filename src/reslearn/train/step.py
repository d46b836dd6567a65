"""One training step (forward, accumulate, reduce, update), and the state that it changes.

The step returns totals, which the meter adds up. The meter keeps sums on the device and reads them
once per window of steps, one step late. The copy to the host therefore travels while the next step
runs. The CPU keeps the same order, so decisions that rest on readings fall on the same steps
everywhere.
"""

import copy
import math
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from reslearn.train.batch_norm import BatchNormInFloat32, SynchronizedBatchNorm
from reslearn.train.cuda_graph import Replay, Step
from reslearn.train.distributed import ALONE, Forward, Processes
from reslearn.train.learning_rate import LearningRate
from reslearn.train.numerics import Numerics
from reslearn.train.selection import Selection

Loss = Callable[[Tensor, Tensor], Tensor]
_LOW_PRECISION = (torch.bfloat16, torch.float16)


def make_step(
    model: nn.Module,
    loss: Loss,
    optimizer: torch.optim.Optimizer,
    *,
    numerics: Numerics | None = None,
    accumulate: int = 1,
    processes: Processes = ALONE,
    sync_batch_norm: bool = False,
) -> Step:
    """Return a function that updates the weights once from one batch (x, y).

    The function returns `batch_totals` of the batch. It raises ValueError if the batch cannot be
    cut into equal parts. Running statistics of batch norm follow the first part of a batch, and
    with many processes the first process: either way they move once per step.

    Args:
        model: The module to train, in training mode.
        loss: Maps (outputs, targets) to the mean loss, a scalar.
        optimizer: Updates the parameters of `model`.
        numerics: Precision, compilation and CUDA graphs. None: float32, none of these. A step that
            is replayed as a CUDA graph overwrites the totals of the step before.
        accumulate: Equal parts of a batch that pass through the model one after another.
        processes: Each gets its share of every batch. All make the update of the whole batch.
        sync_batch_norm: Normalize over the shares of all processes. It cannot be compiled.
    """
    forward = _make_forward(model, loss, numerics, processes if sync_batch_norm else None)
    forward, local_gradients = processes.share_gradients(model, forward)
    num_parts = accumulate * processes.count
    statistics = _running_statistics(model)

    def step(x: Tensor, y: Tensor) -> Tensor:
        if len(x) % accumulate:
            raise ValueError(
                f"a batch of {len(x)} cannot be cut into accumulate = {accumulate} equal parts"
            )
        optimizer.zero_grad(set_to_none=True)
        totals: Tensor | None = None
        first_statistics: list[Tensor] = []
        parts = zip(x.chunk(accumulate), y.chunk(accumulate), strict=True)
        for number, (part_x, part_y) in enumerate(parts, 1):
            with local_gradients() if number < accumulate else nullcontext():
                value, part_totals = forward(part_x, part_y)
                torch.autograd.backward(value / num_parts)
            if number == 1 < accumulate:
                first_statistics = [buffer.clone() for buffer in statistics]
            totals = part_totals if totals is None else totals + part_totals
        if accumulate > 1:
            for buffer, first in zip(statistics, first_statistics, strict=True):
                buffer.copy_(first)
        optimizer.step()
        assert totals is not None
        return totals

    return Replay(step, model, optimizer) if numerics and numerics.replayed else step


def _make_forward(
    model: nn.Module, loss: Loss, numerics: Numerics | None, synchronized: Processes | None
) -> Forward:
    """Return a function from (x, y) to the mean loss and `batch_totals`, compiled if asked for."""
    compiled = numerics is not None and numerics.compiled
    autocast = nullcontext if numerics is None else numerics.autocast
    batch_norm: Callable[[], AbstractContextManager[object]] = nullcontext
    if synchronized is not None:
        batch_norm = partial(SynchronizedBatchNorm, synchronized)
    elif compiled:
        batch_norm = BatchNormInFloat32

    def forward(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        with autocast(), batch_norm():
            outputs = model(x)
        if outputs.dtype in _LOW_PRECISION:
            outputs = outputs.float()
        value = loss(outputs, y)
        classes = y
        if y.is_floating_point() and isinstance(loss, nn.CrossEntropyLoss):
            # Targets of mixed images are probabilities: errors count against the likeliest class.
            classes = y.argmax(1)
        return value, batch_totals(value, outputs, classes)

    return torch.compile(forward) if compiled else forward


def _running_statistics(model: nn.Module) -> list[Tensor]:
    buffers: list[Tensor] = []
    for module in model.modules():
        if isinstance(module, _BatchNorm):
            buffers += module.buffers(recurse=False)
    return buffers


def batch_totals(loss: Tensor, outputs: Tensor, targets: Tensor) -> Tensor:
    """Return [loss x images, errors, images] of a batch, float64 [3] on the device.

    Args:
        loss: The mean loss, a scalar.
        outputs: Logits [B, K]. For other shapes the number of errors is NaN.
        targets: Class indices, integer [B]. For other targets the number of errors is NaN.
    """
    num_images = len(targets)
    if outputs.ndim == 2 and targets.ndim == 1 and not targets.is_floating_point():
        errors = (outputs.detach().argmax(1) != targets).sum().double()
    else:
        errors = loss.new_full((), float("nan"), dtype=torch.float64)
    return torch.stack(
        [loss.detach().double() * num_images, errors, errors.new_full((), float(num_images))]
    )


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
    meter: "Meter"
    selection: Selection = field(default_factory=Selection)
    step: int = 0  # steps done

    @property
    def network(self) -> nn.Module:
        """The network to evaluate and save: the average of the weights if there is one."""
        return self.average.network

    @property
    def lr(self) -> float:
        """The learning rate that was set last, of the first group of parameters."""
        lr: float = self.optimizer.param_groups[0]["lr"]
        return lr

    def check_finite(self, processes: Processes = ALONE) -> None:
        """Raise NonFiniteLossError if a value of the state is NaN or infinite, and name its tensor.

        Batch norm does not use its running statistics while it trains, so they may become NaN
        although the loss stays finite. Other buffers may hold infinite constants by design.
        """
        tensors = self._values()
        flags: list[bool] = []
        if tensors:
            largest = torch._foreach_norm(list(tensors.values()), float("inf"))
            has_doubles = any(norm.dtype == torch.float64 for norm in largest)
            dtype, device = torch.float64 if has_doubles else torch.float32, largest[0].device
            norms = torch.stack([norm.to(device, dtype) for norm in largest])
            flags = norms.isfinite().logical_not().tolist()
        # Weights are equal on all processes, but statistics are not.
        (has_failed,) = processes.maximum([int(any(flags))])
        if has_failed:
            names = [name for name, flag in zip(tensors, flags, strict=True) if flag]
            name = names[0] if names else "a statistic of batch norm on another process"
            raise NonFiniteLossError(f"{name} holds NaN or infinity after step {self.step}")

    def _values(self) -> dict[str, Tensor]:
        """Return trained weights, their momentum, and the statistics of batch norm by name."""
        values: dict[str, Tensor] = {}
        trained = [name for name, value in self.model.named_parameters() if value.requires_grad]
        networks = {"": self.model}
        if self.network is not self.model:
            networks["the average of "] = self.network
        for prefix, network in networks.items():
            for name in trained:
                parameter = network.get_parameter(name)
                values[prefix + name] = parameter
                for key, value in self.optimizer.state.get(parameter, {}).items():
                    if isinstance(value, Tensor) and value.shape == parameter.shape:
                        values[f"{key} of {name}"] = value
            for module_name, module in network.named_modules():
                if isinstance(module, _BatchNorm):
                    for name, buffer in module.named_buffers(recurse=False):
                        values[f"{prefix}{module_name}.{name}"] = buffer
        return {name: value.detach() for name, value in values.items() if _can_be_checked(value)}


def _can_be_checked(value: Tensor) -> bool:
    """Return whether a tensor has values whose norm torch can compute."""
    if isinstance(value, nn.UninitializedParameter):
        return False
    is_dense = value.layout == torch.strided and not value.is_meta
    is_number = value.is_floating_point() or value.is_complex()
    # torch has no norm of 8-bit numbers.
    return is_dense and is_number and value.dtype.itemsize > 1 and value.numel() > 0


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


class NonFiniteLossError(ValueError):
    """The loss or a weight is NaN or infinite."""


@dataclass(frozen=True, kw_only=True)
class Reading:
    """Means over the images of steps first_step..step, as trained (the paper's training error).

    The images are augmented and the weights change from step to step.
    """

    first_step: int
    step: int
    loss: float
    top1_error_pct: float  # NaN unless the task is classification
    lr: float  # at the last step

    def check_finite(self) -> None:
        """Raise NonFiniteLossError if the loss is NaN or infinite."""
        if not math.isfinite(self.loss):
            raise NonFiniteLossError(
                f"the loss is {self.loss} between steps {self.first_step} and {self.step}"
            )


class Meter:
    """Adds up `batch_totals` and returns one `Reading` per window of `every` steps.

    A reading arrives one step after the end of its window; the last one arrives at the last step.
    With many processes each adds up its own share. Readings cover all shares and are equal
    everywhere.
    """

    def __init__(
        self, *, every: int, device: torch.device | str, processes: Processes = ALONE
    ) -> None:
        self.every = every
        self._processes = processes
        self._window = torch.zeros(3, dtype=torch.float64, device=device)
        self._first_step = 1
        # The window on its way to the host: totals, first step, last step, learning rate.
        self._sent: tuple[Tensor, int, int, float] | None = None
        # torch.Event is the typed form that does not depend on the device.
        self._arrived = torch.Event(device) if torch.device(device).type == "cuda" else None

    def add(self, totals: Tensor, *, step: int, lr: float, is_last: bool) -> Reading | None:
        """Add the totals of step `step`. Return the reading of the window that ended before it."""
        reading = self._receive() if not is_last else None
        self._window += totals
        if step % self.every == 0 or is_last:
            window = self._processes.sum(self._window)
            if is_last and self._sent is not None:
                # The window before ended at the last step but one: both become one reading.
                sent, first_step, _, _ = self._sent
                window = window + sent.to(window.device)
                self._first_step, self._sent = first_step, None
            self._send(window, step, lr)
        return self._receive() if is_last else reading

    def state_dict(self) -> dict[str, Any]:
        """Return plain values: the windows of all processes. Waits for the device."""
        sent = self._sent
        if sent is not None and self._arrived is not None:
            self._arrived.synchronize()
        return {
            "window": self._processes.gather(self._window).tolist(),
            "first_step": self._first_step,
            "sent": None if sent is None else [sent[0].tolist(), *sent[1:]],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the values that `state_dict` returned."""
        windows = torch.tensor(state["window"], dtype=torch.float64)  # [processes, 3]
        self._window.copy_(windows[self._processes.rank])
        self._first_step = state["first_step"]
        sent = state["sent"]
        self._sent = None
        if sent is not None:
            self._sent = (torch.tensor(sent[0], dtype=torch.float64), *sent[1:])

    def _send(self, window: Tensor, step: int, lr: float) -> None:
        if self._arrived is None:
            copy = window.clone()
        else:
            copy = torch.empty(3, dtype=torch.float64, pin_memory=True)
            copy.copy_(window, non_blocking=True)
            self._arrived.record()
        self._sent = (copy, self._first_step, step, lr)
        self._first_step = step + 1
        self._window.zero_()

    def _receive(self) -> Reading | None:
        if self._sent is None:
            return None
        if self._arrived is not None:
            self._arrived.synchronize()
        window, first_step, step, lr = self._sent
        self._sent = None
        loss, errors, images = window.tolist()
        return Reading(
            first_step=first_step,
            step=step,
            loss=loss / images,
            top1_error_pct=100 * errors / images,
            lr=lr,
        )
