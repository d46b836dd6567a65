"""Measure how fast this machine trains networks and reads pictures, in a few seconds.

The steps follow the recipe, on random pixels. The first step of each network is not timed. A
network that is too expensive is estimated from its multiply-adds.
"""

import math
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch

from reslearn import models, recipes
from reslearn.data import Files
from reslearn.data.files import map_in_order
from reslearn.data.pictures import read_picture
from reslearn.train import numerics
from reslearn.train.budget import Candidate
from reslearn.train.optimizer import build_optimizer
from reslearn.train.setup import Machine
from reslearn.train.step import make_step

_NUM_PICTURES = 48
_NUM_STEPS = 2
_BATCH_SIZE = 16
_BATCH_SIZE_ON_GPU = 128
_WITH_BATCHES = 1.1
"""Time of a step with loading and augmentation, relative to the step alone."""
_BUSY = 1.5
"""System load per core above which one thread is used, since waiting threads are slow then."""
_WARM_UP = 3.0
"""The first step takes up to this many times as long as the others."""
_FASTER = 0.9
"""More threads are used only if their time is at most this part of the time of fewer threads."""


@dataclass(frozen=True, kw_only=True)
class Speed:
    """Measured seconds of one image in a training step, by candidate, and the threads used."""

    seconds_per_image: Mapping[Candidate, float]
    threads: int


def measure(
    recipe: recipes.Recipe,
    candidates: tuple[Candidate, ...],
    machine: Machine,
    *,
    num_classes: int,
    channels: int = 3,
    seconds: float,
) -> Speed:
    """Measure candidates, the cheapest first, until `seconds` have passed.

    Each network is timed at its smallest size. Its other sizes, and networks for which no time is
    left, are estimated from the multiply-adds of the last one that was timed. The number
    of threads is the fastest for the first candidate, unless the machine prescribes one. On a
    processor that others use too, threads that wait for each other are slower than one.

    Args:
        recipe: Its data, augmentation, optimizer and switches of the network are used.
        candidates: In the order of their cost.
        seconds: After this time no further candidate is timed.
    """
    began_at = time.monotonic()
    shape = (num_classes, channels)
    first = _Trial(recipe, candidates[0], machine, shape)
    threads, first_seconds = _choose_threads(first, machine)
    timed = {candidates[0].model}
    measured = {candidates[0]: first_seconds}
    per_operation = first_seconds / first.macs
    for candidate in candidates[1:]:
        trial = _Trial(recipe, candidate, replace(machine, threads=threads), shape)
        estimate = per_operation * trial.macs
        seconds_left = seconds - (time.monotonic() - began_at)
        needed = (1 + _NUM_STEPS) * trial.batch_size * estimate
        if candidate.model not in timed and needed < seconds_left:
            timed.add(candidate.model)
            estimate = trial.seconds_per_image(threads)
            per_operation = estimate / trial.macs
        measured[candidate] = estimate
    return Speed(seconds_per_image=measured, threads=threads)


def read_seconds(files: Files, *, size_px: int) -> float:
    """Return the mean seconds to read a picture with all cores, from a sample.

    Pictures that cannot be read are skipped: the training leaves them out too, and says so.
    """
    sample = files.evenly_spaced(min(_NUM_PICTURES, len(files)))

    def attempt(index: int) -> None:
        sample.attempt(index, lambda path: read_picture(path, size_px))

    began_at = time.monotonic()
    for _ in map_in_order(attempt, range(len(sample)), num_ahead=16):
        pass
    return (time.monotonic() - began_at) / len(sample)


def _choose_threads(trial: "_Trial", machine: Machine) -> tuple[int, float]:
    """Return the fastest number of threads (all, half, or one), and the seconds per image."""
    threads = machine.threads or torch.get_num_threads()
    if trial.device != "cpu" or machine.threads is not None:
        return threads, trial.seconds_per_image(threads)
    fastest, seconds = 1, trial.seconds_per_image(1)
    if os.getloadavg()[0] > _BUSY * (os.cpu_count() or 1):
        return fastest, seconds  # a trial of more threads could take minutes
    for number in sorted({threads // 2, threads} - {0, 1}):
        more_seconds = trial.seconds_per_image(number, give_up_at=2 * seconds)
        if more_seconds < _FASTER * seconds:
            fastest, seconds = number, more_seconds
    return fastest, seconds


class _Trial:
    """Training steps of one candidate on random pixels."""

    def __init__(
        self,
        recipe: recipes.Recipe,
        candidate: Candidate,
        machine: Machine,
        shape: tuple[int, int],
    ) -> None:
        num_classes, channels = shape
        options = recipe.model.model_dump()
        options.update(name=candidate.model, num_classes=num_classes, in_channels=channels)
        self._model = models.build(**options)
        size = candidate.size_px
        self.macs = models.complexity(self._model, (channels, size, size)).macs
        self.device = numerics.choose_device(machine.device)
        self.batch_size = _BATCH_SIZE if self.device == "cpu" else _BATCH_SIZE_ON_GPU
        self._recipe = recipe
        x = torch.rand(self.batch_size, channels, size, size, device=self.device)
        self._x = x.to(memory_format=torch.channels_last)
        self._y = torch.arange(self.batch_size, device=self.device) % num_classes

    def seconds_per_image(self, threads: int, give_up_at: float = math.inf) -> float:
        """Return the mean time of an image over a few steps after a first one.

        If the first step shows that it will be longer than `give_up_at`, it returns infinity.
        """
        chosen = numerics.choose(
            self._recipe.train, device=self.device, threads=threads, macs=self.macs, num_images=1
        )
        numerics.prepare(chosen)
        # torch's stub lacks the argument memory_format.
        model = self._model.to(self.device)
        model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._model.train()
        step = make_step(
            self._model,
            torch.nn.CrossEntropyLoss(label_smoothing=self._recipe.train.label_smoothing),
            build_optimizer(self._model, self._recipe.optimizer),
            numerics=chosen,
        )
        times = [time.perf_counter()]
        for _ in range(1 + _NUM_STEPS):
            step(self._x, self._y).sum().item()  # waits for the device
            times.append(time.perf_counter())
            if times[1] - times[0] > _WARM_UP * give_up_at * self.batch_size:
                return math.inf
        return _WITH_BATCHES * (times[-1] - times[1]) / _NUM_STEPS / self.batch_size
