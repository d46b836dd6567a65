"""Images per second of our training step and of the plainest PyTorch loop, in turns.

`reslearn bench train` runs it on the machine at hand. Each loop lives in its own process
(contestant.py), and they never run at the same time. The order of the turns is reversed every other
round, so that other load of the machine affects all loops. Ratios are computed per round, and their
median is reported. Each turn also measures matrix products in the precision of the loop. The share
is what the convolutions reach of that rate. Images are synthetic, so no data set is needed.
"""

import json
import os
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks.contestant import RIVALS
from benchmarks.our_loop import Part, environment
from benchmarks.plain_loop import network

from reslearn import models

ROOT = Path(__file__).resolve().parents[1]
TURN_SECONDS = 3.0
DISTURBED_PCT = 5.0
"""If other processes take more of the machine, the table says so."""


@dataclass(frozen=True, kw_only=True)
class Task:
    """The network and data of a step.

    Defaults are the shapes of CIFAR and the paper's batch size.
    """

    model: str
    size_px: int = 32
    batch_size: int = 128
    num_images: int = 10_000
    num_classes: int = 10


@dataclass(frozen=True, kw_only=True)
class MedianAndRange:
    """Median, minimum and maximum over the rounds."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "MedianAndRange":
        """Return median, minimum and maximum of `values`."""
        return cls(median=statistics.median(values), low=min(values), high=max(values))


@dataclass(frozen=True, kw_only=True)
class TrainRow:
    """One loop on one task.

    Attributes:
        loop: "plain", "ours" or "ours without ...".
        share_pct: 3 x 2 x MACs x images per second, in percent of the measured rate of matrix
            products.
        ratio: Speed divided by the speed of the loop `ratio_to`, round by round.
        warm_up_seconds: Time of the first steps, including compilation.
        others_pct: Processor time of the machine that other processes took meanwhile. It is 0 on
            systems other than Linux.
    """

    model: str
    loop: str
    precision: str
    compiled: bool
    threads: int
    batch_size: int
    size_px: int
    rounds: int
    images_per_second: MedianAndRange
    share_pct: MedianAndRange
    matrix_product_gflops: MedianAndRange
    ratio_to: str | None
    ratio: MedianAndRange | None
    warm_up_seconds: float
    others_pct: MedianAndRange


def task_of(model: str, batch_size: int | None = None) -> Task:
    """Return the task of a network: ImageNet's shapes for resnet50, else CIFAR's.

    Raises:
        ValueError: If the plain loop does not have the network.
    """
    network(model)
    task = Task(model=model)
    if model == "resnet50":
        task = Task(model=model, size_px=224, batch_size=32, num_images=320, num_classes=1000)
    if batch_size is None:
        return task
    num_images = max(task.num_images, 2 * batch_size)
    return replace(task, batch_size=batch_size, num_images=num_images)


def measure(
    task: Task,
    *,
    rounds: int,
    threads: int,
    device: str = "cpu",
    parts: Sequence[Part] = (),
    against: Sequence[str] = ("plain",),
    say: Callable[[str], object] = lambda line: None,
) -> list[TrainRow]:
    """Measure our loop, its rivals, and our loop without each of `parts`.

    Each round has one turn of three seconds per loop. The ratio of our loop is to the first rival,
    and the ratios of all other loops are to our loop.

    Raises:
        ValueError: If a rival is unknown.
    """
    unknown = [rival for rival in against if rival not in RIVALS]
    if unknown or not against:
        raise ValueError(f"--against {','.join(unknown)}: allowed are {', '.join(RIVALS)}")
    first, *further_rivals = against
    loops: list[tuple[str, Part | None]] = [(first, None), ("ours", None)]
    loops += [(rival, None) for rival in further_rivals]
    loops += [(f"ours without {part}", part) for part in parts]
    with ExitStack() as stack:
        contestants, descriptions = [], []
        for loop, without in loops:
            say(f"{task.model}: warming up {loop}")
            started = contestant(
                task, loop.split()[0], threads=threads, device=device, without=without
            )
            contestants.append(stack.enter_context(started))
            if device == "cpu":
                descriptions.append(contestants[-1].warm())
        if device != "cpu":  # loops on a GPU may warm up together: the CPU compiles
            descriptions = [loop_process.warm() for loop_process in contestants]
        turns: list[list[dict[str, float]]] = [[] for _ in loops]
        for number in range(rounds):
            say(f"{task.model}: round {number + 1} of {rounds}")
            order = range(len(loops)) if number % 2 == 0 else reversed(range(len(loops)))
            for index in order:
                turns[index].append(contestants[index].turn(TURN_SECONDS))
    rows = []
    bases = {first: (None, turns[0]), "ours": (first, turns[0])}
    for (loop, _), loop_turns, about in zip(loops, turns, descriptions, strict=True):
        ratio_to, base = bases.get(loop, ("ours", turns[1]))
        rows.append(
            _row(task, loop, about, loop_turns, threads=threads, ratio_to=ratio_to, base=base)
        )
    return rows


def _row(
    task: Task,
    loop: str,
    about: dict[str, Any],
    turns: list[dict[str, float]],
    *,
    threads: int,
    ratio_to: str | None,
    base: list[dict[str, float]],
) -> TrainRow:
    net = models.build(task.model, num_classes=task.num_classes)
    macs = models.complexity(net, (3, task.size_px, task.size_px)).macs
    speeds = [turn["images"] / turn["seconds"] for turn in turns]
    rates = [turn["matrix_product_flops"] for turn in turns]
    ratios = [
        speed * base_turn["seconds"] / base_turn["images"]
        for speed, base_turn in zip(speeds, base, strict=True)
    ]
    return TrainRow(
        model=task.model,
        loop=loop,
        precision=about["precision"],
        compiled=about["compiled"],
        threads=threads,
        batch_size=task.batch_size,
        size_px=task.size_px,
        rounds=len(turns),
        images_per_second=MedianAndRange.of(speeds),
        share_pct=MedianAndRange.of(
            [100 * 6 * macs * speed / rate for speed, rate in zip(speeds, rates, strict=True)]
        ),
        matrix_product_gflops=MedianAndRange.of([rate / 1e9 for rate in rates]),
        ratio_to=ratio_to,
        ratio=MedianAndRange.of(ratios) if ratio_to else None,
        warm_up_seconds=about["warm_up_seconds"],
        others_pct=MedianAndRange.of([turn["others_pct"] for turn in turns]),
    )


@dataclass(frozen=True, kw_only=True)
class Contestant:
    """A loop in its own process."""

    name: str
    process: subprocess.Popen[str]

    def warm(self) -> dict[str, Any]:
        """Wait until the loop is warm, once, and return how it describes itself."""
        return _answer(self.process, self.name)

    def turn(self, seconds: float) -> dict[str, float]:
        """Let it train for some seconds and return what it did."""
        assert self.process.stdin is not None
        print(json.dumps({"seconds": seconds}), file=self.process.stdin, flush=True)
        return _answer(self.process, self.name)


@contextmanager
def contestant(
    task: Task, loop: str, *, threads: int, device: str, without: Part | None
) -> Iterator[Contestant]:
    """Start `loop` on `task` in its own process, and end it afterwards.

    Raises:
        OSError: If the process ends before it answers.
    """
    options = {"loop": loop, "threads": threads, "device": device, **asdict(task)}
    if without:
        options["without"] = without
    command = [sys.executable, "-m", "benchmarks.contestant"]
    for key, value in options.items():
        command += [f"--{key.replace('_', '-')}", str(value)]
    settings = environment(without) if loop == "ours" else dict(os.environ)
    search_path = [str(ROOT), str(ROOT / "src"), settings.get("PYTHONPATH", "")]
    settings["PYTHONPATH"] = os.pathsep.join(folder for folder in search_path if folder)
    name = f"{loop} on {task.model}"
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT, env=settings
    ) as process:
        try:
            yield Contestant(name=name, process=process)
        finally:
            process.kill()  # it has nothing to save


def _answer(process: subprocess.Popen[str], name: str) -> dict[str, Any]:
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        raise OSError(
            f"bench: the loop {name} ended with status {process.wait()} before it answered"
        )
    return dict(json.loads(line))


def table(rows: Sequence[TrainRow]) -> str:
    """Return the rows as text: medians, and in brackets the minimum and maximum of the rounds."""
    heading = ("model", "loop", "numerics", "images/s", "ratio", "share of matrix products")
    lines = [heading, *(_cells(row) for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(heading))]
    text = ""
    for line in lines:
        cells = [cell.ljust(width) for cell, width in zip(line, widths, strict=True)]
        text += "  ".join(cells).rstrip() + "\n"
    num_threads, num_rounds = rows[0].threads, rows[0].rounds
    text += (
        f"{num_threads} thread{'s' * (num_threads > 1)}, "
        f"{num_rounds} round{'s' * (num_rounds > 1)} in turns; median [lowest to highest]; "
        "share: 3 x 2 x MACs x images over the rate of matrix products in that precision"
    )
    others_pct = max(row.others_pct.median for row in rows)
    if others_pct > DISTURBED_PCT:
        text += f"\ndisturbed: other processes took {others_pct:.0f} % of the machine meanwhile"
    return text


def _cells(row: TrainRow) -> tuple[str, ...]:
    def spread(value: MedianAndRange, digits: int) -> str:
        return f"{value.median:,.{digits}f} [{value.low:,.{digits}f} to {value.high:,.{digits}f}]"

    numerics = f"{row.precision}{', compiled' if row.compiled else ''}"
    ratio = "" if row.ratio is None else f"{spread(row.ratio, 2)} of {row.ratio_to}"
    share = f"{row.share_pct.median:.0f} % of {row.matrix_product_gflops.median:,.0f} GFLOP/s"
    return (
        row.model,
        row.loop,
        numerics,
        spread(row.images_per_second, 0 if row.images_per_second.median >= 100 else 1),
        ratio,
        share,
    )
