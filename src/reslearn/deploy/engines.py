"""Engines that compute probabilities: PyTorch, ONNX Runtime, OpenVINO, all with one interface.

An engine may be used by several threads at the same time.
"""

from __future__ import annotations

import importlib
import json
import logging
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch

from reslearn.deploy.model_card import ModelCard
from reslearn.deploy.preprocess_graph import PixelsToProbabilities
from reslearn.interop.exported_files import CARD_FILE, FORMAT_KEY
from reslearn.interop.stored import WeightsError, first_line

Probabilities = npt.NDArray[np.float32]
InputArray = npt.NDArray[np.uint8] | npt.NDArray[np.float32]
OPENVINO_KEY = "reslearn"
_FORCE_WEIGHTS_ONLY = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"
_environment_lock = threading.Lock()
_EXTRAS = {
    "onnx": "export",
    "onnxruntime": "export",
    "onnxscript": "export",
    "openvino": "export",
    "fastapi": "serve",
    "uvicorn": "serve",
    "httptools": "serve",
    "python_multipart": "serve",
    "prometheus_client": "serve",
}
SERVER_MODULES = tuple(module for module, extra in _EXTRAS.items() if extra == "serve")


class InferenceEngine(Protocol):
    """A computation: a batch of the input kind of its model to probabilities [B, K].

    Attributes:
        runtime: The library that computes, such as "onnxruntime".
    """

    runtime: str

    def __call__(self, batch: InputArray) -> Probabilities: ...


class TorchEngine:
    """Compute with PyTorch in eager mode."""

    runtime = "torch"

    def __init__(self, module: Callable[[torch.Tensor], torch.Tensor], device: str = "cpu") -> None:
        self._module = module
        self._device = device

    def __call__(self, batch: InputArray) -> Probabilities:
        x = torch.from_numpy(np.ascontiguousarray(batch)).to(self._device)
        with torch.inference_mode():
            probabilities = self._module(x)
        array: Probabilities = probabilities.float().cpu().numpy()
        return array


