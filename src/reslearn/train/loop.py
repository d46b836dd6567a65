"""The training loop, for any module, loss and optimizer. It knows nothing about images or files.

Plain SGD with end-to-end backpropagation is all that the paper needs (Sec. 3.1, 3.4). The host
reads results from the device once every `read_every_steps` steps and one step late. By then the
copy has arrived, so nothing waits.
"""

import contextlib
import math
import signal
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from types import FrameType

import torch
from torch import Tensor, nn

from reslearn.evaluate import Metrics
from reslearn.train.cuda_graph import Step
from reslearn.train.distributed import ALONE, Processes
from reslearn.train.freezing import set_training_mode
from reslearn.train.learning_rate import LearningRate
from reslearn.train.step import Loss, Meter, Reading, State, WeightAverage, make_step
from reslearn.train.time_limit import TimeLimit

Batch = tuple[Tensor, Tensor]


def train(setup: "LoopSetup", state: State, log: "Log") -> None:
    """Train from `state.step` to `setup.num_steps`.

    Every decision rests on readings and evaluations, at steps that depend only on the recipe. Many
    processes therefore decide alike, and a resumed run repeats the decisions of an unbroken one.

    Args:
        setup: What the loop uses. It does not change.
        state: What the loop changes. A checkpoint holds it.
        log: Records readings, evaluations, snapshots and checkpoints.

    Raises:
        NonFiniteLossError: If the loss of a reading is NaN or infinite, or a value of `state` at a
            reading or a checkpoint. RunLog also checks the loss of each evaluation.
        Interrupted: After the checkpoint that follows a stop signal.
    """
    if state.step == 0 and 0 in setup.snapshot_steps:
        log.snapshot(state)
    set_training_mode(state.model)
    while state.step < _last_step(setup, state):
        x, y = next(setup.batches)
        previous_lr = state.lr
        state.learning_rate.apply(state.optimizer, state.step)
        totals = setup.step(x, y)
        state.average.update()
        state.step += 1
        is_last = state.step == _last_step(setup, state)

        reading = state.meter.add(totals, step=state.step, lr=state.lr, is_last=is_last)
        if reading is not None:
            reading.check_finite()
            state.check_finite(setup.processes)
            state.learning_rate.observe_training(reading.top1_error_pct, step=state.step)
            log.reading(reading)
        log.step(state, previous_lr=previous_lr)

        if state.step % setup.evaluate_every_steps == 0 and not is_last:
            _evaluate(setup, state, log)
        if state.step in setup.snapshot_steps:
            log.snapshot(state)
        if setup.time_limit is not None and not is_last:
            last_step = setup.time_limit.moved_end(
                state.step, _last_step(setup, state), setup.num_steps
            )
            if last_step is not None:
                state.learning_rate.move_end(state.step, last_step)
                log.end_moved(last_step)

        is_due_here = reading is not None and log.is_checkpoint_due(setup.checkpoint_every_seconds)
        # Signals and clocks differ between processes, so the processes agree on them at every step.
        signal_number, is_checkpoint_due = setup.processes.maximum(
            [setup.stop.signal_number, int(is_due_here)]
        )
        if signal_number or is_checkpoint_due or is_last:
            log.checkpoint(state)
        if signal_number:
            raise Interrupted("stopped by a signal", signal_number=signal_number)


def _last_step(setup: "LoopSetup", state: State) -> int:
    """Return the step at which the loop ends: planned, shortened, or stopped early."""
    planned = state.learning_rate.last_step(setup.num_steps)
    return min(planned, state.selection.last_step or planned)


def _evaluate(setup: "LoopSetup", state: State, log: "Log") -> None:
    """Evaluate during training. Only the validation error leads to decisions."""
    for name, evaluate in setup.evaluations.items():
        started_at = time.monotonic()
        # state.model is the network that trains. state.network is the average of its weights, or
        # state.model itself if the recipe asks for no average.
        metrics = evaluate(state.network)
        if setup.time_limit is not None:
            setup.time_limit.evaluated(metrics.num_images, time.monotonic() - started_at)
        log.evaluation(name, state.step, metrics)
        if name == "validation":
            state.learning_rate.observe_validation(metrics.top1_error_pct)
            state.selection.observe(state.network, metrics.top1_error_pct, step=state.step)


