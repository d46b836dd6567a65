"""What a training would take, told without writing a file: parameters, multiply-adds, steps, memory, minutes (`--dry-run`).

Memory is counted, not measured: what must be in memory at once during a step, beside torch itself. Minutes come from a few steps on
the machine at hand, without compilation, which would itself take up to a minute.
"""

import itertools
import math
import os
import sys
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import torch

from reslearn import recipes
from reslearn.data import Images
from reslearn.runs import RunFolder
from reslearn.train.checkpoint import Training
from reslearn.train.initial_weights import adopt
from reslearn.train.loop import make_step
from reslearn.train.numerics import Numerics
from reslearn.train.run import begin_training, check_folder
from reslearn.train.setup import Prepared, prepare

_TIMED_STEPS = 3
_LONG_SECONDS = 10.0
_MIB = 2**20


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A training as it would go. `minutes` is None where a step needs more memory than is free, and was not tried."""

    out: str
    begins_at_step: int
    steps: int
    epochs: float
    parameters: int
    macs: int
    weights_mib: (
        float  # weights, gradients, momentum, and the average of the weights where there is one
    )
    activations_mib: float
    images_mib: float
    memory_mib: float
    minutes: float | None
    numerics: Numerics


def plan(
    recipe: recipes.Recipe,
    out: Path | str,
    *,
    resume: bool = False,
    device: str | None = None,
    threads: int | None = None,
    data_dir: Path | None = None,
    download: bool = False,
    workers: int | None = None,
) -> Plan:
    """What `train_recipe` would do with the same arguments; raises what it would raise before its first step."""
    folder = RunFolder(Path(out))
    recipe = adopt(recipe, folder)
    check_folder(folder, recipe, resume=resume)
    record = folder.environment if folder.exists() else None
    prepared = prepare(
        recipe,
        record,
        device=device,
        threads=threads,
        data_dir=data_dir,
        download=download,
        workers=workers,
        has_checkpoint=bool(folder.checkpoints()),
    )
    done = _steps_done(folder, prepared)
    weights, images = _weights_bytes(prepared), _images_bytes(prepared)
    activations = _activations_bytes(prepared) * _held_for_each_kept(prepared)
    total = weights + activations + images
    left = prepared.num_steps - done
    seconds = (
        _step_seconds(prepared) if left and total < _free_bytes(prepared.numerics.device) else None
    )
    return Plan(
        out=str(out),
        begins_at_step=done,
        steps=prepared.num_steps,
        epochs=prepared.num_steps / prepared.steps_per_epoch,
        parameters=prepared.complexity.parameters,
        macs=prepared.complexity.macs,
        weights_mib=weights / _MIB,
        activations_mib=activations / _MIB,
        images_mib=images / _MIB,
        memory_mib=total / _MIB,
        minutes=0.0 if not left else None if seconds is None else _minutes(prepared, left, seconds),
        numerics=prepared.numerics,
    )


def _steps_done(folder: RunFolder, prepared: Prepared) -> int:
    if folder.is_complete:
        return prepared.num_steps
    return max(folder.checkpoints_by_step(), default=0)


def _weights_bytes(prepared: Prepared) -> int:
    copies = 3 + (prepared.recipe.train.ema is not None)
    return copies * 4 * prepared.complexity.parameters


def _activations_bytes(prepared: Prepared) -> int:
    """Kept for the backward pass: each convolution's output, for its batch norm, and what ReLU makes of it, for the next convolution.

    With activations recomputed only the outputs of blocks stay, and one block at a time in full.
    """
    train, bytes_each = prepared.recipe.train, 2 if prepared.numerics.precision == "bf16" else 4
    convolutions = [
        (layer.name, math.prod(layer.output_shape))
        for layer in prepared.complexity.layers
        if layer.macs
    ]
    numbers = 2 * sum(size for _, size in convolutions)
    if prepared.recipe.model.checkpoint_activations:
        last = {name.partition(".body.")[0]: size for name, size in convolutions}
        whole = Counter[str]()
        for name, size in convolutions:
            whole[name.partition(".body.")[0]] += 2 * size
        numbers = sum(last.values()) + max(whole.values())
    return numbers * bytes_each * (train.batch_size // train.accumulate)


def _held_for_each_kept(prepared: Prepared) -> int:
    """Where activations are recomputed on the CPU the process holds two bytes for each that is kept, since what is freed between the
    outputs of two blocks is not used again (measured: resnet1202, batch 128, float32: 5.8 GiB, of which 2.8 are kept; LOG.md).
    """
    return (
        2
        if prepared.recipe.model.checkpoint_activations and prepared.numerics.device == "cpu"
        else 1
    )


def _images_bytes(prepared: Prepared) -> int:
    """The sets that are in memory as bytes, and a batch as float32, before and after its crop."""
    pixels = prepared.dataset.channels * prepared.dataset.size_px**2
    sets = (prepared.dataset.train, prepared.dataset.test, prepared.dataset.validation)
    return pixels * (
        sum(len(images) for images in sets if isinstance(images, Images))
        + 2 * 4 * prepared.recipe.train.batch_size
    )


def _free_bytes(device: str) -> float:
    if device.startswith("cuda"):
        return torch.cuda.mem_get_info(device)[0]
    if sys.platform == "linux":
        for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return float(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))


def _step_seconds(prepared: Prepared) -> float:
    """The median of a few steps, after one that warms up; a step that takes long is made once, and its warming up is little of it."""
    training: Training = begin_training(prepared)
    accumulate = prepared.recipe.train.accumulate
    step = make_step(
        prepared.model,
        prepared.loss(),
        training.optimizer,
        autocast=prepared.numerics.autocast,
        accumulate=accumulate,
        replayed=prepared.numerics.replayed,
    )
    prepared.model.train()
    seconds = []
    for x, y in itertools.islice(prepared.train_batches(start_step=0), 1 + _TIMED_STEPS):
        begun = time.perf_counter()
        step(x, y).sum().item()  # waits for the device
        seconds.append(time.perf_counter() - begun)
        if seconds[-1] > _LONG_SECONDS and not (
            prepared.numerics.replayed and len(seconds) == 1
        ):  # the first records
            return seconds[-1]
    return sorted(seconds[1:])[_TIMED_STEPS // 2]


def _minutes(prepared: Prepared, steps: int, step_seconds: float) -> float:
    """Steps, and evaluations at a third of the cost: forward is one of the three products that a step makes of each layer."""
    recipe, dataset = prepared.recipe, prepared.dataset
    validation, some = (
        len(dataset.validation or ()),
        min(recipe.evaluation.recompute_images, len(dataset.train)),
    )
    midway = validation + (len(dataset.test) if recipe.evaluation.test_curve else 0)
    evaluated = (
        midway * (steps // prepared.steps_of(recipe.evaluation.every))
        + len(dataset.train)
        + 2 * some
        + len(dataset.test)
    )
    return (steps + evaluated / recipe.train.batch_size / 3) * step_seconds / 60
