"""Accuracy, confusion matrix, and precision, recall and F1 of each class, with 95 % intervals.

Every share is a number of hits in a number of trials, so all intervals are exact binomial ones
(Clopper, Pearson 1934). The trials are:

- accuracy: all images,
- recall: the images of the class,
- precision: the images that were predicted as the class,
- F1: the images of the class, or predicted as the class. TP of these TP + FP + FN images are hits,
  and u is their share. F1 = 2 TP / (2 TP + FP + FN) = 2 u / (1 + u) rises with u. The ends of the
  interval of u therefore give the interval of F1 (Lam, Gopal, Qian 2023, arXiv 2309.14621).

A mean over classes is no such share. Its interval is a percentile bootstrap: the images of each
class are resampled with replacement.

Intervals describe other samples of images. They do not describe other seeds of the training.

Shapes: N images, K classes; labels and predictions int64 [N]; confusion matrix int64 [K, K].
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Integers = npt.NDArray[np.int64]
_NUM_RESAMPLES = 1000
_SEED = 0


@dataclass(frozen=True, kw_only=True)
class Share:
    """A share in percent with its 95 % interval.

    Attributes:
        pct: None if there are no trials, such as the recall of a class without images.
        low_pct: Lower end of the interval; None if there is none.
        high_pct: Upper end of the interval; None if there is none.
    """

    pct: float | None
    low_pct: float | None
    high_pct: float | None


@dataclass(frozen=True, kw_only=True)
class ClassMetrics:
    """Metrics of one class.

    Attributes:
        name: Name of the class.
        num_images: Number of images of the class.
        num_predicted: Number of images that were predicted as the class.
        num_right: Number of images of the class that were predicted as the class.
        precision: Share of the predicted images that are of the class.
        recall: Share of the images of the class that were predicted as such.
        f1: Harmonic mean of precision and recall.
    """

    name: str
    num_images: int
    num_predicted: int
    num_right: int
    precision: Share
    recall: Share
    f1: Share


def confusion_matrix(labels: Integers, predicted: Integers, num_classes: int) -> Integers:
    """Count the images by label (row) and prediction (column)."""
    flat = np.bincount(labels * num_classes + predicted, minlength=num_classes**2)
    return flat.reshape(num_classes, num_classes).astype(np.int64)


def share(num_hits: int, num_trials: int) -> Share:
    """Return a share with its exact binomial interval."""
    from reslearn.study import proportion

    if num_trials == 0:
        return Share(pct=None, low_pct=None, high_pct=None)
    interval = proportion(num_hits, num_trials)
    return Share(
        pct=100 * num_hits / num_trials,
        low_pct=100 * interval.low,
        high_pct=100 * interval.high,
    )


def f1_share(num_right: int, num_involved: int) -> Share:
    """Return F1 with its interval.

    Args:
        num_right: True positives.
        num_involved: True positives, false positives and false negatives.
    """
    involved = share(num_right, num_involved)
    if involved.pct is None:
        return involved
    assert involved.low_pct is not None and involved.high_pct is not None
    return Share(
        pct=_f1_pct(involved.pct),
        low_pct=_f1_pct(involved.low_pct),
        high_pct=_f1_pct(involved.high_pct),
    )


def class_metrics(confusion: Integers, classes: Sequence[str]) -> tuple[ClassMetrics, ...]:
    """Return the metrics of each class, in the order of `classes`."""
    num_images, num_predicted = confusion.sum(1).tolist(), confusion.sum(0).tolist()
    num_right = confusion.diagonal().tolist()
    metrics = []
    for name, images, predicted, right in zip(
        classes, num_images, num_predicted, num_right, strict=True
    ):
        metrics.append(
            ClassMetrics(
                name=name,
                num_images=images,
                num_predicted=predicted,
                num_right=right,
                precision=share(right, predicted),
                recall=share(right, images),
                f1=f1_share(right, images + predicted - right),
            )
        )
    return tuple(metrics)


def class_means(confusion: Integers) -> tuple[Share, Share]:
    """Return the means over classes of recall (balanced accuracy) and of F1 (macro F1).

    Classes without images are left out. If there is no mistake, resampling has nothing to draw, and
    there is no interval.
    """
    num_images = confusion.sum(1)
    occurs = num_images > 0
    recalls, f1s = _recall_and_f1(
        confusion.diagonal()[None], confusion.sum(0)[None], num_images, occurs
    )
    if not occurs.any():
        nothing = Share(pct=None, low_pct=None, high_pct=None)
        return nothing, nothing
    right, predicted = _resample(confusion)
    recall_draws, f1_draws = _recall_and_f1(right, predicted, num_images, occurs)
    return _with_percentiles(recalls, recall_draws), _with_percentiles(f1s, f1_draws)


def _resample(confusion: Integers) -> tuple[Integers, Integers]:
    """Draw the images of each class again; return right and predicted counts [R, K]."""
    random = np.random.default_rng(_SEED)
    num_classes = len(confusion)
    right = np.zeros((_NUM_RESAMPLES, num_classes), dtype=np.int64)
    predicted = np.zeros((_NUM_RESAMPLES, num_classes), dtype=np.int64)
    for label, row in enumerate(confusion):
        columns = np.flatnonzero(row)  # few, even if there are a thousand classes
        if not len(columns):
            continue
        counts = random.multinomial(row.sum(), row[columns] / row.sum(), size=_NUM_RESAMPLES)
        predicted[:, columns] += counts
        right[:, label] = counts[:, columns == label].sum(1)
    return right, predicted


def _recall_and_f1(
    right: Integers, predicted: Integers, num_images: Integers, occurs: npt.NDArray[np.bool_]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return the mean recall and the mean F1 of each row of counts [R, K], in percent."""
    right, predicted, num_images = right[:, occurs], predicted[:, occurs], num_images[occurs]
    recall = 100 * (right / num_images).mean(1)
    f1 = 100 * (2 * right / (num_images + predicted)).mean(1)
    return recall, f1


def _with_percentiles(value: npt.NDArray[np.float64], draws: npt.NDArray[np.float64]) -> Share:
    pct = float(value[0])
    if np.ptp(draws) == 0:
        return Share(pct=pct, low_pct=None, high_pct=None)
    low, high = np.percentile(draws, [2.5, 97.5]).tolist()
    return Share(pct=pct, low_pct=low, high_pct=high)


def _f1_pct(involved_pct: float) -> float:
    """Convert a share u of the involved images into F1 = 2 u / (1 + u), both in percent."""
    return 200 * involved_pct / (100 + involved_pct)
