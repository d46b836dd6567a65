"""Open the models of a server: names, engines, and a first prediction before the first request."""

from __future__ import annotations

import io
import re
from pathlib import Path

import numpy as np
from PIL import Image

from reslearn.deploy.engine_choice import EngineChoice, ServeEngine, with_engine
from reslearn.deploy.open_model import open_model
from reslearn.deploy.predictor import DEFAULT_BATCH_SIZE, Predictor
from reslearn.interop.as_bundle import NO_OPTIONS, InputOptions

_NAME = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]{0,63})=(.+)", flags=re.DOTALL)
DEFAULT_NAME = "model"
_FIRST_PX = 64


def named_sources(texts: list[str]) -> dict[str, str]:
    """Return sources of models by name. A text is SOURCE, or NAME=SOURCE.

    Raises:
        ValueError: If several models have the same name or none.
    """
    sources: dict[str, str] = {}
    for text in texts:
        match = None if Path(text).exists() else _NAME.fullmatch(text)
        if match is None and len(texts) > 1:
            raise ValueError(
                f"{text}: each of several models needs a name, as in cats=runs/a (letters, digits, "
                "dots and dashes)"
            )
        name, source = (DEFAULT_NAME, text) if match is None else (match[1], match[2])
        if name in sources:
            raise ValueError(f"{name} is the name of two models: give each its own name")
        sources[name] = source
    return sources


def open_served(
    source: str,
    options: InputOptions = NO_OPTIONS,
    *,
    engine: ServeEngine = ServeEngine.TORCH,
    device: str = "cpu",
    processor: str = "",
    threads: int | None = None,
    batch_size: int = DEFAULT_BATCH_SIZE,
) -> tuple[Predictor, EngineChoice | None]:
    """Open one model, and predict once, so that the first request does not wait.

    The second value says how the engine was chosen. It is None unless `engine` is AUTO and there
    was a choice.

    Raises:
        RunError, BundleError, WeightsError: If the model cannot be used.
        ValueError: If the engine cannot be used, or the model takes no pictures.
    """
    model = open_model(source, options, device=device, threads=threads)
    channels = model.card.preprocess.channels
    if channels not in (1, 3):
        raise ValueError(f"{source} takes images of {channels} channels, and photos have 3")
    model, choice = with_engine(model, engine, processor=processor, threads=threads)
    predictor = Predictor(model, batch_size=batch_size)
    # A picture of a file, so that the decoders are loaded too.
    with io.BytesIO() as file:
        Image.new("RGB", (_FIRST_PX, _FIRST_PX), "gray").save(file, "JPEG")
        (prediction,) = predictor(file.getvalue())
    if not np.isfinite(prediction.probabilities).all():
        raise ValueError(f"{source} computes probabilities that are not finite: train it again")
    return predictor, choice
