"""Images per second of our training step and of the plainest PyTorch loop, in turns on the machine at hand (`reslearn bench train`).

Each loop lives in a process of its own (contestant.py) and they never run at the same time. They take turns, the order reversed every
other round, so that whatever else the machine does falls on both; ratios are taken round by round, then medians. Each turn also
measures the matrix products of the loop's own precision: the share of that rate is what the convolutions reach of it.
Needs no data: images are made up.
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
DISTURBED_PCT = 5.0  # of the machine taken by others, above which the table says so


@dataclass(frozen=True, kw_only=True)
class Task:
    """What a step is made on. CIFAR's shapes and the paper's batch for CIFAR nets, ImageNet's for resnet50."""

    model: str
    size_px: int = 32
    batch_size: int = 128
    num_images: int = 10_000
    num_classes: int = 10


@dataclass(frozen=True, kw_only=True)
class Spread:
    """Over the rounds."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        return cls(median=statistics.median(values), low=min(values), high=max(values))


@dataclass(frozen=True, kw_only=True)
class Row:
    """One loop on one task. `ratio` is images/s over those of `ratio_to`, round by round."""

    model: str
    loop: str  # plain, ours, or "ours without ..."
    precision: str
    compiled: bool
    threads: int
    batch_size: int
    size_px: int
    rounds: int
    images_per_second: Spread
    share_pct: (
        Spread  # of the measured rate of matrix products: 3 x 2 x MACs x images / seconds / rate
    )
    matrix_product_gflops: Spread
    ratio_to: str | None
    ratio: Spread | None
    warm_up_seconds: float  # the first steps, compilation among them
    others_pct: Spread  # of the machine's processor time, taken by other processes meanwhile (Linux; else 0)


def task_of(model: str, batch_size: int | None = None) -> Task:
    """The task of a network. ValueError for one that the plain loop does not know."""
    network(model)
    task = (
        Task(model=model, size_px=224, batch_size=32, num_images=320, num_classes=1000)
        if model == "resnet50"
        else Task(model=model)
    )
    return (
        task
        if batch_size is None
        else replace(task, batch_size=batch_size, num_images=max(task.num_images, 2 * batch_size))
    )


def measure(
    task: Task,
    *,
    rounds: int,
    threads: int,
    device: str = "cpu",
    parts: Sequence[Part] = (),
    against: Sequence[str] = ("plain",),
    say: Callable[[str], object] = lambda line: None,
) -> list[Row]:
    """Ours, its rivals and ours without each of `parts`, in `rounds` rounds of turns of three seconds.

    Ours is told as a multiple of the first rival, all others as one of ours. ValueError for a rival that is not known.
    """
    unknown = [rival for rival in against if rival not in RIVALS]
    if unknown or not against:
        raise ValueError(f"--against {','.join(unknown)}: known are {', '.join(RIVALS)}")
    first, *others = against
    loops: list[tuple[str, Part | None]] = [
        (first, None),
        ("ours", None),
        *((rival, None) for rival in others),
        *((f"ours without {part}", part) for part in parts),
    ]
    with ExitStack() as stack:
        contestants, abouts = [], []
        for loop, without in loops:
            say(f"{task.model}: warming up {loop}")
            contestants.append(
                stack.enter_context(
                    contestant(
                        task, loop.split()[0], threads=threads, device=device, without=without
                    )
                )
            )
            if device == "cpu":
                abouts.append(contestants[-1].warm())
        abouts = abouts or [
            one.warm() for one in contestants
        ]  # on a GPU beside one another: what compiles is the CPU
        turns: list[list[dict[str, float]]] = [[] for _ in loops]
        for number in range(rounds):
            say(f"{task.model}: round {number + 1} of {rounds}")
            order = range(len(loops)) if number % 2 == 0 else reversed(range(len(loops)))
            for index in order:
                turns[index].append(contestants[index].turn(TURN_SECONDS))
    rows = []
    for (loop, _), those, about in zip(loops, turns, abouts, strict=True):
        ratio_to, base = {first: (None, turns[0]), "ours": (first, turns[0])}.get(
            loop, ("ours", turns[1])
        )
        rows.append(_row(task, loop, about, those, threads=threads, ratio_to=ratio_to, base=base))
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
) -> Row:
    macs = models.complexity(
        models.build(task.model, num_classes=task.num_classes), (3, task.size_px, task.size_px)
    ).macs
    speeds = [turn["images"] / turn["seconds"] for turn in turns]
    rates = [turn["matrix_product_flops"] for turn in turns]
    ratios = [
        mine * other["seconds"] / other["images"] for mine, other in zip(speeds, base, strict=True)
    ]
    return Row(
        model=task.model,
        loop=loop,
        precision=about["precision"],
        compiled=about["compiled"],
        threads=threads,
        batch_size=task.batch_size,
        size_px=task.size_px,
        rounds=len(turns),
        images_per_second=Spread.of(speeds),
        share_pct=Spread.of(
            [100 * 6 * macs * speed / rate for speed, rate in zip(speeds, rates, strict=True)]
        ),
        matrix_product_gflops=Spread.of([rate / 1e9 for rate in rates]),
        ratio_to=ratio_to,
        ratio=Spread.of(ratios) if ratio_to else None,
        warm_up_seconds=about["warm_up_seconds"],
        others_pct=Spread.of([turn["others_pct"] for turn in turns]),
    )


@dataclass(frozen=True, kw_only=True)
class Contestant:
    """A loop in its process."""

    name: str
    process: subprocess.Popen[str]

    def warm(self) -> dict[str, Any]:
        """Wait until it is, once; what it says of itself."""
        return _answer(self.process, self.name)

    def turn(self, seconds: float) -> dict[str, float]:
        """Let it train for so long; what it did."""
        assert self.process.stdin is not None
        print(json.dumps({"seconds": seconds}), file=self.process.stdin, flush=True)
        return _answer(self.process, self.name)


@contextmanager
def contestant(
    task: Task, loop: str, *, threads: int, device: str, without: Part | None
) -> Iterator[Contestant]:
    """Start `loop` on `task` in a process of its own, and end it afterwards. OSError where it dies."""
    options = {"loop": loop, "threads": threads, "device": device, **asdict(task)} | (
        {"without": without} if without else {}
    )
    command = [sys.executable, "-m", "benchmarks.contestant"]
    command += [
        word
        for key, value in options.items()
        for word in (f"--{key.replace('_', '-')}", str(value))
    ]
    settings = environment(without) if loop == "ours" else dict(os.environ)
    settings["PYTHONPATH"] = os.pathsep.join(
        filter(None, (str(ROOT), str(ROOT / "src"), settings.get("PYTHONPATH")))
    )
    name = f"{loop} on {task.model}"
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT, env=settings
    ) as process:
        try:
            yield Contestant(name=name, process=process)
        finally:
            process.kill()  # it keeps nothing


def _answer(process: subprocess.Popen[str], name: str) -> dict[str, Any]:
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        raise OSError(
            f"bench: the loop {name} ended with status {process.wait()} before it had answered"
        )
    return dict(json.loads(line))


def table(rows: Sequence[Row]) -> str:
    """The rows as text: medians, lowest and highest of the rounds in brackets."""
    heading = ("model", "loop", "numerics", "images/s", "ratio", "share of matrix products")
    lines = [heading, *(_cells(row) for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(heading))]
    text = "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )
    threads, rounds = (
        f"{num} {what}{'s' * (num > 1)}"
        for num, what in ((rows[0].threads, "thread"), (rows[0].rounds, "round"))
    )
    others_pct = max(row.others_pct.median for row in rows)
    return (
        f"{text}\n{threads}, {rounds} in turns; median [lowest to highest]; "
        "share: 3 x 2 x MACs x images over the rate of matrix products in that precision"
        + (
            f"\ndisturbed: other processes took {others_pct:.0f} % of the machine meanwhile"
            if others_pct > DISTURBED_PCT
            else ""
        )
    )


def _cells(row: Row) -> tuple[str, ...]:
    def spread(value: Spread, digits: int) -> str:
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
