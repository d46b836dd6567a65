"""The plainest correct server of a network, as a tutorial would write it: one picture at a time.

FastAPI, PIL, and the network in eager PyTorch, under a lock. `reslearn bench serve` compares with
it:

    python -m benchmarks.plain_server MODEL PORT THREADS
"""

from __future__ import annotations

import sys
import threading
from typing import Annotated, Any

import torch
import uvicorn
from benchmarks.by_hand import center_pixels
from fastapi import FastAPI, File

from reslearn.deploy.open_model import open_bundle


def plain_app(source: str) -> FastAPI:
    """Return an app that answers POST /v1/predict for the network of a bundle or a run."""
    bundle = open_bundle(source)
    network = bundle.network.eval()
    preprocess = bundle.preprocess
    size_px, shorter_px = preprocess.size_px, preprocess.shorter_px or preprocess.size_px
    app = FastAPI()
    lock = threading.Lock()

    # Without `async`: FastAPI calls it in a thread, so that the server keeps listening.
    @app.post("/v1/predict")
    def predict(image: Annotated[bytes, File()]) -> dict[str, Any]:
        pixels = center_pixels(image, shorter_px, size_px)
        x = preprocess(torch.from_numpy(pixels[None]))
        with lock, torch.inference_mode():
            probabilities = network(x).softmax(1)[0]
        index = int(probabilities.argmax())
        return {"class": bundle.classes[index], "probability": float(probabilities[index])}

    return app


def main() -> None:
    """Serve the model of the command line."""
    source, port, threads = sys.argv[1:]
    torch.set_num_threads(int(threads))
    uvicorn.run(plain_app(source), host="127.0.0.1", port=int(port), log_level="warning")


if __name__ == "__main__":
    main()
