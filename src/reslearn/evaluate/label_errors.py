"""Suspected label errors, by the rule of confident learning (Northcutt, Jiang, Chuang 2021).

The rule (arXiv 1911.00068, Sec. 3.1): the threshold of a class is the mean probability that the
network gives this class over the images with this label. A class is a confident class of an image
if its probability reaches the threshold. The label of an image is suspected if the most probable of
its confident classes is another class. Suspects are sorted by the probability of that class minus
the probability of the label.

The images must be held out: a network that was trained on a wrong label has learned it.

Shapes: N images, K classes; probabilities float32 [N, K], labels int64 [N].
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float32, Int64
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class SuspectedLabel:
    """One image whose label may be wrong.

    Attributes:
        image: Index of the image.
        label: The class that the data name.
        suggestion: The class that the network is confident of.
        label_pct: Probability of the label.
        suggestion_pct: Probability of the suggestion.
    """

    image: int
    label: int
    suggestion: int
    label_pct: float
    suggestion_pct: float


def suspected_labels(
    probabilities: Float32[Tensor, "n k"], labels: Int64[Tensor, n]
) -> list[SuspectedLabel]:
    """Return the images whose labels are suspected, the most suspicious first."""
    thresholds = class_thresholds(probabilities, labels)
    candidates = probabilities.masked_fill(probabilities < thresholds, -1.0)
    best = candidates.max(1)
    is_suspected = (best.values >= 0) & (best.indices != labels)
    suspects = []
    for image in torch.nonzero(is_suspected)[:, 0].tolist():
        label, suggestion = int(labels[image]), int(best.indices[image])
        suspects.append(
            SuspectedLabel(
                image=image,
                label=label,
                suggestion=suggestion,
                label_pct=100 * float(probabilities[image, label]),
                suggestion_pct=100 * float(probabilities[image, suggestion]),
            )
        )
    return sorted(suspects, key=lambda suspect: suspect.label_pct - suspect.suggestion_pct)


def class_thresholds(
    probabilities: Float32[Tensor, "n k"], labels: Int64[Tensor, n]
) -> Float32[Tensor, k]:
    """Return the mean probability of each class over its images; infinity without images."""
    num_classes = probabilities.shape[1]
    of_label = probabilities.gather(1, labels[:, None])[:, 0].double()
    sums = torch.zeros(num_classes, dtype=torch.float64).index_add_(0, labels, of_label)
    counts = labels.bincount(minlength=num_classes)
    means = sums / counts.clamp_min(1)
    return means.masked_fill(counts == 0, float("inf")).float()