class OnnxEngine:
    """Compute with ONNX Runtime on the CPU.

    Args:
        path: The file.
        threads: Threads of the runtime. None: all cores.
        busy_waiting: Let idle threads wait in a busy loop. It is quicker for tensors, one after
            the other, and takes the cores from threads that decode pictures.
    """

    runtime = "onnxruntime"

    def __init__(
        self, path: Path, *, threads: int | None = None, busy_waiting: bool = False
    ) -> None:
        onnxruntime = import_extra("onnxruntime")
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3  # errors
        spinning = str(int(busy_waiting))
        options.add_session_config_entry("session.intra_op.allow_spinning", spinning)
        if threads is not None:
            options.intra_op_num_threads = threads
        try:
            self._session = onnxruntime.InferenceSession(
                str(path), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # the runtime has error classes of its own
            raise WeightsError(f"{path}: not an ONNX file: {first_line(error)}") from None
        self._input = self._session.get_inputs()[0].name
        self.metadata: dict[str, str] = dict(self._session.get_modelmeta().custom_metadata_map)

    def __call__(self, batch: InputArray) -> Probabilities:
        probabilities: Probabilities = self._session.run(None, {self._input: batch})[0]
        return probabilities


class OpenVinoEngine:
    """Compute with OpenVINO on the CPU, in float32 (int8 where the file is quantized)."""

    runtime = "openvino"

    def __init__(self, path: Path, *, threads: int | None = None) -> None:
        openvino = import_extra("openvino")
        # By default OpenVINO computes in bfloat16 where the processor can, which is too coarse for
        # the resize: gray levels need 8 bits behind the comma.
        settings: dict[str, Any] = {
            "INFERENCE_PRECISION_HINT": "f32",
            "PERFORMANCE_HINT": "LATENCY",
        }
        if threads is not None:
            settings["INFERENCE_NUM_THREADS"] = threads
        try:
            core = openvino.Core()
            model = core.read_model(path)
            self._compiled = core.compile_model(model, "CPU", settings)
        except Exception as error:
            reason = str(error).strip().splitlines()[-1]  # the first lines name sources of OpenVINO
            raise WeightsError(
                f"{path}: OpenVINO cannot read it and {path.with_suffix('.bin').name} beside it: "
                f"{reason}"
            ) from None
        self.metadata = _openvino_metadata(model)
        self._requests = threading.local()  # a request serves one thread at a time

    def __call__(self, batch: InputArray) -> Probabilities:
        if not hasattr(self._requests, "request"):
            self._requests.request = self._compiled.create_infer_request()
        outputs = self._requests.request.infer([np.ascontiguousarray(batch)])
        probabilities: Probabilities = np.array(outputs[0])
        return probabilities


def torch_engine(module: PixelsToProbabilities, device: str = "cpu") -> TorchEngine:
    """Return an engine for a network in this process."""
    return TorchEngine(module.to(device).eval(), device)


def open_exported(
    path: Path, *, threads: int | None = None, busy_waiting: bool = False
) -> tuple[ModelCard, InferenceEngine]:
    """Open a file of `reslearn export`: .onnx, .xml (OpenVINO) or .pt2 (torch.export).

    Args:
        path: The file.
        threads: Threads of the runtime. None: all cores.
        busy_waiting: See `OnnxEngine`.

    Raises:
        WeightsError: If the file cannot be read, or was not written by `reslearn export`.
    """
    if path.suffix == ".pt2":
        return _open_torch_export(path)
    engine: OnnxEngine | OpenVinoEngine
    if path.suffix == ".onnx":
        engine = OnnxEngine(path, threads=threads, busy_waiting=busy_waiting)
    else:
        engine = OpenVinoEngine(path, threads=threads)
    return ModelCard.from_metadata(engine.metadata, source=str(path)), engine


def is_exported(path: Path) -> bool:
    """Return whether a path is of a form that `reslearn export` writes.

    An .onnx file may also be a checkpoint of another project, which has no card.
    """
    if path.suffix == ".onnx" and path.is_file():
        with path.open("rb") as file:
            return FORMAT_KEY.encode() in file.read()
    return path.suffix in (".xml", ".pt2") and path.is_file()


def are_installed(modules: Iterable[str]) -> bool:
    """Return whether libraries of extras are installed, without importing them."""
    return all(find_spec(module) is not None for module in modules)


def import_extra(module: str) -> Any:
    """Import a library of an extra.

    Raises:
        ValueError: If it is not installed. The message has the command that installs it.
    """
    try:
        return importlib.import_module(module)
    except ImportError:
        raise ValueError(
            f"{module} is not installed: pip install 'reslearn[{_EXTRAS[module]}]'"
        ) from None


def _open_torch_export(path: Path) -> tuple[ModelCard, InferenceEngine]:
    extra_files = {CARD_FILE: ""}
    try:
        # torch.export logs a traceback for each damaged file.
        with _without_pickled_code(), log_from(logging.CRITICAL, "torch.export"):
            program = torch.export.load(path, extra_files=extra_files)
        metadata = json.loads(extra_files[CARD_FILE] or "{}")
    except Exception as error:  # a damaged archive raises errors of any type
        raise WeightsError(f"{path}: not a torch.export file: {first_line(error)}") from None
    card = ModelCard.from_metadata(metadata, source=str(path))
    return card, TorchEngine(program.module())


@contextmanager
def _without_pickled_code() -> Iterator[None]:
    """Keep `torch.load` from running code of a pickle, which `torch.export.load` would allow.

    The formulas of sizes in the file are still evaluated as text by sympy, so docs/export.md says
    that such files must come from a source that one trusts.
    """
    with _environment_lock:
        before = os.environ.get(_FORCE_WEIGHTS_ONLY)
        os.environ[_FORCE_WEIGHTS_ONLY] = "1"
        try:
            yield
        finally:
            if before is None:
                del os.environ[_FORCE_WEIGHTS_ONLY]
            else:
                os.environ[_FORCE_WEIGHTS_ONLY] = before


@contextmanager
def log_from(level: int, name: str | None = None) -> Iterator[None]:
    """Leave out messages of a library below a level.

    Args:
        level: The lowest level that is logged.
        name: The logger of the library. None: that of all libraries.
    """
    logger = logging.getLogger(name)
    level_before = logger.level
    logger.setLevel(level)
    try:
        yield
    finally:
        logger.setLevel(level_before)


def _openvino_metadata(model: Any) -> dict[str, str]:
    if not model.has_rt_info([OPENVINO_KEY, FORMAT_KEY]):
        return {}
    return {key: str(value.value) for key, value in model.rt_info[OPENVINO_KEY].items()}
