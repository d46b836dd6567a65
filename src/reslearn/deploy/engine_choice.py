"""Choose what computes a network: PyTorch, ONNX Runtime or OpenVINO, the fastest on this machine.

Which one is the fastest depends on the processor, the network and the batch, so it is measured: in
turns, for a few seconds. The times are kept in a file for each kind of network, and later starts
read them. The converted networks are kept, too.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Any

import numpy as np
import torch

from reslearn.deploy.converted_networks import ConvertedNetwork, library_versions
from reslearn.deploy.engines import TorchEngine, are_installed, open_exported
from reslearn.deploy.form_speed import THROUGHPUT_BATCH, FormSpeed, measure_speeds
from reslearn.deploy.forms import ExportForm, FormWriter
from reslearn.deploy.model_input import ModelInput
from reslearn.deploy.open_model import OpenedModel
from reslearn.deploy.preprocess_graph import PixelsToProbabilities
from reslearn.interop import pretrained
from reslearn.runs import write_atomically

_TOLERANCE = 1e-3
"""Largest allowed difference of a probability from PyTorch."""
_NUM_COMPARED = 4
_SECONDS = 6.0
_LIBRARIES = ("torch", "onnxruntime", "openvino")


class ServeEngine(StrEnum):
    """What computes a network that is no exported file."""

    AUTO = "auto"
    TORCH = "torch"
    ONNX = "onnx"
    OPENVINO = "openvino"

    @property
    def modules(self) -> tuple[str, ...]:
        """The libraries that this engine needs beside PyTorch."""
        runtimes = {"onnx": ("onnxruntime",), "openvino": ("openvino",)}
        if self.value not in runtimes:
            return ()
        return ("onnx", "onnxscript", *runtimes[self.value])


@dataclass(frozen=True, kw_only=True)
class EngineChoice:
    """The fastest engine for one kind of network on this machine.

    Attributes:
        engine: The engine with the lowest geometric mean of the time for one picture and the time
            per picture in a batch of 16.
        speeds: The measured speed of each engine.
        path: The file that keeps the times; None if it cannot be written.
        is_new: Whether the times were measured now.
    """

    engine: ServeEngine
    speeds: Mapping[ServeEngine, FormSpeed]
    path: Path | None
    is_new: bool

    def text(self) -> str:
        """Return the choice and the times as one line."""
        if not self.speeds:
            return (
                "engine torch: for faster ones install ONNX Runtime and OpenVINO, as in "
                "pip install 'reslearn[export]'"
            )
        times = [
            f"{engine.value} {speed.latency_ms:.3g} ms, {speed.images_per_s:,.0f}/s"
            for engine, speed in self.speeds.items()
        ]
        origin = "measured now" if self.is_new else f"from {self.path}"
        return (
            f"engine {self.engine.value}, the fastest for one picture and for batches of "
            f"{THROUGHPUT_BATCH} ({'; '.join(times)}; {origin})"
        )


def with_engine(
    model: OpenedModel, engine: ServeEngine, *, processor: str = "", threads: int | None = None
) -> tuple[OpenedModel, EngineChoice | None]:
    """Return the model with an engine, and how it was chosen if the engine is AUTO.

    AUTO keeps the engine of an exported file, and PyTorch on a GPU.

    Args:
        model: A model with a network, or an exported file.
        engine: What shall compute.
        processor: Name of the processor. A choice is kept for each.
        threads: Threads of the engine. None: all cores.

    Raises:
        ValueError: If the engine cannot be used, or computes other probabilities than PyTorch.
    """
    if engine is ServeEngine.AUTO:
        if model.network is None or model.device != "cpu":
            return model, None
        return _with_fastest(model, processor, threads)
    if model.network is None:
        raise ValueError(f"{model.source} is an exported file, which has its own engine")
    if engine is ServeEngine.TORCH:
        return model, None
    with _form_writer(model) as writer:
        return _converted(model, engine, threads, writer), None


def choice_folder() -> Path:
    """Return where choices are kept: below RESLEARN_DATA, or ~/.cache/reslearn."""
    return pretrained.folder().with_name("engines")


def converted_folder() -> Path:
    """Return where converted networks are kept, beside the choices."""
    return choice_folder() / "converted"


def _with_fastest(
    model: OpenedModel, processor: str, threads: int | None
) -> tuple[OpenedModel, EngineChoice]:
    conditions = _conditions(model, processor, threads)
    path = choice_folder() / f"{_digest(conditions)}.json"
    choice = _read(path, conditions)
    if choice is not None:
        with suppress(ValueError):  # it computes other probabilities with these weights
            chosen, _ = with_engine(model, choice.engine, threads=threads)
            return chosen, choice
    rivals = tuple(
        engine for engine in ServeEngine if engine.modules and are_installed(engine.modules)
    )
    models = {ServeEngine.TORCH: model}
    with _form_writer(model) as writer:  # one, since two engines begin with the same file
        for engine in rivals:
            try:
                models[engine] = _converted(model, engine, threads, writer)
            except Exception as error:  # of a library: the network can be served without it
                logging.getLogger(__name__).warning("%s is left out: %s", engine.value, error)
    named = {engine.value: opened for engine, opened in models.items()}
    measured = measure_speeds(named, seconds=_SECONDS) if rivals else {}
    speeds = {ServeEngine(name): speed for name, speed in measured.items()}
    fastest = min(speeds, key=lambda engine: _mean_time(speeds[engine]), default=ServeEngine.TORCH)
    is_complete = len(speeds) == 1 + len(rivals) > 1
    is_kept = is_complete and _write(path, conditions, fastest, speeds)
    choice = EngineChoice(
        engine=fastest, speeds=speeds, path=path if is_kept else None, is_new=True
    )
    return models[fastest], choice


def _mean_time(speed: FormSpeed) -> float:
    """Return the geometric mean of the seconds per picture, alone and in a batch."""
    return math.sqrt(speed.latency_ms / 1000 / speed.images_per_s)


@contextmanager
def _form_writer(model: OpenedModel) -> Iterator[FormWriter]:
    """Yield a writer for the network of the model, with a temporary folder."""
    assert model.network is not None, "exported files keep their engine"
    module = PixelsToProbabilities(
        model.network,
        model.card.preprocess,
        temperature=model.card.temperature,
        input_kind="crop",
    )
    with tempfile.TemporaryDirectory() as folder:
        yield FormWriter(module.cpu().eval(), model.card, Path(folder))


def _converted(
    model: OpenedModel, engine: ServeEngine, threads: int | None, writer: FormWriter
) -> OpenedModel:
    """Return the model with an engine, by a converted network of the cache if there is one.

    Raises:
        ValueError: If a probability differs too much from PyTorch.
    """
    assert model.network is not None, "exported files keep their engine"
    form = ExportForm(engine.value)
    cache = ConvertedNetwork(converted_folder(), model.network, model.card, form)
    path = cache.path()
    if path is not None:
        with suppress(Exception):  # a file of something else: it is converted again
            return _opened(model, path, threads, writer.module)
    path = writer.folder / f"model{form.suffix}"
    writer.write(form, path)
    converted = _opened(model, path, threads, writer.module)
    cache.keep(path)
    return converted


def _opened(
    model: OpenedModel, path: Path, threads: int | None, module: PixelsToProbabilities
) -> OpenedModel:
    """Return the model with the engine of a converted file.

    Raises:
        ValueError: If the file is of another model, or a probability differs too much from PyTorch.
    """
    card, computation = open_exported(path, threads=threads)
    if card.to_metadata() != model.card.to_metadata():
        raise ValueError(f"{path} is not the converted network of {model.source}")
    converted = replace(model, engine=computation, device="cpu")
    difference = _difference(converted, TorchEngine(module))
    if not difference <= _TOLERANCE:
        raise ValueError(
            f"{computation.runtime} computes probabilities of {model.source} that differ by "
            f"{difference:.4f} from PyTorch: use --engine torch"
        )
    return converted


def _difference(model: OpenedModel, expected: TorchEngine) -> float:
    """Return the largest difference of a probability, on random crops."""
    preprocess = model.card.preprocess
    shape = (_NUM_COMPARED, preprocess.size_px, preprocess.size_px, preprocess.channels)
    generator = torch.Generator().manual_seed(0)
    crops = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator).numpy()
    batch = ModelInput(model.card).batch(list(crops))
    return float(np.abs(expected(batch) - model.engine(batch)).max())


def _conditions(model: OpenedModel, processor: str, threads: int | None) -> dict[str, Any]:
    """Return all that the speed depends on. The values of the weights are not part of it."""
    assert model.network is not None
    return {
        "network": {key: str(value) for key, value in model.network.spec.items()},
        "classes": len(model.card.classes),
        "size_px": model.card.preprocess.size_px,
        "processor": processor,
        "threads": threads or torch.get_num_threads(),
        "versions": library_versions(_LIBRARIES),
    }


def _digest(conditions: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(conditions, sort_keys=True).encode()).hexdigest()[:16]


def _read(path: Path, conditions: Mapping[str, Any]) -> EngineChoice | None:
    """Return the kept choice; None if there is none, or it is damaged."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        if record["conditions"] != conditions:
            return None
        speeds = {
            ServeEngine(name): FormSpeed(
                latency_ms=float(values["latency_ms"]),
                images_per_s=float(values["images_per_s"]),
                picture_px=int(values["picture_px"]),
            )
            for name, values in record["speeds"].items()
        }
        engine = ServeEngine(record["engine"])
        usable = engine in speeds and are_installed(engine.modules)
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None
    if not usable:
        return None
    return EngineChoice(engine=engine, speeds=speeds, path=path, is_new=False)


def _write(
    path: Path,
    conditions: Mapping[str, Any],
    engine: ServeEngine,
    speeds: Mapping[ServeEngine, FormSpeed],
) -> bool:
    """Keep the choice. Return whether the folder could be written."""
    record = {
        "engine": engine.value,
        "speeds": {name.value: asdict(speed) for name, speed in speeds.items()},
        "conditions": conditions,
    }
    text = json.dumps(record, indent=1) + "\n"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, lambda file: file.write(text.encode()))
    except (OSError, ValueError):  # RunError is a ValueError
        return False
    return True
