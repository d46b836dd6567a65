"""Estimate what a training would need, without writing a file (`--dry-run`).

Memory is computed, not measured: everything that must be in memory at once during a step, apart
from torch itself. Time comes from a few steps on this machine. These are not compiled, because
compilation itself takes up to a minute. On a CPU, steps of few images come first. If whole steps
would take long, their time is estimated from these, so that a plan takes a minute at most.
"""

import itertools
import math
import os
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import torch

from reslearn import recipes
from reslearn.data import Images
from reslearn.progress import print_progress
from reslearn.runs import RunFolder
from reslearn.train.cuda_graph import Step
from reslearn.train.export_note import export_note
from reslearn.train.freezing import set_training_mode
from reslearn.train.initial_weights import adopt_weights_spec
from reslearn.train.numerics import Numerics
from reslearn.train.run import check_folder
from reslearn.train.setup import THIS_MACHINE, Machine, RunSetup, set_up
from reslearn.train.step import State, make_step

_TIMED_STEPS = 3
_LONG_SECONDS = 10.0
_TIMING_SECONDS = 30.0
"""All whole steps together may take this long on a CPU."""
_PART_SECONDS = 4.0
"""No larger step follows a step of a part of the batch that takes longer. Two are timed always."""
_FIRST_PART_OPERATIONS = 4e10
"""Multiplications and additions of the first step, a second or two of a slow CPU."""
_MIB = 2**20


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a training would need.

    `weights_mib` counts weights, gradients, momentum and, if there is one, the average of the
    weights. `minutes` is None if a step needs more memory than is free, so that no step was timed.
    `timed_images` is the number of images in the largest step that was timed; a smaller number than
    the batch means that the time of a step is estimated. `export_note` says which
    projects cannot load the network, if there are any.
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
    batch_size: int
    timed_images: int
    numerics: Numerics
    export_note: str = ""


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
    if folder.exists() and not folder.is_complete:
        folder.identity()  # raises RunError if the recipe or the environment was changed
    print_progress(f"setting up {recipe.model.name} on {recipe.data.name}")
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
    num_steps = setup.num_steps - begins_at_step
    timing = None
    if num_steps and total < _free_bytes(setup.numerics.device):
        timing = _time_step(setup)
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
        minutes=_minutes(setup, num_steps, timing),
        batch_size=recipe.train.batch_size,
        timed_images=0 if timing is None else timing.num_images,
        numerics=setup.numerics,
        export_note=export_note(setup.model, has_weights=recipe.init is not None),
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
    in_memory, stretched_bytes = 0, 0
    for images in (dataset.train, dataset.test, dataset.validation):
        if isinstance(images, Images):
            in_memory += len(images)
            if images.whole_pictures is not None:
                stretched_bytes += images.whole_pictures.pixels.numel()
    pixels = dataset.channels * dataset.size_px**2
    return pixels * (in_memory + 2 * 4 * setup.recipe.train.batch_size) + stretched_bytes


def _free_bytes(device: str) -> float:
    if device.startswith("cuda"):
        return torch.cuda.mem_get_info(device)[0]
    if sys.platform == "linux":
        for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return float(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))


class _Timing(NamedTuple):
    """The seconds of a step, and the images of the largest step that was timed."""

    step_seconds: float
    num_images: int


def _minutes(setup: RunSetup, steps: int, timing: _Timing | None) -> float | None:
    """Estimate the time of `steps` more steps and of all evaluations.

    Evaluation costs a third of a step per image: the forward pass is one of the three products that
    a step computes in each layer.
    """
    if not steps:
        return 0.0
    if timing is None:
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
    return steps_with_evaluation * timing.step_seconds / 60