def fit(
    model: nn.Module,
    batches: Iterable[Batch],
    loss: Loss,
    optimizer: torch.optim.Optimizer,
    *,
    steps: int,
    learning_rate: LearningRate | None = None,
    accumulate: int = 1,
    read_every_steps: int = 50,
) -> list[Reading]:
    """Train any module for `steps` updates and return the readings.

    Args:
        model: Trained in place. It stays in training mode.
        batches: Pairs (inputs, targets). Iterated again from the start if they end before `steps`.
        loss: Maps (outputs, targets) to the mean loss, a scalar.
        optimizer: Its learning rates are the base rates. They are restored at the end.
        steps: Number of updates.
        learning_rate: Multiplies the base rates; constant by default. It has a state, so each call
            needs a new one.
        accumulate: Equal parts into which each batch is cut. One batch is always one update.
        read_every_steps: Steps per reading.

    Returns:
        One reading per `read_every_steps` steps. The error is NaN unless outputs are [B, K] and
        targets are integers [B].

    Raises:
        NonFiniteLossError: If the loss of a reading, a weight, or a statistic of batch norm is NaN
            or infinite.
        ValueError: If there is no batch, or a batch cannot be cut into `accumulate` equal parts.
    """
    device = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
    state = State(
        model=model,
        optimizer=optimizer,
        learning_rate=learning_rate or LearningRate(),
        average=WeightAverage(model, decay=None),
        meter=Meter(every=read_every_steps, device=device),
    )
    step = make_step(model, loss, optimizer, accumulate=accumulate)
    log = Log()
    for group in optimizer.param_groups:
        group["base_lr"] = group["lr"]
    try:
        train(LoopSetup(step=step, batches=_repeat(batches), num_steps=steps), state, log)
    finally:
        for group in optimizer.param_groups:
            group["lr"] = group.pop("base_lr")
    return log.readings


def _repeat(batches: Iterable[Batch]) -> Iterator[Batch]:
    while True:
        is_empty = True
        for batch in batches:
            is_empty = False
            yield batch
        if is_empty:
            raise ValueError(
                "batches is empty, or it is an iterator that ended before the last step: "
                "pass a list or a data loader, which can be iterated again"
            )


class StopRequest:
    """The signal that asked the loop to stop; 0 if there was none.

    With `at_once` set, a signal raises `Interrupted` immediately instead of waiting for the loop.
    """

    signal_number: int = 0
    at_once: bool = False


@dataclass(frozen=True, kw_only=True)
class LoopSetup:
    """What the loop uses and does not change. By default it neither evaluates nor stops early.

    Attributes:
        step: Updates the weights from one batch and returns its totals (step.py).
        batches: Pairs (inputs, targets), from the step at which the loop begins, without end.
        num_steps: The step at which the loop ends.
        evaluations: Functions from a network to its metrics, by the name of the set. The learning
            rate observes the one called "validation".
        evaluate_every_steps: Steps between evaluations. The last step is not evaluated here.
        snapshot_steps: Steps after which the network is saved.
        checkpoint_every_seconds: Seconds between checkpoints. They are written at readings, at the
            last step and when the loop stops.
        processes: The processes that train this network together.
        stop: Asks the loop to stop after the current step.
        time_limit: Moves the end of a run that would end too late. None: no limit.
    """

    step: Step
    batches: Iterator[Batch]
    num_steps: int
    evaluations: Mapping[str, Callable[[nn.Module], Metrics]] = field(default_factory=dict)
    evaluate_every_steps: int = 1
    snapshot_steps: frozenset[int] = frozenset()
    checkpoint_every_seconds: float = math.inf
    processes: Processes = ALONE
    stop: StopRequest = field(default_factory=StopRequest)
    time_limit: TimeLimit | None = None


class Log:
    """The log of `fit`: keeps the readings in memory and writes nothing. RunLog writes files."""

    def __init__(self) -> None:
        self.readings: list[Reading] = []

    def reading(self, reading: Reading) -> None:
        """Record the means over a window of training steps."""
        self.readings.append(reading)

    def step(self, state: State, *, previous_lr: float) -> None:
        """Show that a step is done, and record its learning rate if it is not `previous_lr`.

        Called after every step, so it must be cheap and may not wait for the device.
        """

    def evaluation(self, name: str, step: int, metrics: Metrics) -> None:
        """Record the metrics on the set called `name` after `step` steps."""

    def end_moved(self, last_step: int) -> None:
        """Say that a time limit lets the run end at `last_step`."""

    def snapshot(self, state: State) -> None:
        """Save the network, so that it can be analyzed later."""

    def is_checkpoint_due(self, every_seconds: float) -> bool:
        """Return whether the last checkpoint is at least `every_seconds` old."""
        return False

    def checkpoint(self, state: State) -> None:
        """Save everything that a resumed run needs."""


class Interrupted(Exception):
    """Training stopped because of a signal. `train_recipe` adds how to resume the run.

    `exit_status` is the status that a shell reports for the signal: 128 plus its number.
    """

    def __init__(self, text: str, *, signal_number: int) -> None:
        super().__init__(text)
        self.signal_number = signal_number
        self.exit_status = 128 + signal_number


@contextlib.contextmanager
def stop_on_signal() -> Iterator[StopRequest]:
    """Turn the first SIGINT (Ctrl-C) or SIGTERM into a request to stop after the current step.

    A second signal has its usual effect. The former handlers are restored at the end.
    """
    request = StopRequest()

    def handle(signal_number: int, frame: FrameType | None) -> None:
        request.signal_number = signal_number
        for number, handler in former_handlers.items():
            signal.signal(number, handler)
        if request.at_once:
            raise Interrupted("stopped by a signal", signal_number=signal_number)

    former_handlers = {
        number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        for number in former_handlers:
            signal.signal(number, handle)
    except ValueError:  # only the main thread may set handlers
        former_handlers = {}
    try:
        yield request
    finally:
        for number, handler in former_handlers.items():
            signal.signal(number, handler)
