"""All metrics of the predictions for one set of images, as one value."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from reslearn.evaluate.calibration import Calibration, calibration
from reslearn.evaluate.class_metrics import (
    ClassMetrics,
    Integers,
    Share,
    class_means,
    class_metrics,
    confusion_matrix,
    share,
)
from reslearn.evaluate.predictions import Predictions

MIN_CLASSES_FOR_TOP5 = 11
"""With ten classes or fewer, five guesses cover half of the classes and say little."""


@dataclass(frozen=True, kw_only=True, eq=False)
class DetailedMetrics:
    """Accuracy, metrics of the classes, and calibration.

    Attributes:
        num_images: Number of images.
        accuracy: Share of the images whose prediction is right.
        top5_accuracy: Share of the images with the label among the five best classes. None if there
            are ten classes or fewer.
        balanced_accuracy: Mean recall of the classes.
        macro_f1: Mean F1 of the classes.
        classes: Metrics of each class.
        confusion: Number of images by label (row) and prediction (column), [K, K].
        calibration: Calibration of the network as trained.
        scaled_calibration: Calibration with the temperature that was fitted on validation images.
            None if none was fitted.
    """

    num_images: int
    accuracy: Share
    top5_accuracy: Share | None
    balanced_accuracy: Share
    macro_f1: Share
    classes: tuple[ClassMetrics, ...]
    confusion: Integers
    calibration: Calibration
    scaled_calibration: Calibration | None

    def to_json(self) -> dict[str, Any]:
        """Return JSON values. The confusion matrix is a list of [label, prediction, count].

        Most cells of a large matrix are zero, and these are left out.
        """
        values = {
            name: getattr(self, name)
            for name in ("accuracy", "top5_accuracy", "balanced_accuracy", "macro_f1")
        }
        values |= {
            "calibration": self.calibration,
            "scaled_calibration": self.scaled_calibration,
        }
        rows, columns = np.nonzero(self.confusion)
        counts = self.confusion[rows, columns]
        return {
            "num_images": self.num_images,
            **{name: None if value is None else asdict(value) for name, value in values.items()},
            "classes": [asdict(metrics) for metrics in self.classes],
            "confusion": np.stack([rows, columns, counts], axis=1).tolist(),
        }


def detailed_metrics(
    predictions: Predictions, classes: Sequence[str], *, temperature: float | None = None
) -> DetailedMetrics:
    """Compute all metrics.

    Args:
        predictions: Logits and labels of held-out images.
        classes: Names of the classes.
        temperature: Fitted on other images; None if none was fitted.
    """
    num_images, num_classes = len(predictions), predictions.num_classes
    confusion = confusion_matrix(predictions.label_array, predictions.predicted_array, num_classes)
    balanced_accuracy, macro_f1 = class_means(confusion)
    top5_accuracy = None
    if num_classes >= MIN_CLASSES_FOR_TOP5:
        top5_accuracy = share(predictions.num_right_of_best(5), num_images)
    logits, labels = predictions.logits, predictions.labels
    scaled = None
    if temperature is not None:
        scaled = calibration(logits, labels, temperature=temperature)
    return DetailedMetrics(
        num_images=num_images,
        accuracy=share(int(confusion.trace()), num_images),
        top5_accuracy=top5_accuracy,
        balanced_accuracy=balanced_accuracy,
        macro_f1=macro_f1,
        classes=class_metrics(confusion, classes),
        confusion=confusion,
        calibration=calibration(logits, labels),
        scaled_calibration=scaled,
    )