def _time_step(setup: RunSetup) -> _Timing:
    """Time whole steps, or estimate their time from smaller ones if they would take long."""
    state = setup.initial_state()
    set_training_mode(setup.model)
    batch_size = setup.recipe.train.batch_size
    if setup.numerics.device == "cpu":
        estimate = _time_small_steps(setup, state)
        print_progress(
            f"a step of the batch takes about {estimate.step_seconds:.2g} s, "
            f"from a step of {estimate.num_images} images"
        )
        if (1 + _TIMED_STEPS) * estimate.step_seconds > _TIMING_SECONDS:
            return estimate
    print_progress(f"timing {1 + _TIMED_STEPS} steps of {batch_size} images")
    return _Timing(_step_seconds(setup, state), batch_size)


def _time_small_steps(setup: RunSetup, state: State) -> _Timing:
    """Estimate the time of a whole step from steps of few images, which grow while they are quick.

    The time is a constant, for the weights, and a part in proportion to the images. Two steps show
    both.
    """
    batch_size = setup.recipe.train.batch_size
    x, y = next(setup.train_batches(start_step=0))
    step = _make_step(setup, state, accumulate=1)
    num_images = int(_FIRST_PART_OPERATIONS / (6 * setup.complexity.macs))
    num_images = min(max(2, num_images), batch_size)
    print_progress(f"timing a step of {num_images} images; a batch has {batch_size}")
    warm_up_seconds = _seconds_of(step, x[:num_images], y[:num_images])
    if num_images == batch_size and warm_up_seconds > _LONG_SECONDS:
        return _Timing(warm_up_seconds, num_images)  # the warm-up is a small part of a long step
    timings: list[tuple[int, float]] = []
    while True:
        seconds = _seconds_of(step, x[:num_images], y[:num_images])
        timings.append((num_images, seconds))
        if num_images == batch_size:
            return _Timing(seconds, num_images)
        step_seconds = _extrapolate(timings, batch_size)
        is_short = (1 + _TIMED_STEPS) * step_seconds <= _TIMING_SECONDS
        is_long = seconds > _PART_SECONDS
        if seconds > _TIMING_SECONDS or (len(timings) > 1 and (is_short or is_long)):
            return _Timing(step_seconds, num_images)
        num_images = min(batch_size, 4 * num_images)


def _extrapolate(timings: Sequence[tuple[int, float]], batch_size: int) -> float:
    """Return the seconds of a step of `batch_size` images, from (images, seconds) of smaller ones.

    A single step, or two that do not differ as expected, are scaled in proportion.
    """
    num_images, seconds = timings[-1]
    per_image = seconds / num_images
    if len(timings) > 1:
        fewer_images, fewer_seconds = timings[-2]
        slope = (seconds - fewer_seconds) / (num_images - fewer_images)
        if 0 < slope < per_image:
            per_image = slope
    return seconds + (batch_size - num_images) * per_image


def _make_step(setup: RunSetup, state: State, *, accumulate: int) -> Step:
    return make_step(
        setup.model,
        setup.loss(),
        state.optimizer,
        numerics=replace(setup.numerics, compiled=False),
        accumulate=accumulate,
    )


def _seconds_of(step: Step, x: torch.Tensor, y: torch.Tensor) -> float:
    start = time.perf_counter()
    step(x, y).sum().item()  # waits for the device
    return time.perf_counter() - start


def _step_seconds(setup: RunSetup, state: State) -> float:
    """Return the median time of a few steps after a warm-up step.

    A step that takes long is made once. Its warm-up is only a small part of it.
    """
    is_replayed = setup.numerics.replayed
    step = _make_step(setup, state, accumulate=setup.recipe.train.accumulate)
    seconds: list[float] = []
    for x, y in itertools.islice(setup.train_batches(start_step=0), 1 + _TIMED_STEPS):
        seconds.append(_seconds_of(step, x, y))
        records_graph = is_replayed and len(seconds) == 1
        if seconds[-1] > _LONG_SECONDS and not records_graph:
            return seconds[-1]
    return sorted(seconds[1:])[_TIMED_STEPS // 2]
