"""The loop: batches in, weights changed, readings out. For any module, loss and optimizer; nothing in it knows of images or files.

Plain SGD with backpropagation end to end is all the paper needs (Sec. 3.1, 3.4). The host looks at the device once every
`read_every_steps` steps, one step late, so that the copy has arrived by then and nothing waits.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from reslearn.train.average import Average, NoAverage
from reslearn.train.batch_norm import BatchNormInFloat32
from reslearn.train.cuda_graph import Replay, Step
from reslearn.train.distributed import ALONE, Processes
from reslearn.train.meter import Meter, Reading, sums
from reslearn.train.schedule import Waiting, WarmUp
from reslearn.train.sync_batch_norm import SynchronisedBatchNorm

Loss = Callable[[Tensor, Tensor], Tensor]
Autocast = Callable[[], AbstractContextManager[object]]
_LOW_PRECISION = (torch.bfloat16, torch.float16)


class NonFiniteLossError(ValueError):
    """The loss or a weight is no finite number any more."""


@dataclass(kw_only=True)
class State:
    """What must survive beside model, optimizer and average for the loop to go on bit for bit."""

    step: int = 0
    warmed_up_at_step: int | None = None
    waiting: Waiting = field(default_factory=Waiting)


def make_step(
    model: nn.Module,
    loss: Loss,
    optimizer: torch.optim.Optimizer,
    *,
    autocast: Autocast,
    accumulate: int = 1,
    compiled: bool = False,
    processes: Processes = ALONE,
    sync_batch_norm: bool = False,
    replayed: bool = False,
) -> Step:
    """One update of the weights from one batch, in `accumulate` equal parts that pass one after another.

    `loss` is a mean over the images it is given. The step returns sums over the batch for the meter: [loss, errors, images], float64
    on the device; it raises ValueError where a batch cannot be cut into equal parts. With many `processes` each is given its share of
    the batch, and the update is that of the whole, on all of them; `sync_batch_norm` normalizes over all shares, uncompiled. The running
    statistics of batch norm follow the first part of a batch, as with many processes those of the first: one move a step either way.
    `replayed`: as a CUDA graph (cuda_graph.py), by one process; then the sums of a step are overwritten by the next.
    """

    normalizing = (
        partial(SynchronisedBatchNorm, processes)
        if sync_batch_norm
        else BatchNormInFloat32
        if compiled
        else nullcontext
    )

    def forward(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        with autocast(), normalizing():
            outputs = model(x)
        if outputs.dtype in _LOW_PRECISION:
            outputs = outputs.float()
        value = loss(outputs, y)
        return value, sums(value, outputs, y)

    if compiled:
        forward = torch.compile(forward)
    shared, kept_here = processes.sharing(model, forward)
    num_parts = accumulate * processes.count
    running = [
        buffer
        for module in model.modules()
        if isinstance(module, _BatchNorm)
        for buffer in module.buffers(recurse=False)
    ]

    def step(x: Tensor, y: Tensor) -> Tensor:
        if len(x) % accumulate:
            raise ValueError(
                f"a batch of {len(x)} cannot be cut into accumulate = {accumulate} equal parts"
            )
        optimizer.zero_grad(set_to_none=True)
        total: Tensor | None = None
        moved: list[Tensor] = []
        for number, (part_x, part_y) in enumerate(
            zip(x.chunk(accumulate), y.chunk(accumulate), strict=True), 1
        ):
            with kept_here() if number < accumulate else nullcontext():
                value, part = shared(part_x, part_y)
                torch.autograd.backward(value / num_parts)
            if number == 1 < accumulate:
                moved = [buffer.clone() for buffer in running]
            total = part if total is None else total + part
        if accumulate > 1:
            for buffer, first in zip(running, moved, strict=True):
                buffer.copy_(first)
        optimizer.step()
        assert total is not None
        return total

    return Replay(step, model, optimizer) if replayed else step


def train_steps(
    step: Step,
    batches: Iterator[tuple[Tensor, Tensor]],
    optimizer: torch.optim.Optimizer,
    *,
    state: State,
    meter: Meter,
    average: Average | NoAverage,
    num_steps: int,
    factor: Callable[[int], float],
    warm_up: WarmUp | None,
) -> Iterator[Reading | None]:
    """Train from `state.step` to `num_steps`, handing the caller the reins after every step, with a reading where one has arrived.

    The base learning rate of each parameter group is its "base_lr". Decisions (end of warm-up, a loss that is not finite) are
    made on readings alone, at steps that depend on nothing but the recipe. Raises NonFiniteLossError.
    """
    while state.step < num_steps:
        if warm_up and state.step == warm_up.num_steps:
            state.warmed_up_at_step = state.step
        warming = warm_up is not None and state.warmed_up_at_step is None
        for group in optimizer.param_groups:
            group["lr"] = (
                warm_up.lr if warm_up and warming else group["base_lr"] * factor(state.step)
            )
        x, y = next(batches)
        totals = step(x, y)
        average.update()
        state.step += 1
        reading = meter.add(
            totals,
            step=state.step,
            lr=optimizer.param_groups[0]["lr"],
            last=state.step == num_steps,
        )
        if reading is not None:
            check_finite(reading)
            if warm_up and warm_up.num_steps is None:
                if math.isnan(reading.top1_error_pct):
                    raise ValueError(
                        "warm_up waits for a training error, and outputs [B, K] with integer targets [B] alone have one"
                    )
                if warming and reading.top1_error_pct < warm_up.error_pct:
                    state.warmed_up_at_step = state.step
        yield reading


def check_finite(reading: Reading) -> None:
    """Raise NonFiniteLossError where the mean loss of the reading is not a finite number."""
    if not math.isfinite(reading.loss):
        raise NonFiniteLossError(
            f"the loss is {reading.loss} between steps {reading.first_step} and {reading.step}"
        )


def fit(
    model: nn.Module,
    batches: Iterable[tuple[Tensor, Tensor]],
    loss: Loss,
    optimizer: torch.optim.Optimizer,
    *,
    steps: int,
    factor: Callable[[int], float] = lambda step: 1.0,
    warm_up: WarmUp | None = None,
    accumulate: int = 1,
    read_every_steps: int = 50,
    on_reading: Callable[[Reading], object] = lambda reading: None,
) -> list[Reading]:
    """Train any module for `steps` updates on `batches` (inputs, targets), and return the readings, one every `read_every_steps`.

    `batches` is gone through again from its start when it ends before `steps`; all of a batch is one update, in `accumulate` parts.
    `loss(outputs, targets)` is a mean. `factor(step)` multiplies the optimizer's learning rates, which are put back at the end.
    Errors are counted where the outputs are [B, K] and the targets integers [B]; elsewhere they are NaN, and a `warm_up` by them is
    refused. Raises NonFiniteLossError, and ValueError where there is no batch.
    """
    for group in optimizer.param_groups:
        group["base_lr"] = group["lr"]
    model.train()
    step = make_step(model, loss, optimizer, autocast=nullcontext, accumulate=accumulate)
    device = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
    meter = Meter(every=read_every_steps, device=device)
    readings = []
    try:
        for reading in train_steps(
            step,
            _endless(batches),
            optimizer,
            state=State(),
            meter=meter,
            average=NoAverage(),
            num_steps=steps,
            factor=factor,
            warm_up=warm_up,
        ):
            if reading is not None:
                readings.append(reading)
                on_reading(reading)
    finally:
        for group in optimizer.param_groups:
            group["lr"] = group.pop("base_lr")
    return readings


def _endless(batches: Iterable[tuple[Tensor, Tensor]]) -> Iterator[tuple[Tensor, Tensor]]:
    while True:
        empty = True
        for batch in batches:
            empty = False
            yield batch
        if empty:
            raise ValueError(
                "batches is empty (an iterator that was used up cannot be gone through again: give a list or a loader)"
            )
