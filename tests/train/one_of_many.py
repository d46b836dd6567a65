"""What one of many processes does in test_distributed.py: forked from one that has imported torch, told who it is as torchrun does."""

import copy
import multiprocessing
import os
import socket
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
from killing import until_killed
from torch import Tensor, nn

from reslearn.recipes import Recipe
from reslearn.train import Machine, run, train_recipe
from reslearn.train.batch_norm import SynchronizedBatchNorm
from reslearn.train.distributed import join_processes
from reslearn.train.setup import set_up

Said = tuple[str, Any]
WAIT_SECONDS = 300


def on_processes(count: int, task: Callable[..., Any], *arguments: Any, **named: Any) -> list[Said]:
    """What each of `count` processes says at its end: ("value", what the task returned), or the name of an exception and its text."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["one_of_many", "sklearn.datasets", "torch._dynamo"])
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    pipes = [context.Pipe(duplex=False) for _ in range(count)]
    processes = [
        context.Process(target=_be, args=(rank, count, port, mouth, task, arguments, named))
        for rank, (_, mouth) in enumerate(pipes)
    ]
    for process in processes:
        process.start()
    for _, mouth in pipes:
        mouth.close()  # ours; so that a process that dies without a word ends the waiting
    try:
        return [_heard(ear) for ear, _ in pipes]
    finally:
        for process in processes:
            process.join(10)
            process.kill()


def _heard(ear: Connection) -> Said:
    if not ear.poll(WAIT_SECONDS):  # one that hangs must not hang the tests
        raise TimeoutError(f"a process said nothing for {WAIT_SECONDS} s")
    said: Said = ear.recv()
    return said


def _be(
    rank: int,
    count: int,
    port: int,
    mouth: Any,
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
        said: Said = ("value", task(*arguments, **named))
    except BaseException as error:
        said = (type(error).__name__, str(error))
    mouth.send(said)


def train(
    recipe: Recipe, out: Path, *, resume: bool = False, killed_after: int | None = None
) -> Any:
    """A whole run; or one of which every process ends after so many steps."""
    if killed_after is not None:
        run.train = until_killed(killed_after)
    return train_recipe(recipe, out, Machine(threads=1), resume=resume)


def evaluate(recipe: Recipe) -> dict[str, Any]:
    """Metrics of the untrained net on each part of the data."""
    with join_processes("cpu") as processes:
        setup = set_up(recipe, Machine(device="cpu", threads=1), processes=processes)
        dataset = setup.dataset
        parts = {"train": dataset.train, "validation": dataset.validation, "test": dataset.test}
        return {
            name: setup.evaluate(setup.model, images)
            for name, images in parts.items()
            if images is not None
        }


def normalize(x: Tensor, targets: Tensor, norm: nn.Module) -> dict[str, Any]:
    """Outputs, gradients and running statistics of a batch norm on this process's share, synchronized."""
    with join_processes("cpu") as processes:
        share, aim = (
            whole.chunk(processes.count)[processes.rank].clone() for whole in (x, targets)
        )
        share.requires_grad_()
        norm = copy.deepcopy(norm)  # what is sent to processes is in memory that they share
        with SynchronizedBatchNorm(processes):
            y = norm(share)
        (y * aim).sum().backward()
        assert share.grad is not None
        gradients = {
            name: processes.sum(value.grad).numpy()
            for name, value in norm.named_parameters()
            if value.grad is not None
        }
        buffers = {name: value.numpy().copy() for name, value in norm.named_buffers()}
        return {"y": y.detach().numpy(), "x": share.grad.numpy(), **gradients, **buffers}
