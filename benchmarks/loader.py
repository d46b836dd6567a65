"""The cost of the loaders: milliseconds per batch, and their share of a training step of resnet20.

Measured are the in-memory loader and the per-image path, on synthetic images of CIFAR's shape. The
cost does not depend on what images show. Loader and step are timed in turn, round by round, so that
other load of the machine affects both. Medians are reported. No data set is needed.

The step here is eager and float32. For the share of the compiled bf16 step that trainings run, use
`reslearn bench train --parts`.
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
class LoaderRow:
    """One loader on a number of threads.

    Attributes:
        milliseconds: Per batch.
        step_milliseconds: Forward, backward and update, without the loader.
        share_pct: Share of the loader in a step with its batch.
        images_per_second: Of the loader alone.
    """

    loader: str
    threads: int
    batch_size: int
    milliseconds: float
    step_milliseconds: float
    share_pct: float
    images_per_second: float


def measure(
    *, threads: int, batch_size: int = 128, size_px: int = 32, rounds: int = 15, device: str = "cpu"
) -> list[LoaderRow]:
    """Time both loaders and a step of resnet20 (float32, channels_last, eager) in turns."""
    torch.set_num_threads(threads)
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(
        0, 256, (50_000, size_px, size_px, 3), dtype=torch.uint8, generator=generator
    )
    images = Images(pixels, torch.randint(0, 10, (50_000,), generator=generator))
    preprocess = Preprocess.fit(images)
    augment = Augment()
    in_memory = train_batches(
        images, preprocess, batch_size=batch_size, seed=0, augment=augment, device=device
    )
    loaders = {"in memory": in_memory}
    if device == "cpu":
        loaders["per image"] = image_batches(
            images, preprocess, batch_size=batch_size, seed=0, augment=augment
        )
    step = _step_of_resnet20(next(in_memory))
    seconds: dict[str, list[float]] = {name: [] for name in (*loaders, "step")}
    for _ in range(3 + rounds):
        for name, loader in loaders.items():
            seconds[name].append(_seconds(partial(next, loader), device))
        seconds["step"].append(_seconds(step, device))
    median = {name: statistics.median(values[3:]) for name, values in seconds.items()}
    return [
        LoaderRow(
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


def table(rows: Sequence[LoaderRow]) -> str:
    """Return the rows as text, one line each."""
    lines = []
    for row in rows:
        threads = f"{row.threads} thread{'s' * (row.threads > 1)}"
        lines.append(
            f"{row.loader:9} {threads}: {row.milliseconds:7.2f} ms per batch of {row.batch_size}, "
            f"{row.share_pct:5.2f} % of a step ({row.step_milliseconds:.0f} ms), "
            f"{row.images_per_second:,.0f} images/s"
        )
    return "\n".join(lines)
