"""What is seen before anything is trained: whether the data can be learned from at all, and which conditions data and start suggest."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn import functional

from reslearn.diagnose.conditions import Variant, initialized, standardized
from reslearn.diagnose.problem import Problem
from reslearn.diagnose.trial import WORST_SCORE, Signals
from reslearn.diagnose.verdict import GRADIENT_RATIO

SCALE_LIMITS = (0.05, 20.0)
"""Inputs whose root mean square, or mean over deviation, lies outside are tried standardized too."""
_MANY_DEAD = 0.4


def fault_of_data(problem: Problem) -> str:
    """What is plainly wrong with the data, without any training."""
    if not problem.inputs.is_floating_point():
        return ""
    if not (torch.isfinite(problem.inputs).all() and torch.isfinite(problem.held_inputs).all()):
        return "inputs are not finite: nan or infinity among them"
    return (
        "inputs do not vary: every example is the same"
        if float(problem.inputs.std(0).max()) == 0
        else ""
    )


def suggested(problem: Problem, start: Signals, response_ratio: float | None) -> dict[str, Variant]:
    """Conditions by name for which something about the data, or the network's start, speaks."""
    made = []
    if problem.inputs.is_floating_point():
        strength = float(problem.inputs.square().mean().sqrt())
        shift = float(problem.inputs.mean().abs() / problem.inputs.std().clamp_min(1e-12))
        if not SCALE_LIMITS[0] < strength < SCALE_LIMITS[1] or shift > SCALE_LIMITS[1]:
            made.append(standardized(problem))
    ratios = [ratio for ratio in (start.gradient_ratio, response_ratio) if ratio is not None]
    is_dead = start.dead_share is not None and start.dead_share >= _MANY_DEAD
    if is_dead or any(not 1 / GRADIENT_RATIO < ratio < GRADIENT_RATIO for ratio in ratios):
        made.append(initialized(problem))
    return {condition.name: condition for condition in made}


def neighbors(problem: Problem) -> float:
    """Held-out score of ten nearest neighbors on standardized inputs: says that there is something to learn, whoever learns it.

    By cross-entropy or mean square, whatever the user's loss is: means are no answers to every loss.
    """
    from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor
    from sklearn.preprocessing import StandardScaler

    x, y = problem.inputs[:4000].flatten(1).numpy(), problem.targets[:4000]
    held, answers = problem.held_inputs[:1000].flatten(1).numpy(), problem.held_targets[:1000]
    scaler = StandardScaler().fit(x)
    number = min(10, len(x))
    if problem.task == "regression":
        model: Any = KNeighborsRegressor(number).fit(
            scaler.transform(x), y.flatten(1) if y.ndim > 1 else y
        )
        outputs = torch.as_tensor(
            model.predict(scaler.transform(held)), dtype=torch.float32
        ).view_as(answers)
        loss, guess = (
            functional.mse_loss(outputs, answers),
            functional.mse_loss(problem.targets.mean(0).expand_as(answers), answers),
        )
    else:
        model = KNeighborsClassifier(number).fit(scaler.transform(x), y)
        width = int(max(problem.targets.max(), problem.held_targets.max())) + 1
        frequencies = torch.bincount(problem.targets, minlength=width).float() / len(
            problem.targets
        )
        guess = functional.cross_entropy(
            frequencies.clamp_min(1e-6).log().expand(len(answers), -1), answers
        )
        shares = torch.full(
            (len(answers), width), 0.5 / number
        )  # a class that no neighbor has is unlikely, not impossible
        shares[:, torch.as_tensor(model.classes_)] += torch.as_tensor(
            model.predict_proba(scaler.transform(held)), dtype=torch.float32
        )
        loss = functional.nll_loss((shares / shares.sum(1, keepdim=True)).log(), answers)
    return min(WORST_SCORE, float(loss / guess.clamp_min(1e-12)))
