"""Run a task on several processes, with the environment variables of torchrun's workers.

The processes are forks of one that has imported torch.
"""

import copy
import importlib
import os
import socket
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
from killing import until_killed
from torch import Tensor, nn

from quick_processes import quick_processes
from reslearn.recipes import Recipe
from reslearn.train import Machine, run, train_recipe
from reslearn.train.batch_norm import SynchronizedBatchNorm
from reslearn.train.distributed import join_processes
from reslearn.train.setup import set_up

Outcome = tuple[str, Any]
TIMEOUT_SECONDS = 300
# A function of the room has the same name as the module.
calibration = importlib.import_module("reslearn.evaluate.calibration")
EVERY_TEMPERATURE = -1.0  # for calibration.LIKELIHOOD_RATIO


def on_processes(
    count: int, task: Callable[..., Any], *arguments: Any, **named: Any
) -> list[Outcome]:
    """Run `task` on `count` processes and return one outcome per process.

    An outcome is ("value", result), or the name of an exception and its text.
    """
    context = quick_processes()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    receivers, processes = [], []
    for rank in range(count):
        receiver, sender = context.Pipe(duplex=False)
        work = (rank, count, port, sender, task, arguments, named)
        process = context.Process(target=_work, args=work)  # type: ignore[attr-defined]
        process.start()
        # No other process has this end: then a process that dies without a message ends the wait.
        sender.close()
        receivers.append(receiver)
        processes.append(process)
    try:
        return [_receive(receiver) for receiver in receivers]
    finally:
        for process in processes:
            process.join(10)
            process.kill()


def _receive(receiver: Connection) -> Outcome:
    if not receiver.poll(TIMEOUT_SECONDS):  # a process that hangs must not hang the tests
        raise TimeoutError(f"a process sent no message for {TIMEOUT_SECONDS} s")
    outcome: Outcome = receiver.recv()
    return outcome


def _work(
    rank: int,
    count: int,
    port: int,
    sender: Any,
    task: Callable[..., Any],
    arguments: Any,
    named: Any,
) -> None:
    os.environ |= {
        "RANK": str(rank),
        "WORLD_SIZE": str(count),
        "LOCAL_RANK": str(rank),
        "LOCAL_WORLD_SIZE": str(count),
        "GROUP_WORLD_SIZE": "1",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "TORCHELASTIC_RUN_ID": "test",
        "RESLEARN_PROGRESS": "off",
    }
    torch.set_num_threads(1)
    try:
        outcome: Outcome = ("value", task(*arguments, **named))
    except BaseException as error:
        outcome = (type(error).__name__, str(error))
    sender.send(outcome)


def train(
    recipe: Recipe, out: Path, *, resume: bool = False, killed_after: int | None = None
) -> Any:
    """Train a recipe. With `killed_after`, every process ends after this many steps.

    Every temperature is kept, though a training of few steps has none that is better than chance.
    """
    calibration.LIKELIHOOD_RATIO = EVERY_TEMPERATURE  # type: ignore[attr-defined]
    if killed_after is not None:
        run.train = until_killed(killed_after)
    return train_recipe(recipe, out, Machine(threads=1), resume=resume)


def evaluate(recipe: Recipe) -> dict[str, Any]:
    """Return the metrics of the untrained network on each set of images."""
    with join_processes("cpu") as processes:
        setup = set_up(recipe, Machine(device="cpu", threads=1), processes=processes)
        dataset = setup.dataset
        parts = {"train": dataset.train, "validation": dataset.validation, "test": dataset.test}
        return {
            name: setup.evaluate(setup.model, images)
            for name, images in parts.items()
            if images is not None
        }


def normalize(cases: list[tuple[Tensor, Tensor, nn.Module]]) -> list[dict[str, Any]]:
    """Return what synchronized batch norm computes on the share of this process.

    These are outputs, gradients and running statistics, for each case of inputs, targets and norm.
    """
    with join_processes("cpu") as processes:
        return [_normalize(processes, *case) for case in cases]


def _normalize(processes: Any, x: Tensor, targets: Tensor, norm: nn.Module) -> dict[str, Any]:
    share = x.chunk(processes.count)[processes.rank].clone()
    share_targets = targets.chunk(processes.count)[processes.rank].clone()
    share.requires_grad_()
    norm = copy.deepcopy(norm)  # processes share the memory of tensors that they receive
    with SynchronizedBatchNorm(processes):
        y = norm(share)
    (y * share_targets).sum().backward()
    assert share.grad is not None
    gradients = {
        name: processes.sum(value.grad).numpy()
        for name, value in norm.named_parameters()
        if value.grad is not None
    }
    buffers = {name: value.numpy().copy() for name, value in norm.named_buffers()}
    return {"y": y.detach().numpy(), "x": share.grad.numpy(), **gradients, **buffers}
