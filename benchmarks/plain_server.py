"""The plainest correct server of a network, as a tutorial would write it: one picture at a time.

FastAPI, PIL, and the network in eager PyTorch, ONNX Runtime or OpenVINO, under a lock.
`reslearn bench serve` compares with it:

    python -m benchmarks.plain_server MODEL PORT THREADS [torch|onnxruntime|openvino]
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import numpy as np
import torch
import uvicorn
from benchmarks.by_hand import Tensors, center_pixels, onnx_runtime, openvino
from fastapi import FastAPI, File
from torch import nn

from reslearn.deploy.open_model import open_bundle


def plain_app(source: str, runtime: str = "torch", *, threads: int = 1) -> FastAPI:
    """Return an app that answers POST /v1/predict for the network of a bundle or a run."""
    bundle = open_bundle(source)
    preprocess = bundle.preprocess
    size_px, shorter_px = preprocess.size_px, preprocess.shorter_px or preprocess.size_px
    example = np.zeros((2, preprocess.channels, size_px, size_px), np.float32)
    logits = _logits_by(runtime, bundle.network.eval(), example, threads)
    app = FastAPI()
    lock = threading.Lock()

    # Without `async`: FastAPI calls it in a thread, so that the server keeps listening.
    @app.post("/v1/predict")
    def predict(image: Annotated[bytes, File()]) -> dict[str, Any]:
        pixels = center_pixels(image, shorter_px, size_px)
        x = preprocess(torch.from_numpy(pixels[None])).numpy()
        with lock:
            probabilities = torch.from_numpy(logits(x)).softmax(1)[0]
        index = int(probabilities.argmax())
        return {"class": bundle.classes[index], "probability": float(probabilities[index])}

    return app


def _logits_by(
    runtime: str, network: nn.Module, example: Tensors, threads: int
) -> Callable[[Tensors], Tensors]:
    """Return the network in a library: images [B, C, S, S] to logits [B, K]."""
    if runtime == "torch":

        def compute(x: Tensors) -> Tensors:
            with torch.inference_mode():
                return np.asarray(network(torch.from_numpy(x)))

        return compute
    if runtime == "openvino":
        outputs = openvino(network, example, threads=threads)
    else:
        with TemporaryDirectory() as folder:
            outputs = onnx_runtime(network, example, Path(folder) / "net.onnx", threads=threads)

    def first_output(x: Tensors) -> Tensors:
        batches: Any = outputs(x)
        return np.asarray(batches[0])

    return first_output


def main() -> None:
    """Serve the model of the command line."""
    source, port, threads, *runtime = sys.argv[1:]
    torch.set_num_threads(int(threads))
    app = plain_app(source, *runtime, threads=int(threads))
    uvicorn.run(app, host="127.0.0.1", port=int(port), log_level="warning")


if __name__ == "__main__":
    main()
