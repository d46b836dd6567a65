"""The loop that `reslearn train` runs, on images made up: data, numerics as `precision = "auto"` chooses them, step, meter.

Each of its parts can be left out, to learn what it is worth (`reslearn bench train --parts`).
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
from reslearn.train.loop import Batch, Log, LoopSetup, train
from reslearn.train.optimizer import LearningRate, build_optimizer
from reslearn.train.state import State, WeightAverage
from reslearn.train.step import Meter, make_step

NUM_STEPS = (
    64_000  # Paper: so many steps of batch 128 (Sec. 4.2); `auto` compiles for a run of that length
)


class Part(StrEnum):
    """What makes our step quick, and can be left out."""

    bf16 = "bf16"
    compile = "compile"
    kept_memory = "kept-memory"
    huge_pages = "huge-pages"  # set in the environment of the process: see `environment`
    replay = "replay"  # of steps as CUDA graphs
    fused_optimizer = "fused-optimizer"
    loader = "loader"  # without: the same batch again and again


def environment(without: Part | None) -> dict[str, str]:
    """The environment in which `reslearn train` runs."""
    from reslearn.cli.train import HUGE_PAGES

    kept = {key: value for key, value in os.environ.items() if key not in HUGE_PAGES}
    return kept if without is Part.huge_pages else {**kept, **HUGE_PAGES}


@dataclass(frozen=True, kw_only=True)
class Ours:
    """Our loop, ready to run: `run(turns)` makes one step for each item of `turns`."""

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
) -> Ours:
    """Train `name` on `pixels` uint8 [N, H, W, 3], `labels` int64 [N], as `reslearn train` does with SGD, the paper's recipe."""
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
    model = model.to(device).to(memory_format=torch.channels_last).train()  # type: ignore[call-overload]  # torch's stub lacks it
    images = data.Images(torch.from_numpy(pixels), torch.from_numpy(labels))
    batches = data.train_batches(
        images, data.Preprocess.fit(images), batch_size=batch_size, seed=0, device=device
    )
    if without is Part.loader:
        batches = itertools.repeat(next(batches))
    optimizer = build_optimizer(model, recipes.Optimizer())
    if without is Part.fused_optimizer:
        groups = [
            {key: group[key] for key in ("params", "lr", "weight_decay", "base_lr")}
            for group in optimizer.param_groups
        ]
        optimizer = torch.optim.SGD(groups, lr=0.1, momentum=0.9)
    step = make_step(
        model,
        nn.CrossEntropyLoss(),
        optimizer,
        numerics=replace(chosen, replayed=chosen.replayed and without is not Part.replay),
    )
    state = State(
        model=model,
        optimizer=optimizer,
        learning_rate=LearningRate(),
        average=WeightAverage(model, decay=None),
        meter=Meter(every=train_options.read_every_steps, device=device),
    )

    def run(turns: Iterable[object]) -> int:
        """Make a step for each turn and return the number of all steps so far."""
        turn_batches: Iterator[Batch] = (next(batches) for _ in turns)
        setup = LoopSetup(step=step, batches=turn_batches, num_steps=2**62)
        with contextlib.suppress(StopIteration):  # there are no more turns
            train(setup, state, Log())
        return state.step

    return Ours(run=run, numerics=chosen)
