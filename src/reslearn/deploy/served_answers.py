"""The answers of a model over HTTP, for the parity gate: `reslearn serve` on this machine.

Without the extra `serve`, and for images that are no pictures, `Predictor` answers instead.
"""

from __future__ import annotations

import base64
import io
import json
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from reslearn.data import DataError
from reslearn.data.pictures import MAX_PIXELS
from reslearn.deploy.engines import SERVER_MODULES, Probabilities, are_installed
from reslearn.deploy.model_card import ModelCard
from reslearn.deploy.model_input import Picture
from reslearn.deploy.open_model import OpenedModel
from reslearn.deploy.predictor import Predictor
from reslearn.progress import progress_bar

if TYPE_CHECKING:
    from reslearn.deploy.server_limits import Limits

_SECONDS = 600.0
_MIB = 2**20


def is_served(card: ModelCard) -> bool:
    """Return whether the answers come over HTTP."""
    can_be_pictures = card.preprocess.channels in (1, 3)
    can_be_told_apart = len(set(card.classes)) == len(card.classes)
    return can_be_pictures and can_be_told_apart and are_installed(SERVER_MODULES)


def served_answers(
    model: OpenedModel, pictures: Sequence[Picture], description: str
) -> Probabilities:
    """Return the probabilities [N, K] that a server gives for pictures.

    Args:
        model: The model behind the server.
        pictures: Paths, or arrays uint8 [H, W, C]. Arrays are sent as PNG files.
        description: Stands beside the progress bar.
    """
    predictor = Predictor(model)
    if not is_served(model.card):
        return predicted_answers(predictor, pictures, description)
    from reslearn.deploy.server import serving
    from reslearn.deploy.server_app import ModelServer

    limits = _limits()
    answers: list[Probabilities] = []
    with (
        serving(ModelServer({"model": predictor}, limits)) as address,
        progress_bar(description, len(pictures), after_seconds=2.0) as advance,
    ):
        for start in range(0, len(pictures), limits.pictures):
            chunk = pictures[start : start + limits.pictures]
            answers += _ask(address, chunk, model.card.classes)
            advance(len(chunk))
    return np.stack(answers)


def predicted_answers(
    predictor: Predictor, pictures: Sequence[Picture], description: str
) -> Probabilities:
    """Return the probabilities [N, K] of `Predictor` for the bytes of the pictures, in batches."""
    rows: list[Probabilities] = []
    step = predictor.batch_size
    with progress_bar(description, len(pictures), after_seconds=2.0) as advance:
        for start in range(0, len(pictures), step):
            chunk = [
                picture.read_bytes() if isinstance(picture, Path) else picture
                for picture in pictures[start : start + step]
            ]
            rows += [prediction.probabilities for prediction in predictor(chunk)]
            advance(len(chunk))
    return np.stack(rows)


def _limits() -> Limits:
    """Return limits that photos of any size keep to. There is only one client."""
    from reslearn.deploy.server_limits import Limits

    return Limits(
        body_bytes=1024 * _MIB,
        all_bytes=2048 * _MIB,
        read_seconds=_SECONDS,
        answer_seconds=_SECONDS,
        pixels=MAX_PIXELS,
        queued_pixels=16 * MAX_PIXELS,
        drain_seconds=0.0,
    )


def _ask(
    address: str, pictures: Sequence[Picture], classes: tuple[str, ...]
) -> list[Probabilities]:
    images = [base64.b64encode(_file(picture)).decode() for picture in pictures]
    request = urllib.request.Request(
        f"{address}/v1/predict",
        data=json.dumps({"images": images, "top": len(classes)}).encode(),
        headers={"Content-Type": "application/json"},
    )
    # A proxy of the environment must not see the pictures.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=_SECONDS) as response:
            predictions: list[dict[str, Any]] = json.load(response)["predictions"]
    except urllib.error.HTTPError as error:
        raise DataError(f"the server refuses: {json.load(error)['error']}") from None
    indices = {name: index for index, name in enumerate(classes)}
    rows = []
    for prediction in predictions:
        row = np.full(len(classes), np.nan, np.float32)
        for entry in prediction["top"]:
            row[indices[entry["class"]]] = entry["probability"]
        rows.append(row)
    return rows


def _file(picture: Picture) -> bytes:
    """Return the file of a picture. PNG keeps every pixel of an array."""
    if isinstance(picture, Path):
        return picture.read_bytes()
    assert isinstance(picture, np.ndarray)
    with io.BytesIO() as file:
        plane = picture[:, :, 0] if picture.shape[2] == 1 else picture
        Image.fromarray(plane).save(file, "PNG", compress_level=1)
        return file.getvalue()
