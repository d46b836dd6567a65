"""Calibration: are 90 % of the predictions with 90 % confidence right? (Guo et al. 2017.)

Source: arXiv 1706.04599. The confidence of a prediction is the greatest softmax probability. Images
are sorted by confidence and divided into bins of equal size. The expected calibration error (ECE)
is the mean of |accuracy - mean confidence| over bins. Bins of equal mass have less bias than bins
of equal width (Nixon et al. 2019, arXiv 1904.01685).

A sample of a perfectly calibrated network also has an ECE above zero, because the accuracy of few
images varies. `chance_ece_pct` is the 95th percentile of this ECE: labels are drawn from the
confidences (Broecker, Smith 2007). An ECE below it is no evidence of miscalibration, and its
interval begins at 0. Otherwise the interval is a basic bootstrap, which reflects the resampled
values about the estimate and so corrects their bias. In simulations of 300 to 5,000 images the
interval holds the true ECE in 85 to 97 % of the samples, a percentile bootstrap in 0 to 95 %.

Temperature scaling divides the logits by one number T. It does not change a prediction. T is fitted
on validation images, never on test images.

Shapes: N images, K classes; logits float [N, K].
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor

from reslearn.evaluate.class_metrics import Share, share

Floats = npt.NDArray[np.float64]

NUM_BINS = 15
MIN_IMAGES_PER_BIN = 50
MIN_IMAGES_TO_FIT = 50
"""With fewer validation images the temperature is too uncertain to be used."""
LIKELIHOOD_RATIO = 3.84
"""95th percentile of twice the fall of the loss, summed over images, if the best temperature is 1.

