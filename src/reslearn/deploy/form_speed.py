"""Latency and throughput of several forms of one model, in turns within one process.

In each round every form computes one picture and one batch, so all forms meet the same machine.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from reslearn.deploy.engines import InputArray
from reslearn.deploy.model_card import ModelCard
from reslearn.deploy.open_model import OpenedModel

THROUGHPUT_BATCH = 16
_WARM_UP_ROUNDS = 2
_MIN_ROUNDS, _MAX_ROUNDS = 3, 25
_SECONDS = 12.0
_REST_SECONDS = 0.02


@dataclass(frozen=True, kw_only=True)
class FormSpeed:
    """How fast a form computes on this machine, without decoding.

    Attributes:
        latency_ms: Median time of one picture.
        images_per_s: Median throughput in batches of 16.
        picture_px: Sides of the pictures: square crops, or whole pictures for input "image".
    """

    latency_ms: float
    images_per_s: float
    picture_px: int


def measure_speeds(
    models: Mapping[str, OpenedModel], *, seconds: float | None = None
) -> dict[str, FormSpeed]:
    """Measure all forms in turns.

    Args:
        models: The forms by name.
        seconds: No further round begins after this time, but there are always three. None: twelve.
    """
    inputs = {name: _inputs(model.card) for name, model in models.items()}
    measured: dict[str, tuple[list[float], list[float]]] = {name: ([], []) for name in models}
    end = time.monotonic() + (_SECONDS if seconds is None else seconds)
    for round_number in range(_WARM_UP_ROUNDS + _MAX_ROUNDS):
        if time.monotonic() > end and round_number >= _WARM_UP_ROUNDS + _MIN_ROUNDS:
            break
        for name, model in models.items():
            time.sleep(_REST_SECONDS)  # the threads of the form before may wait in a busy loop
            for batch, times in zip(inputs[name], measured[name], strict=True):
                start = time.perf_counter()
                model.engine(batch)
                times.append(time.perf_counter() - start)
    speeds = {}
    for name, (single, batched) in measured.items():
        speeds[name] = FormSpeed(
            latency_ms=1000 * statistics.median(single[_WARM_UP_ROUNDS:]),
            images_per_s=THROUGHPUT_BATCH / statistics.median(batched[_WARM_UP_ROUNDS:]),
            picture_px=_side(models[name].card),
        )
    return speeds


def _side(card: ModelCard) -> int:
    preprocess = card.preprocess
    if card.input_kind == "image":
        return preprocess.shorter_px or preprocess.size_px
    return preprocess.size_px


def _inputs(card: ModelCard) -> tuple[InputArray, InputArray]:
    """Return a batch of one and a batch of 16, of noise."""
    side, channels = _side(card), card.preprocess.channels
    random = np.random.default_rng(0)
    shape = (THROUGHPUT_BATCH, side, side, channels)
    pixels = random.integers(0, 256, shape, dtype=np.uint8)
    if card.input_kind != "tensor":
        return pixels[:1], pixels
    x = random.standard_normal((THROUGHPUT_BATCH, channels, side, side), dtype=np.float32)
    return x[:1], x
