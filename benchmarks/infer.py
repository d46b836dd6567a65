"""The speed of predictions: latency at batch 1 and throughput at batch 16, tensors and pictures.

Contestants, on networks of the same shape with random weights:

- ours: PyTorch and the files of `reslearn export --input tensor`, and `Predictor` on pictures. The
  chosen one has the engine that `reslearn serve` chooses on this machine;
- by hand: the network exported by `torch.onnx.export` and run in ONNX Runtime, and converted by
  OpenVINO, both with their default settings; PIL and NumPy prepare pictures, one after another, and
  decode them at full size (ours decodes a large JPEG at a fraction of it);
- eager: torchvision's network in PyTorch (resnet20: the plain network of plain_loop.py), and the
  same with torch.compile.

The contestants take turns, in another order in each round, so that other load of the machine
affects all. Before a turn the threads of the last one come to rest. A turn lasts 0.2 seconds or one
call, and its time is the median of its calls. Medians over the rounds are reported, and ratios are
medians of the rounds. All compute in float32; by default OpenVINO would take bfloat16 by hand where
the processor has it.
"""

from __future__ import annotations

import functools
import re
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from benchmarks.by_hand import (
    Compute,
    Tensors,
    eager,
    jpeg_file,
    normalized,
    onnx_runtime,
    openvino,
)
from benchmarks.measuring import median_ratio
from benchmarks.peer_loop import peer_network
from benchmarks.plain_loop import network as plain_network
from torch import nn

from reslearn import models
from reslearn.data import Preprocess
from reslearn.data.preprocess import IMAGENET_MEAN, IMAGENET_STD
from reslearn.deploy.engine_choice import ServeEngine, with_engine
from reslearn.deploy.engines import open_exported, torch_engine
from reslearn.deploy.forms import ExportForm, FormWriter
from reslearn.deploy.model_card import ModelCard
from reslearn.deploy.open_model import OpenedModel
from reslearn.deploy.predictor import Predictor
from reslearn.deploy.preprocess_graph import PixelsToProbabilities
from reslearn.progress import print_progress
from reslearn.train.numerics import processor_name

BATCHES = (1, 16)
_REST_SECONDS, _TURN_SECONDS = 0.05, 0.2
_WARM_UP_ROUNDS = 2
_FORMS = (ExportForm.ONNX, ExportForm.OPENVINO, ExportForm.INT8)


@dataclass(frozen=True, kw_only=True)
class Contestant:
    """One way to compute predictions.

    Attributes:
        name: Such as "ours, onnx".
        is_ours: Whether it belongs to reslearn.
        run: Computes a batch of this many images.
    """

    name: str
    is_ours: bool
    run: Callable[[int], object]


@dataclass(frozen=True, kw_only=True)
class InferRow:
    """One contestant on one network.

    Attributes:
        kind: "tensors" or "pictures".
        is_chosen: Whether this is the engine that `reslearn serve` chooses.
        latency_ms: Median time of one image.
        images_per_second: Median throughput in batches of 16.
        latency_ratio, throughput_ratio: Speed in units of the fastest contestant that is not ours.
    """

    network: str
    size_px: int
    kind: str
    contestant: str
    is_ours: bool
    is_chosen: bool
    latency_ms: float
    images_per_second: float
    latency_ratio: float
    throughput_ratio: float
    threads: int
    processor: str


def measure(
    names: Sequence[str], *, threads: int, rounds: int = 9, is_compiled: bool = True
) -> list[InferRow]:
    """Time all contestants on each network.

    Args:
        names: Networks, such as "resnet20" or "resnet50".
        threads: Threads of every library.
        rounds: Timed rounds; two rounds without timing come first.
        is_compiled: Whether torch.compile takes part. It compiles for a minute.
    """
    torch.set_num_threads(threads)
    rows = []
    for name in names:
        print_progress(f"{name}: exporting")
        with tempfile.TemporaryDirectory() as folder:
            task = _Task(name, Path(folder), threads)
            chosen = task.chosen()
            for kind, contestants in (
                ("tensors", task.on_tensors(is_compiled=is_compiled)),
                ("pictures", task.on_pictures(chosen)),
            ):
                times = _times(contestants, rounds, f"{name}, {kind}")
                rows += task.rows(kind, contestants, times, chosen.engine.runtime)
    return rows


