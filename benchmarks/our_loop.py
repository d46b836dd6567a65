"""The loop that `reslearn train` runs, on synthetic images.

It has the data, step and meter of a training, and numerics are chosen as with `precision = "auto"`.
Each part can be left out, to measure its value (`reslearn bench train --parts`).
"""

import contextlib
import itertools
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from enum import StrEnum

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from reslearn import data, models, recipes
from reslearn.train import numerics
from reslearn.train.learning_rate import LearningRate
from reslearn.train.loop import Batch, Log, LoopSetup, train
from reslearn.train.optimizer import build_optimizer
from reslearn.train.step import Meter, State, WeightAverage, make_step

NUM_STEPS = 64_000
"""Length of the paper's training (Sec. 4.2), for which `auto` decides whether to compile."""


class Part(StrEnum):
    """A part that makes our step fast and can be left out."""

    bf16 = "bf16"
    compile = "compile"
    kept_memory = "kept-memory"
    huge_pages = "huge-pages"  # set in the environment of the process, see `environment`
    replay = "replay"  # replays steps as CUDA graphs
    fused_optimizer = "fused-optimizer"
    loader = "loader"  # without it, all steps use the same batch


def environment(without: Part | None) -> dict[str, str]:
    """Return the environment variables of `reslearn train`."""
    from reslearn.cli.train import HUGE_PAGES

    variables = {key: value for key, value in os.environ.items() if key not in HUGE_PAGES}
    return variables if without is Part.huge_pages else {**variables, **HUGE_PAGES}


@dataclass(frozen=True, kw_only=True)
class OurLoop:
    """Our loop, ready to run; `run(turns)` makes one step per item of `turns`."""

    run: Callable[[Iterable[object]], int]
    numerics: numerics.Numerics


def our_loop(
    name: str,
    pixels: npt.NDArray[np.uint8],
    labels: npt.NDArray[np.int64],
    *,
    batch_size: int,
    device: str,
    threads: int,
    without: Part | None = None,
) -> OurLoop:
    """Set up a training of the paper's recipe with SGD, as `reslearn train` does.

    Args:
        pixels: Images, uint8 [N, H, W, 3].
        labels: Labels, int64 [N].
        without: The part to leave out.
    """
    size_px = pixels.shape[1]
    torch.manual_seed(0)
    model = models.build(name, num_classes=int(labels.max()) + 1)
    train_options = recipes.Train(
        batch_size=batch_size,
        precision="fp32" if without is Part.bf16 else "auto",
        compile="off" if without is Part.compile else "auto",
    )
    macs = models.complexity(model, (3, size_px, size_px)).macs
    chosen = numerics.choose(
        train_options, device=device, threads=threads, macs=macs, num_images=NUM_STEPS * batch_size
    )
    if without is not Part.kept_memory:
        numerics.prepare(chosen)
    model = model.to(device).train()
    # torch's stub lacks memory_format.
    model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    batches = _batches(pixels, labels, batch_size, device)
    if without is Part.loader:
        batches = itertools.repeat(next(batches))
    optimizer = build_optimizer(model, recipes.Optimizer())
    if without is Part.fused_optimizer:
        optimizer = _unfused(optimizer)
    step_numerics = replace(chosen, replayed=chosen.replayed and without is not Part.replay)
    step = make_step(model, nn.CrossEntropyLoss(), optimizer, numerics=step_numerics)
    state = State(
        model=model,
        optimizer=optimizer,
        learning_rate=LearningRate(),
        average=WeightAverage(model, decay=None),
        meter=Meter(every=train_options.read_every_steps, device=device),
    )

    def run(turns: Iterable[object]) -> int:
        """Make one step per turn and return the number of all steps so far."""
        turn_batches: Iterator[Batch] = (next(batches) for _ in turns)
        setup = LoopSetup(step=step, batches=turn_batches, num_steps=2**62)
        with contextlib.suppress(StopIteration):  # there are no more turns
            train(setup, state, Log())
        return state.step

    return OurLoop(run=run, numerics=chosen)


def _unfused(optimizer: torch.optim.Optimizer) -> torch.optim.Optimizer:
    """Return a plain SGD with the same parameter groups."""
    keys = ("params", "lr", "weight_decay", "base_lr")
    groups = []
    for group in optimizer.param_groups:
        groups.append({key: group[key] for key in keys})
    return torch.optim.SGD(groups, lr=0.1, momentum=0.9)


def _batches(
    pixels: npt.NDArray[np.uint8], labels: npt.NDArray[np.int64], batch_size: int, device: str
) -> Iterator[Batch]:
    images = data.Images(torch.from_numpy(pixels), torch.from_numpy(labels))
    preprocess = data.Preprocess.fit(images)
    return data.train_batches(images, preprocess, batch_size=batch_size, seed=0, device=device)
