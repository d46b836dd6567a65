"""The plainest correct server of a network, as a tutorial would write it: one picture at a time.

FastAPI, PIL, and the network in eager PyTorch, under a lock. `reslearn bench serve` compares with
it:

    python -m benchmarks.plain_server MODEL PORT THREADS
"""

from __future__ import annotations

import io
import sys
import threading
from typing import Annotated, Any

import torch
import uvicorn
from fastapi import FastAPI, File
from PIL import Image

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
        picture = Image.open(io.BytesIO(image)).convert("RGB")
        scale = shorter_px / min(picture.size)
        picture = picture.resize(
            (round(picture.width * scale), round(picture.height * scale)),
            Image.Resampling.BILINEAR,
        )
        left, top = (picture.width - size_px) // 2, (picture.height - size_px) // 2
        picture = picture.crop((left, top, left + size_px, top + size_px))
        pixels = torch.frombuffer(bytearray(picture.tobytes()), dtype=torch.uint8)
        x = preprocess(pixels.view(1, size_px, size_px, 3))
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