def _times(
    contestants: Sequence[Contestant], rounds: int, description: str
) -> Mapping[tuple[str, int], list[float]]:
    """Return the seconds of each contestant and batch, round by round."""
    times: dict[tuple[str, int], list[float]] = {}
    for number in range(_WARM_UP_ROUNDS + rounds):
        print_progress(f"{description}: round {number - _WARM_UP_ROUNDS + 1} of {rounds}")
        first = number % len(contestants)
        for contestant in (*contestants[first:], *contestants[:first]):
            for batch in BATCHES:
                seconds = _turn(contestant, batch)
                if number >= _WARM_UP_ROUNDS:
                    times.setdefault((contestant.name, batch), []).append(seconds)
    return times


def _turn(contestant: Contestant, batch: int) -> float:
    """Return the median time of the calls of a turn. The first call wakes the threads."""
    time.sleep(_REST_SECONDS)
    calls: list[float] = []
    end = time.perf_counter() + _TURN_SECONDS
    while not calls or time.perf_counter() < end:
        start = time.perf_counter()
        contestant.run(batch)
        calls.append(time.perf_counter() - start)
    return statistics.median(calls[1:] or calls)


class _Task:
    """One network with random weights, and all contestants on it."""

    def __init__(self, name: str, folder: Path, threads: int) -> None:
        self.name = name
        self._folder = folder
        self._threads = threads
        torch.manual_seed(0)
        is_small = plain_has(name) and name != "resnet50"
        self.size_px, shorter_px, num_classes = (32, None, 10) if is_small else (224, 256, 1000)
        self._is_small = is_small
        self._network = models.build(name, num_classes=num_classes).eval()
        preprocess = Preprocess(
            size_px=self.size_px,
            channels=3,
            mean=torch.tensor(IMAGENET_MEAN),
            scale=torch.tensor(IMAGENET_STD),
            shorter_px=shorter_px,
        )
        classes = tuple(f"class {index}" for index in range(num_classes))
        self._card = ModelCard(name=name, classes=classes, preprocess=preprocess)
        self._pictures = [jpeg_file(seed) for seed in range(max(BATCHES))]
        random = np.random.default_rng(0)
        shape = (max(BATCHES), 3, self.size_px, self.size_px)
        self._tensors: Tensors = random.standard_normal(shape, dtype=np.float32)

    def chosen(self) -> OpenedModel:
        """Return the network with the engine that `reslearn serve` chooses."""
        module = PixelsToProbabilities(
            self._network, self._card.preprocess, input_kind="crop"
        ).eval()
        model = OpenedModel(
            source=self.name, card=self._card, engine=torch_engine(module), network=self._network
        )
        chosen, _ = with_engine(
            model, ServeEngine.AUTO, processor=processor_name(), threads=self._threads
        )
        return chosen

    def on_tensors(self, *, is_compiled: bool) -> list[Contestant]:
        """Return the contestants that take normalized tensors."""
        module = PixelsToProbabilities(self._network, self._card.preprocess, input_kind="tensor")
        contestants = [self._on_tensors("ours, torch", torch_engine(module), is_ours=True)]
        contestants += [
            self._on_tensors(f"ours, {form.value}", engine, is_ours=True)
            for form, engine in self._exported().items()
        ]
        others: dict[str, Compute] = {
            **self._by_hand,
            self._eager_name: eager(self._eager_network),
        }
        if is_compiled:
            # One for each batch size, since one for all would compile with open sizes.
            compiled = {
                batch: eager(torch.compile(self._eager_network, dynamic=False)) for batch in BATCHES
            }
            others["torch.compile"] = lambda x: compiled[len(x)](x)
        contestants += [
            self._on_tensors(name, compute, is_ours=False) for name, compute in others.items()
        ]
        return contestants

    def on_pictures(self, chosen: OpenedModel) -> list[Contestant]:
        """Return the contestants that take the bytes of JPEG files."""
        predictor = Predictor(chosen)

        def ours(batch: int) -> object:
            return predictor(self._pictures[:batch])

        contestants = [Contestant(name="ours, predict", is_ours=True, run=ours)]
        others = {**self._by_hand, self._eager_name: eager(self._eager_network)}
        contestants += [self._on_pictures(name, compute) for name, compute in others.items()]
        return contestants

    def rows(
        self,
        kind: str,
        contestants: Sequence[Contestant],
        times: Mapping[tuple[str, int], list[float]],
        runtime: str,
    ) -> list[InferRow]:
        """Return one row for each contestant."""
        rivals = [contestant.name for contestant in contestants if not contestant.is_ours]
        fastest = {
            batch: min(rivals, key=lambda name: statistics.median(times[name, batch]))
            for batch in BATCHES
        }
        rows = []
        for contestant in contestants:
            medians = [statistics.median(times[contestant.name, batch]) for batch in BATCHES]
            ratios = [
                median_ratio(times[fastest[batch], batch], times[contestant.name, batch])
                for batch in BATCHES
            ]
            form = {"onnxruntime": "onnx"}.get(runtime, runtime)
            rows.append(
                InferRow(
                    network=self.name,
                    size_px=self.size_px,
                    kind=kind,
                    contestant=contestant.name,
                    is_ours=contestant.is_ours,
                    is_chosen=contestant.name in (f"ours, {form}", "ours, predict"),
                    latency_ms=1000 * medians[0],
                    images_per_second=BATCHES[1] / medians[1],
                    latency_ratio=ratios[0],
                    throughput_ratio=ratios[1],
                    threads=self._threads,
                    processor=processor_name(),
                )
            )
        return rows

    def _on_tensors(self, name: str, compute: Compute, *, is_ours: bool) -> Contestant:
        return Contestant(
            name=name, is_ours=is_ours, run=lambda batch: compute(self._tensors[:batch])
        )

    def _on_pictures(self, name: str, compute: Compute) -> Contestant:
        preprocess = self._card.preprocess

        def run(batch: int) -> object:
            crops = [
                normalized(content, preprocess.shorter_px or self.size_px, self.size_px)
                for content in self._pictures[:batch]
            ]
            return compute(np.stack(crops))

        return Contestant(name=name, is_ours=False, run=run)

    def _exported(self) -> dict[ExportForm, Any]:
        module = PixelsToProbabilities(self._network, self._card.preprocess, input_kind="tensor")
        writer = FormWriter(module.eval(), replace(self._card, input_kind="tensor"), self._folder)
        engines = {}
        for form in _FORMS:
            path = self._folder / f"{form.value}{form.suffix}"
            writer.write(form, path, calibration=[self._tensors])
            _, engines[form] = open_exported(path, threads=self._threads, busy_waiting=True)
        return engines

    @functools.cached_property
    def _by_hand(self) -> dict[str, Compute]:
        network, example = self._eager_network, self._tensors[:2]
        path = self._folder / "by_hand.onnx"
        return {
            "by hand, onnxruntime": onnx_runtime(network, example, path, threads=self._threads),
            "by hand, openvino": openvino(network, example, threads=self._threads),
        }

    @property
    def _eager_name(self) -> str:
        return "eager, plain network" if self._is_small else "eager, torchvision"

    @functools.cached_property
    def _eager_network(self) -> nn.Module:
        if self._is_small:
            return plain_network(self.name).eval()
        return peer_network("torchvision", self.name, 1000).eval()


def plain_has(name: str) -> bool:
    """Return whether the plain network of plain_loop.py exists: 6n+2 layers."""
    match = re.fullmatch(r"resnet(\d+)", name)
    return match is not None and int(match[1]) % 6 == 2


def table(rows: Sequence[InferRow]) -> str:
    """Return the rows as text, one line each."""
    lines = []
    for row in rows:
        mark = "*" if row.is_chosen else " "
        lines.append(
            f"{row.network:8} {row.size_px:3} px  {row.kind:8} {mark} {row.contestant:21} "
            f"{row.latency_ms:8.2f} ms ({row.latency_ratio:5.2f})  "
            f"{row.images_per_second:8,.0f} images/s ({row.throughput_ratio:5.2f})"
        )
    lines.append(
        "* the engine that `reslearn serve` chooses here; in brackets: speed in units of the "
        "fastest contestant that is not ours"
    )
    return "\n".join(lines)
