"""Estimate what a training would need, without writing a file (`--dry-run`).

Memory is computed, not measured: everything that must be in memory at once during a step, apart
from torch itself. Time comes from a few steps on this machine. These are not compiled, because
compilation itself takes up to a minute.
"""

import itertools
import math
import os
import sys
import time
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from reslearn import recipes
from reslearn.data import Images
from reslearn.runs import RunFolder
from reslearn.train.initial_weights import adopt_weights_spec
from reslearn.train.numerics import Numerics
from reslearn.train.run import check_folder
from reslearn.train.setup import THIS_MACHINE, Machine, RunSetup, set_up
from reslearn.train.step import make_step

_TIMED_STEPS = 3
_LONG_SECONDS = 10.0
_MIB = 2**20


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a training would need.

    `weights_mib` counts weights, gradients, momentum and, if there is one, the average of the
    weights. `minutes` is None if a step needs more memory than is free, so that no step was timed.
    """

    out: str
    begins_at_step: int
    steps: int
    epochs: float
    parameters: int
    macs: int
    weights_mib: float
    activations_mib: float
    images_mib: float
    memory_mib: float
    minutes: float | None
    numerics: Numerics


def plan(
    recipe: recipes.Recipe,
    out: Path | str,
    machine: Machine = THIS_MACHINE,
    *,
    resume: bool = False,
) -> Plan:
    """Estimate what `train_recipe` would need with the same arguments.

    It raises what `train_recipe` would raise before its first step.
    """
    folder = RunFolder(Path(out))
    if recipe.init is not None:
        recipe = adopt_weights_spec(recipe, folder)
    check_folder(folder, recipe, resume=resume)
    setup = set_up(
        recipe,
        machine,
        environment=folder.environment if folder.exists() else None,
        has_checkpoint=bool(folder.checkpoints()),
    )
    begins_at_step = _steps_done(folder, setup)
    weights, images = _weights_bytes(setup), _images_bytes(setup)
    activations = _activations_bytes(setup) * _bytes_held_per_byte_kept(setup)
    total = weights + activations + images
    return Plan(
        out=str(out),
        begins_at_step=begins_at_step,
        steps=setup.num_steps,
        epochs=setup.num_steps / setup.steps_per_epoch,
        parameters=setup.complexity.parameters,
        macs=setup.complexity.macs,
        weights_mib=weights / _MIB,
        activations_mib=activations / _MIB,
        images_mib=images / _MIB,
        memory_mib=total / _MIB,
        minutes=_minutes(setup, setup.num_steps - begins_at_step, total),
        numerics=setup.numerics,
    )


def _steps_done(folder: RunFolder, setup: RunSetup) -> int:
    if folder.is_complete:
        return setup.num_steps
    return max(folder.checkpoints_by_step(), default=0)


def _weights_bytes(setup: RunSetup) -> int:
    copies = 3 + (setup.recipe.train.ema is not None)
    return copies * 4 * setup.complexity.parameters


def _activations_bytes(setup: RunSetup) -> int:
    """Estimate what is kept for the backward pass.

    It keeps the output of each convolution, for its batch norm, and the output of the ReLU, for the
    next convolution. With checkpointed activations it keeps only the outputs of blocks, and all of
    one block at a time.
    """
    train, bytes_per_number = setup.recipe.train, 2 if setup.numerics.precision == "bf16" else 4
    convolutions = [
        (layer.name, math.prod(layer.output_shape))
        for layer in setup.complexity.layers
        if layer.macs
    ]
    numbers = 2 * sum(size for _, size in convolutions)
    if setup.recipe.model.checkpoint_activations:
        outputs: dict[str, int] = {}
        blocks = Counter[str]()
        for name, size in convolutions:
            block = name.partition(".body.")[0]
            outputs[block] = size
            blocks[block] += 2 * size
        numbers = sum(outputs.values()) + max(blocks.values())
    return numbers * bytes_per_number * (train.batch_size // train.accumulate)


def _bytes_held_per_byte_kept(setup: RunSetup) -> int:
    """Return 2 for checkpointed activations on the CPU, else 1.

    There, memory that is freed between the outputs of two blocks is not used again. Measured:
    resnet1202, batch 128, float32 keeps 2.8 GiB and holds 5.8 GiB (LOG.md).
    """
    is_checkpointed = setup.recipe.model.checkpoint_activations
    return 2 if is_checkpointed and setup.numerics.device == "cpu" else 1


def _images_bytes(setup: RunSetup) -> int:
    """Count the sets in memory as bytes, and one batch as float32, before and after its crop."""
    dataset = setup.dataset
    in_memory = 0
    for images in (dataset.train, dataset.test, dataset.validation):
        if isinstance(images, Images):
            in_memory += len(images)
    pixels = dataset.channels * dataset.size_px**2
    return pixels * (in_memory + 2 * 4 * setup.recipe.train.batch_size)


def _free_bytes(device: str) -> float:
    if device.startswith("cuda"):
        return torch.cuda.mem_get_info(device)[0]
    if sys.platform == "linux":
        for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return float(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))


def _minutes(setup: RunSetup, steps: int, memory_bytes: float) -> float | None:
    """Estimate the time of `steps` more steps and of all evaluations.

    Evaluation costs a third of a step per image: the forward pass is one of the three products that
    a step computes in each layer.
    """
    if not steps:
        return 0.0
    if memory_bytes >= _free_bytes(setup.numerics.device):
        return None
    recipe, dataset = setup.recipe, setup.dataset
    recomputed = min(recipe.evaluation.recompute_images, len(dataset.train))
    midway = len(dataset.validation or ())
    if recipe.evaluation.test_curve:
        midway += len(dataset.test)
    evaluated = (
        midway * (steps // setup.steps_of(recipe.evaluation.every))
        + len(dataset.train)
        + 2 * recomputed
        + len(dataset.test)
    )
    steps_with_evaluation = steps + evaluated / recipe.train.batch_size / 3
    return steps_with_evaluation * _step_seconds(setup) / 60


def _step_seconds(setup: RunSetup) -> float:
    """Return the median time of a few steps after a warm-up step.

    A step that takes long is made once. Its warm-up is only a small part of it.
    """
    state = setup.initial_state()
    is_replayed = setup.numerics.replayed
    step = make_step(
        setup.model,
        setup.loss(),
        state.optimizer,
        numerics=replace(setup.numerics, compiled=False),
        accumulate=setup.recipe.train.accumulate,
    )
    setup.model.train()
    seconds = []
    for x, y in itertools.islice(setup.train_batches(start_step=0), 1 + _TIMED_STEPS):
        start = time.perf_counter()
        step(x, y).sum().item()  # waits for the device
        seconds.append(time.perf_counter() - start)
        records_graph = is_replayed and len(seconds) == 1
        if seconds[-1] > _LONG_SECONDS and not records_graph:
            return seconds[-1]
    return sorted(seconds[1:])[_TIMED_STEPS // 2]
