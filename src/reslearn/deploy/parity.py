"""The parity gate: an exported file must give the answers of the network that it was made from.

The reference is `Predictor` with the network in PyTorch: it is what `reslearn evaluate` measured.
Two answers of the file are compared with it. "file" feeds it by hand, one picture at a time, as a
program without reslearn does. "served" is what `reslearn serve` with the file answers over HTTP, in
batches.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from reslearn.deploy.engines import Probabilities

Labels = npt.NDArray[np.int64]
# Rounding of decimal numbers is no disagreement.
_EPSILON = 1e-9
# Largest loss of accuracy of the int8 form, in percentage points. One image is always allowed.
INT8_ACCURACY_POINTS = 1.0


@dataclass(frozen=True, kw_only=True)
class Parity:
    """The difference between two sets of answers for the same pictures.

    Attributes:
        num_images: Number of pictures.
        largest_difference: The largest difference of one probability.
        num_different: Pictures with another top-1 class.
        num_wrong: Those of them where the reference is certain: its first two probabilities differ
            by more than the tolerance.
        num_ties: Pictures where the reference is not certain.
        accuracy_pct: Accuracy of the compared answers; None without labels.
        reference_accuracy_pct: Accuracy of the reference; None without labels.
        problems: Why the answers do not agree. Empty if they agree.
    """

    num_images: int
    largest_difference: float
    num_different: int
    num_wrong: int
    num_ties: int
    accuracy_pct: float | None
    reference_accuracy_pct: float | None
    problems: tuple[str, ...]


def compare(
    reference: Probabilities,
    answers: Probabilities,
    *,
    tolerance: float,
    labels: Labels | None = None,
    accuracy_points: float = 0.0,
) -> Parity:
    """Compare answers with the reference, both [N, K].

    They agree if no probability differs by more than `tolerance`. The top-1 class must also be the
    same wherever the margin of the reference exceeds it. No more answers may be lost than are ties.

    Args:
        reference: Probabilities of the network in PyTorch.
        answers: Probabilities of the exported file.
        tolerance: Largest difference of a probability that is allowed.
        labels: True classes [N], if they are known.
        accuracy_points: Largest allowed loss of accuracy, in percentage points. 0 allows ties only.

    Raises:
        ValueError: If the shapes differ.
    """
    if reference.shape != answers.shape:
        raise ValueError(
            f"the reference has shape {reference.shape}, the answers have {answers.shape}"
        )
    is_different = answers.argmax(1) != reference.argmax(1)
    is_tie = _margins(reference) <= tolerance + _EPSILON
    accuracy = _accuracy_pct(answers, labels)
    reference_accuracy = _accuracy_pct(reference, labels)
    is_finite = bool(np.isfinite(answers).all())
    largest = float(np.abs(answers - reference).max()) if is_finite else float("inf")
    problems = []
    if not is_finite:
        problems.append("a probability is NaN or infinite")
    elif largest > tolerance + _EPSILON:
        problems.append(f"a probability differs by {largest:.2g}, and the tolerance is {tolerance}")
    num_wrong = int((is_different & ~is_tie).sum())
    if num_wrong:
        problems.append(
            f"{num_wrong} of {len(answers)} pictures have another class, although the margin "
            "exceeds the tolerance"
        )
    if accuracy is not None and reference_accuracy is not None:
        tie_points, image_points = (100 * count / len(answers) for count in (is_tie.sum(), 1))
        points = max(accuracy_points, image_points) if accuracy_points else tie_points
        if reference_accuracy - accuracy > points + _EPSILON:
            problems.append(f"the accuracy is {accuracy:.2f} %, not {reference_accuracy:.2f} %")
    return Parity(
        num_images=len(answers),
        largest_difference=largest,
        num_different=int(is_different.sum()),
        num_wrong=num_wrong,
        num_ties=int(is_tie.sum()),
        accuracy_pct=accuracy,
        reference_accuracy_pct=reference_accuracy,
        problems=tuple(problems),
    )


def _margins(probabilities: Probabilities) -> Probabilities:
    """Return the difference of the first two probabilities of each picture [N]."""
    ordered = np.sort(probabilities, axis=1)
    margins: Probabilities = ordered[:, -1] - ordered[:, -2]
    return margins


def _accuracy_pct(probabilities: Probabilities, labels: Labels | None) -> float | None:
    if labels is None:
        return None
    return 100 * float((probabilities.argmax(1) == labels).mean())
