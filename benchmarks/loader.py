"""What the loaders cost: milliseconds a batch, and their share of a training step of resnet20 on the same threads.

Rows: the in-memory loader and the per-image path, on made images of CIFAR's shape (the cost does not depend on what they show).
Loader and step are timed in turn, round by round, so that whatever else the machine does falls on both; medians are reported. Needs
no data (`reslearn bench load`). The share in the step that trainings run, compiled and in bf16: `reslearn bench train --parts`.
"""

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F

from reslearn import models
from reslearn.data import Augment, Images, Preprocess, image_batches, train_batches


@dataclass(frozen=True, kw_only=True)
class Row:
    """One loader on so many threads."""

    loader: str
    threads: int
    batch_size: int
    milliseconds: float  # a batch
    step_milliseconds: float  # forward, backward, update; without the loader
    share_pct: float  # of a step and its batch together
    images_per_second: float  # of the loader alone


def measure(
    *, threads: int, batch_size: int = 128, size_px: int = 32, rounds: int = 15, device: str = "cpu"
) -> list[Row]:
    """Time both loaders and the step of resnet20 (float32, channels_last, eager), interleaved."""
    torch.set_num_threads(threads)
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(
        0, 256, (50_000, size_px, size_px, 3), dtype=torch.uint8, generator=generator
    )
    images = Images(pixels, torch.randint(0, 10, (50_000,), generator=generator))
    preprocess = Preprocess.fit(images)
    augment = Augment()
    whole = train_batches(
        images, preprocess, batch_size=batch_size, seed=0, augment=augment, device=device
    )
    loaders = {"in memory": whole}
    if device == "cpu":
        loaders["per image"] = image_batches(
            images, preprocess, batch_size=batch_size, seed=0, augment=augment
        )
    step = _step_of_resnet20(next(whole))
    seconds: dict[str, list[float]] = {name: [] for name in (*loaders, "step")}
    for _ in range(3 + rounds):
        for name, loader in loaders.items():
            seconds[name].append(_seconds(partial(next, loader), device))
        seconds["step"].append(_seconds(step, device))
    median = {name: statistics.median(values[3:]) for name, values in seconds.items()}
    return [
        Row(
            loader=name,
            threads=threads,
            batch_size=batch_size,
            milliseconds=1e3 * median[name],
            step_milliseconds=1e3 * median["step"],
            share_pct=100 * median[name] / (median[name] + median["step"]),
            images_per_second=batch_size / median[name],
        )
        for name in loaders
    ]


def _step_of_resnet20(batch: tuple[torch.Tensor, torch.Tensor]) -> Callable[[], None]:
    x, y = batch
    network = models.build("resnet20", num_classes=10).to(x.device)
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stub
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9)

    def step() -> None:
        torch.autograd.backward(F.cross_entropy(network(x), y))
        optimizer.step()
        optimizer.zero_grad()

    return step


def _seconds(action: Callable[[], object], device: str) -> float:
    started = time.perf_counter()
    action()
    if device != "cpu":
        torch.cuda.synchronize()
    return time.perf_counter() - started


def table(rows: Sequence[Row]) -> str:
    """A line a row."""
    lines = []
    for row in rows:
        cost = f"{row.milliseconds:7.2f} ms a batch of {row.batch_size}, {row.share_pct:5.2f} % of a step ({row.step_milliseconds:.0f} ms)"
        threads = f"{row.threads} thread{'s' * (row.threads > 1)}"
        lines.append(f"{row.loader:9} {threads}: {cost}, {row.images_per_second:,.0f} images/s")
    return "\n".join(lines)
