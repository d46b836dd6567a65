"""Checks that need no training: faults of the data, and variants that data or start suggest."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from reslearn.diagnose.problem import Problem
from reslearn.diagnose.signals import Signals
from reslearn.diagnose.trial import WORST_SCORE
from reslearn.diagnose.variant import Variant, initialized, standardized
from reslearn.diagnose.verdict import GRADIENT_RATIO

SCALE_LIMITS = (0.05, 20.0)
"""If the root mean square of the inputs lies outside, or their mean is more than 20 standard
deviations from 0, standardized inputs are tried too."""
MANY_DEAD = 0.4
"""From this share of dead units on, another initialization is tried too."""
NUM_NEIGHBORS = 10


def data_fault(problem: Problem) -> str:
    """Describe what is wrong with the inputs; return an empty text if nothing is."""
    if not problem.inputs.is_floating_point():
        return ""
    if not (torch.isfinite(problem.inputs).all() and torch.isfinite(problem.held_inputs).all()):
        return "inputs are not finite: they hold NaN or infinity"
    if float(problem.inputs.std(0).max()) == 0:
        return "inputs do not vary: all examples are the same"
    return ""


def suggested_variants(
    problem: Problem, start: Signals, response_ratio: float | None
) -> dict[str, Variant]:
    """Return the variants that the inputs, or the signals at the start, suggest."""
    variants = []
    if problem.inputs.is_floating_point():
        low, high = SCALE_LIMITS
        strength = float(problem.inputs.square().mean().sqrt())
        shift = float(problem.inputs.mean().abs() / problem.inputs.std().clamp_min(1e-12))
        if not low < strength < high or shift > high:
            variants.append(standardized(problem))
    ratios = [ratio for ratio in (start.gradient_ratio, response_ratio) if ratio is not None]
    is_dead = start.dead_share is not None and start.dead_share >= MANY_DEAD
    if is_dead or any(not 1 / GRADIENT_RATIO < ratio < GRADIENT_RATIO for ratio in ratios):
        variants.append(initialized(problem))
    return {variant.name: variant for variant in variants}


def nearest_neighbor_score(problem: Problem) -> float:
    """Return the held-out score of ten nearest neighbors on standardized inputs.

    A good score shows that there is something to learn. The loss is cross-entropy or mean squared
    error, whatever the user's loss is, because means are no good answers to some losses.
    """
    from sklearn.preprocessing import StandardScaler

    x, y = problem.inputs[:4000].flatten(1).numpy(), problem.targets[:4000]
    held_inputs = problem.held_inputs[:1000].flatten(1).numpy()
    answers = problem.held_targets[:1000]
    scaler = StandardScaler().fit(x)
    x, held_inputs = scaler.transform(x), scaler.transform(held_inputs)
    if problem.task == "regression":
        outputs = _neighbor_means(x, y, held_inputs).view_as(answers)
        guesses = problem.targets.mean(0).expand_as(answers)
        loss = functional.mse_loss(outputs, answers)
        guess_loss = functional.mse_loss(guesses, answers)
    else:
        num_classes = int(max(problem.targets.max(), problem.held_targets.max())) + 1
        counts = torch.bincount(problem.targets, minlength=num_classes)
        frequencies = (counts.float() / len(problem.targets)).clamp_min(1e-6).log()
        guess_loss = functional.cross_entropy(frequencies.expand(len(answers), -1), answers)
        shares = _neighbor_shares(x, y, held_inputs, num_classes)
        loss = functional.nll_loss((shares / shares.sum(1, keepdim=True)).log(), answers)
    return min(WORST_SCORE, float(loss / guess_loss.clamp_min(1e-12)))


def _neighbor_means(x: object, y: Tensor, held_inputs: object) -> Tensor:
    from sklearn.neighbors import KNeighborsRegressor

    model = KNeighborsRegressor(min(NUM_NEIGHBORS, len(y)))
    model.fit(x, y.flatten(1) if y.ndim > 1 else y)
    return torch.as_tensor(model.predict(held_inputs), dtype=torch.float32)


def _neighbor_shares(x: object, y: Tensor, held_inputs: object, num_classes: int) -> Tensor:
    """Return the smoothed share [N, K] of each class among the neighbors.

    A class that no neighbor has is unlikely, not impossible.
    """
    from sklearn.neighbors import KNeighborsClassifier

    number = min(NUM_NEIGHBORS, len(y))
    model = KNeighborsClassifier(number).fit(x, y)
    shares = torch.full((len(held_inputs), num_classes), 0.5 / number)  # type: ignore[arg-type]
    probabilities = torch.as_tensor(model.predict_proba(held_inputs), dtype=torch.float32)
    shares[:, torch.as_tensor(model.classes_)] += probabilities
    return shares
