"""Predictions as a tutorial would write them: PIL and NumPy, ONNX Runtime, OpenVINO, eager PyTorch.

`reslearn bench infer` and `reslearn bench serve` compare with them. Libraries have their default
settings. Nothing of reslearn computes.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import nn

from reslearn.data.preprocess import IMAGENET_MEAN, IMAGENET_STD
from reslearn.deploy.engines import import_extra
from reslearn.deploy.forms import silent_exporter

_PICTURE_PX = (500, 375)
_MEAN, _STD = (np.array(values, np.float32) for values in (IMAGENET_MEAN, IMAGENET_STD))

Tensors = npt.NDArray[np.float32]
Compute = Callable[[Tensors], object]


def jpeg_file(seed: int) -> bytes:
    """Return a JPEG file of smooth noise, as large as a small photo."""
    random = np.random.default_rng(seed)
    image = Image.fromarray(random.integers(0, 256, (12, 16, 3), dtype=np.uint8))
    with io.BytesIO() as file:
        image.resize(_PICTURE_PX, Image.Resampling.BICUBIC).save(file, "JPEG", quality=90)
        return file.getvalue()


def center_pixels(content: bytes, shorter_px: int, size_px: int) -> npt.NDArray[np.uint8]:
    """Decode, resize and crop one picture to [size_px, size_px, 3]."""
    image = Image.open(io.BytesIO(content)).convert("RGB")
    scale = shorter_px / min(image.size)
    image = image.resize(
        (round(image.width * scale), round(image.height * scale)), Image.Resampling.BILINEAR
    )
    left, top = (image.width - size_px) // 2, (image.height - size_px) // 2
    return np.array(image.crop((left, top, left + size_px, top + size_px)))


def normalized(content: bytes, shorter_px: int, size_px: int) -> Tensors:
    """Return a picture as a normalized tensor [3, size_px, size_px]."""
    pixels = center_pixels(content, shorter_px, size_px).astype(np.float32)
    return np.ascontiguousarray(((pixels - _MEAN) / _STD).transpose(2, 0, 1))


def eager(network: Callable[[torch.Tensor], torch.Tensor]) -> Compute:
    """Return a function that computes with PyTorch."""

    def compute(x: Tensors) -> object:
        with torch.inference_mode():
            return network(torch.from_numpy(x)).numpy()

    return compute


def onnx_runtime(network: nn.Module, example: Tensors, path: Path, *, threads: int) -> Compute:
    """Export a network to `path`, and return a function that computes with ONNX Runtime."""
    onnxruntime = import_extra("onnxruntime")
    with silent_exporter():
        torch.onnx.export(
            network,
            (torch.from_numpy(example),),
            str(path),
            dynamo=True,
            verbose=False,
            input_names=["x"],
            dynamic_shapes=({0: torch.export.Dim("batch")},),
        )
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return lambda x: session.run(None, {"x": x})


def openvino(network: nn.Module, example: Tensors, *, threads: int) -> Compute:
    """Convert a network, and return a function that computes with OpenVINO in float32."""
    library = import_extra("openvino")
    with silent_exporter():
        model = library.convert_model(
            network, example_input=torch.from_numpy(example), input=[-1, *example.shape[1:]]
        )
    settings = {"INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": "f32"}
    compiled = library.Core().compile_model(model, "CPU", settings)
    return lambda x: compiled([x])
