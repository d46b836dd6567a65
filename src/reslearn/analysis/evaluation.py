"""The evaluation of one network as plain JSON values, the content of analysis/evaluation.json.

It holds metrics of the classes with intervals, calibration, the most confident mistakes and the
suspected labels with small pictures and heat maps, robustness, and the views of Sec. 4.1.

Shapes: N images, S the side of the input in pixels.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Sequence
from copy import deepcopy
from dataclasses import asdict
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float32
from PIL import Image
from torch import Tensor

from reslearn.analysis.grad_cam import draw_heat_map, grad_cam
from reslearn.data import Files, scale_length
from reslearn.evaluate import (
    EvaluationTask,
    Predictions,
    Protocol,
    detailed_metrics,
    most_confident_mistakes,
    robustness,
    scores,
    select,
    share,
    suspected_labels,
    views,
)
from reslearn.evaluate.protocols import SCALES
from reslearn.models import Network, complexity
from reslearn.progress import track

NUM_PICTURES = 24
"""Mistakes and suspected labels that are shown as pictures. More of them are listed as text."""
NUM_LISTED = 200
MAX_ROBUSTNESS_IMAGES = 2000
MAX_VIEW_MACS = {"cpu": 2e12, "cuda": 2e14}
"""Multiply-adds of ten crops, or of five scales: a minute or so. Above, they are optional."""
_MACS_PER_SHAPE = 2e9
"""Cost of a picture at one scale beside its multiply-adds: most pictures have a shape of their own,
so they go through the network one by one, and its kernels are chosen again."""


def evaluation_record(
    task: EvaluationTask,
    predictions: Predictions,
    *,
    is_held_out: bool = True,
    with_views: bool | None = None,
) -> dict[str, Any]:
    """Return everything that a report needs about the network on these images.

    Args:
        task: The network and its images.
        predictions: The outputs of the network for these images.
        is_held_out: Whether the network was not trained on these images. A trained network repeats
            the labels of its training images, so only held-out labels can be suspected.
        with_views: Whether to measure ten crops and five scales. None: if they are cheap.
    """
    detailed = detailed_metrics(predictions, task.classes, temperature=task.temperature)
    probabilities = predictions.probabilities(task.temperature or 1.0)
    mistakes = most_confident_mistakes(predictions, probabilities.amax(1), NUM_LISTED)
    suspects = suspected_labels(probabilities, predictions.labels) if is_held_out else []
    suspected = [suspect.image for suspect in suspects[:NUM_LISTED]]
    suggestions = [suspect.suggestion for suspect in suspects[:NUM_LISTED]]
    predicted = predictions.predicted_array[mistakes]
    num_images = min(MAX_ROBUSTNESS_IMAGES, len(task.images))
    view_results, why_no_views = _views(task, predictions, with_views)
    return {
        **detailed.to_json(),
        "temperature": task.temperature,
        "num_mistakes": int((predictions.predicted != predictions.labels).sum()),
        "mistakes": _image_records(task, predictions, probabilities, mistakes.tolist(), predicted),
        "num_suspected_labels": len(suspects) if is_held_out else None,
        "suspected_labels": _image_records(
            task, predictions, probabilities, suspected, suggestions
        ),
        "robustness_images": num_images,
        "robustness": [asdict(result) for result in _robustness(task, num_images)],
        "views": view_results,
        "why_no_views": why_no_views,
    }


def without_pictures(record: dict[str, Any]) -> dict[str, Any]:
    """Return a record without its pictures, which are long base64 texts."""
    copy = deepcopy(record)
    for image in [*copy["mistakes"], *copy["suspected_labels"]]:
        image.pop("picture", None)
        image.pop("heat_map", None)
    return copy


def _robustness(task: EvaluationTask, num_images: int) -> Iterable[Any]:
    part = task.with_images(task.images.evenly_spaced(num_images))
    batches = track(part.pixel_batches(), f"{task.name}: robustness", num_images)
    return robustness(task.network, batches, task.preprocess, autocast=task.autocast)


def _image_records(
    task: EvaluationTask,
    predictions: Predictions,
    probabilities: Float32[Tensor, "n k"],
    images: Sequence[int],
    classes: Iterable[int],
) -> list[dict[str, Any]]:
    """Describe images whose label and whose `classes` differ; the first ones have pictures."""
    records = []
    for image, label_of_network in zip(images, classes, strict=True):
        label = int(predictions.labels[image])
        record: dict[str, Any] = {
            "image": image,
            "file": _file_name(task.files, image),
            "label": label,
            "prediction": int(label_of_network),
            "label_pct": 100 * float(probabilities[image, label]),
            "prediction_pct": 100 * float(probabilities[image, int(label_of_network)]),
        }
        records.append(record)
    pictured = records[:NUM_PICTURES]
    if pictured:
        _add_pictures(task, pictured)
    return records


def _file_name(files: Files | None, image: int) -> str | None:
    """Return the path of an image within its folder. A CSV file may name absolute paths."""
    if files is None:
        return None
    path = files.path(image)
    return (
        path.relative_to(files.folder) if path.is_relative_to(files.folder) else path
    ).as_posix()


def _add_pictures(task: EvaluationTask, records: list[dict[str, Any]]) -> None:
    """Add each picture as the network sees it, and its heat map for the predicted class."""
    index = torch.tensor([record["image"] for record in records])
    part = task.with_images(select(task.images, index))
    pixels = torch.cat([pixels.cpu() for pixels, _ in part.pixel_batches()])
    heat_maps: list[Tensor | None] = [None] * len(records)
    if isinstance(task.network, Network):
        classes = torch.tensor([record["prediction"] for record in records]).to(task.device)
        x = torch.cat([x for x, _ in part.batches()])
        heat_maps = list(grad_cam(task.network, x, classes).cpu())
    for record, picture, heat in zip(records, pixels, heat_maps, strict=True):
        record["picture"] = _encoded(picture.numpy())
        record["heat_map"] = None if heat is None else _encoded(draw_heat_map(picture, heat))


def _encoded(pixels: npt.NDArray[np.uint8]) -> str:
    """Return a picture as base64: PNG if it is tiny, JPEG of at most 120 pixels otherwise."""
    image = Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)
    buffer = io.BytesIO()
    if max(image.size) <= 40:
        image.save(buffer, "png", optimize=True)
    else:
        image.thumbnail((120, 120))
        image.save(buffer, "jpeg", quality=75, optimize=True)
    return base64.b64encode(buffer.getvalue()).decode()


def _views(
    task: EvaluationTask, predictions: Predictions, with_views: bool | None
) -> tuple[list[dict[str, Any]], str | None]:
    """Measure one crop, ten crops and five scales, or say why not."""
    if task.files is None:
        return [], "the images have the size of the input, so there is only one view of each"
    if with_views is False:
        return [], "they were switched off by `--no-views`"
    predicted = predictions.predicted
    results = [_view_result("single", predicted, predicted, predictions.labels)]
    omitted = []
    protocols: tuple[Protocol, ...] = ("ten-crop", "multi-scale")
    for protocol in protocols:
        if with_views is None and not _is_cheap(task, protocol):
            omitted.append(protocol)
            continue
        batches = views(
            protocol,
            task.files,
            task.preprocess,
            batch_size=task.batch_size,
            device=task.device,
        )
        averages = scores(
            task.network,
            track(batches, f"{task.name}: {protocol}", len(task.files)),
            num_images=len(task.files),
            autocast=task.autocast,
        )
        results.append(_view_result(protocol, averages.argmax(1), predicted, predictions.labels))
    why = f"{' and '.join(omitted)} would take minutes; `--views` measures all" if omitted else None
    return results if len(results) > 1 else [], why


def _view_result(
    protocol: str, predicted: Tensor, predicted_of_single: Tensor, labels: Tensor
) -> dict[str, Any]:
    is_right, was_right = predicted == labels, predicted_of_single == labels
    return {
        "protocol": protocol,
        "accuracy": asdict(share(int(is_right.sum()), len(labels))),
        "num_corrected": int((is_right & ~was_right).sum()),
        "num_spoiled": int((was_right & ~is_right).sum()),
    }


def _is_cheap(task: EvaluationTask, protocol: Protocol) -> bool:
    """Return whether a protocol takes about a minute at most, for square pictures."""
    size_px, device = task.preprocess.size_px, torch.device(task.device).type
    assert isinstance(task.network, Network)
    of_crop = complexity(task.network, (task.preprocess.channels, size_px, size_px)).macs
    if protocol == "ten-crop":
        of_picture = 10.0 * of_crop
    else:
        areas = [(scale_length(scale, size_px) / size_px) ** 2 for scale in SCALES]
        of_picture = 2 * sum(areas) * of_crop + len(SCALES) * _MACS_PER_SHAPE
    return of_picture * len(task.images) <= MAX_VIEW_MACS[device]