It is the chi-squared distribution with one degree of freedom (Wilks 1938).
"""
LOWEST_TEMPERATURE, HIGHEST_TEMPERATURE = 0.05, 20.0
_NUM_RESAMPLES = 1000
_SEED = 0


@dataclass(frozen=True, kw_only=True)
class ReliabilityBin:
    """Images of similar confidence: their number, mean confidence and accuracy."""

    num_images: int
    mean_confidence_pct: float
    accuracy: Share


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """Calibration at one temperature.

    Attributes:
        temperature: The logits were divided by it.
        loss: Cross entropy in nats.
        mean_confidence_pct: Mean confidence; above the accuracy, the network is overconfident.
        ece: Expected calibration error with its basic bootstrap interval.
        chance_ece_pct: 95th percentile of the ECE of a perfectly calibrated network.
        bins: The reliability diagram, from the least to the most confident images.
    """

    temperature: float
    loss: float
    mean_confidence_pct: float
    ece: Share
    chance_ece_pct: float
    bins: tuple[ReliabilityBin, ...]


def calibration(
    logits: Float[Tensor, "n k"], labels: Int64[Tensor, n], *, temperature: float = 1.0
) -> Calibration:
    """Measure calibration on images that the temperature was not fitted on.

    Raises:
        ValueError: If there are no images.
    """
    if not len(labels):
        raise ValueError("there are no images to measure calibration on")
    log_probabilities = (logits.double() / temperature).log_softmax(1)
    best = log_probabilities.max(1)
    confidences = best.values.exp().numpy()
    is_right = (best.indices == labels).numpy()
    loss = float(-log_probabilities.gather(1, labels[:, None]).mean())
    order = np.argsort(confidences, kind="stable")
    confidences, is_right = confidences[order], is_right[order].astype(np.float64)
    parts = np.array_split(np.arange(len(labels)), num_bins(len(labels)))
    starts = np.array([part[0] for part in parts])
    chance_ece_pct = _chance_ece_pct(confidences, starts)
    return Calibration(
        temperature=temperature,
        loss=loss,
        mean_confidence_pct=100 * float(confidences.mean()),
        ece=_ece_with_interval(confidences, is_right, starts, chance_ece_pct),
        chance_ece_pct=chance_ece_pct,
        bins=tuple(_bin(confidences[part], is_right[part]) for part in parts),
    )


def num_bins(num_images: int) -> int:
    """Return 15, or fewer if a bin would have fewer than 50 images."""
    return max(1, min(NUM_BINS, num_images // MIN_IMAGES_PER_BIN))


def fit_temperature(
    logits: Float[Tensor, "n k"],
    labels: Int64[Tensor, n],
    *,
    total: Callable[[Tensor], Tensor] = lambda values: values,
) -> float | None:
    """Return the temperature with the lowest cross entropy, rounded to four digits.

    The cross entropy is convex in 1 / T, so its derivative has at most one root, which bisection
    finds.

    Args:
        logits: Logits of validation images, at temperature 1.
        labels: Labels of these images.
        total: Adds sums over the processes that hold other images of the same set.

    Returns:
        None if the probabilities are better as they are: with fewer than 50 images; if the loss
        falls no more than by chance (likelihood ratio, 5 %); or if the best temperature is not
        between 0.05 and 20, for example if every prediction is right, so that more confidence
        always pays.
    """
    logits = logits.double()
    count = float(total(logits.new_tensor([len(labels)], device=logits.device))[0])
    if count < MIN_IMAGES_TO_FIT:
        return None

    def slope(inverse: float) -> float:
        """Return the derivative of the mean cross entropy with respect to 1 / T."""
        probabilities = (logits * inverse).softmax(1)
        expected = (probabilities * logits).sum(1)
        actual = logits.gather(1, labels[:, None])[:, 0]
        return float(total((expected - actual).sum()[None])[0]) / count

    low, high = 1 / HIGHEST_TEMPERATURE, 1 / LOWEST_TEMPERATURE
    if slope(low) >= 0 or slope(high) <= 0:
        return None
    for _ in range(40):  # halves the interval each time: 1e-11 at the end
        middle = (low + high) / 2
        low, high = (middle, high) if slope(middle) < 0 else (low, middle)
    best = (low + high) / 2
    losses = torch.stack([F.cross_entropy(logits * x, labels, reduction="sum") for x in (1, best)])
    loss, best_loss = total(losses).tolist()
    # A NaN fails the comparison, too.
    return float(f"{1 / best:.4g}") if 2 * (loss - best_loss) > LIKELIHOOD_RATIO else None


def _bin(confidences: Floats, is_right: Floats) -> ReliabilityBin:
    return ReliabilityBin(
        num_images=len(confidences),
        mean_confidence_pct=100 * float(confidences.mean()),
        accuracy=share(int(is_right.sum()), len(is_right)),
    )


def _ece_pct(confidences: Floats, is_right: Floats, starts: npt.NDArray[np.int64]) -> float:
    """Return the ECE of sorted images; `starts` are the first images of the bins."""
    gaps = np.add.reduceat(is_right - confidences, starts)
    return 100 * float(np.abs(gaps).sum()) / len(confidences)


def _ece_with_interval(
    confidences: Floats, is_right: Floats, starts: npt.NDArray[np.int64], chance_ece_pct: float
) -> Share:
    ece_pct = _ece_pct(confidences, is_right, starts)
    random = np.random.default_rng(_SEED)
    draws = []
    for _ in range(_NUM_RESAMPLES):
        index = np.sort(random.integers(0, len(confidences), len(confidences)))
        draws.append(_ece_pct(confidences[index], is_right[index], starts))
    low, high = np.percentile(draws, [2.5, 97.5]).tolist()
    return Share(
        pct=ece_pct,
        low_pct=0.0 if ece_pct <= chance_ece_pct else max(0.0, 2 * ece_pct - high),
        high_pct=min(100.0, max(0.0, 2 * ece_pct - low)),
    )


def _chance_ece_pct(confidences: Floats, starts: npt.NDArray[np.int64]) -> float:
    random = np.random.default_rng(_SEED)
    draws = []
    for _ in range(_NUM_RESAMPLES):
        is_right = (random.random(len(confidences)) < confidences).astype(np.float64)
        draws.append(_ece_pct(confidences, is_right, starts))
    return float(np.percentile(draws, 95))
