"""Screening of inputs and targets, on both sides of each limit."""

import math
from typing import Any

import pytest
import torch
from torch import nn

from reslearn.diagnose import make_problem
from reslearn.diagnose.data_checks import (
    CONFLICT_SHARE,
    CONSTANT_SHARE,
    COPY_SHARE,
    LEAK_SHARE,
    SCALE_LIMITS,
)
from reslearn.diagnose.findings import ScreeningFinding
from reslearn.diagnose.screening import screen

torch.manual_seed(0)
X = torch.randn(500, 10)
Y = torch.arange(500) % 4


def findings(inputs: torch.Tensor, targets: torch.Tensor = Y) -> dict[str, ScreeningFinding]:
    """Return the findings on a healthy network by check."""

    def build() -> nn.Module:
        return nn.Sequential(nn.BatchNorm1d(10), nn.Linear(10, 12), nn.ReLU(), nn.Linear(12, 6))

    screening = screen(make_problem(build, (inputs, targets)))
    assert not screening.failures
    return {finding.check: finding for finding in screening.findings}


def test_usual_data_have_no_finding() -> None:
    assert not findings(X)


@pytest.mark.parametrize(
    ("factor", "offset", "is_bad"),
    [
        (SCALE_LIMITS[0] * 1.1, 0.0, False),
        (SCALE_LIMITS[0] * 0.9, 0.0, True),
        (SCALE_LIMITS[1] * 0.9, 0.0, False),
        (SCALE_LIMITS[1] * 1.1, 0.0, True),
        (0.1, 0.1 * SCALE_LIMITS[1] * 0.9, False),
        (0.1, 0.1 * SCALE_LIMITS[1] * 1.1, True),
    ],
)
def test_the_scale_of_the_inputs(factor: float, offset: float, is_bad: bool) -> None:
    inputs = (X - X.mean()) / X.std() * factor + offset
    scale = findings(inputs).get("input scale")
    assert (scale is not None) == is_bad
    assert scale is None or scale.level == "suspicion"


@pytest.mark.parametrize(("highest", "advice"), [(255.0, "divide them by 255"), (90.0, "Divide")])
def test_pixels_are_recognized_by_their_range(highest: float, advice: str) -> None:
    pixels = torch.rand(500, 10) * highest
    pixels[0, 0] = highest
    assert advice in findings(pixels)["input scale"].message


def test_examples_that_are_not_finite_are_counted() -> None:
    inputs = X.clone()
    inputs[torch.arange(0, 500, 50), 3] = math.nan
    finding = findings(inputs)["inputs"]
    assert finding.level == "proof" and finding.causes == ("data fault",)
    assert "Inputs are not finite" in finding.message


@pytest.mark.parametrize("num_constant", [4, 5])
def test_constant_features(num_constant: int) -> None:
    inputs = X.clone()
    inputs[:, :num_constant] = 1.0
    is_noted = num_constant >= CONSTANT_SHARE * 10
    assert ("constant features" in findings(inputs)) == is_noted


@pytest.mark.parametrize(
    ("targets", "words"),
    [
        (Y, ""),
        (Y + 1, "Subtract 1 from the targets"),
        (Y + (Y > 1), "without gaps"),
    ],
)
def test_labels_are_numbered_without_gaps(targets: torch.Tensor, words: str) -> None:
    labels = findings(X, targets).get("labels")
    assert (labels is not None) == bool(words)
    assert labels is None or (words in labels.message and labels.level == "note")


def test_a_class_without_training_examples_is_noted() -> None:
    problem = make_problem(lambda: nn.Linear(10, 5), (X, Y))
    problem.held_targets[0] = 4
    checks = {finding.check: finding for finding in screen(problem).findings}
    assert "Class 4 occurs in held-out data only" in (
        checks["classes without training examples"].evidence
    )


def copied(num_copies: int, *, with_targets: bool) -> Any:
    """Return a problem in which the first training examples occur twice, under any target."""
    problem = make_problem(lambda: nn.Linear(10, 4), (X, Y))
    copies = slice(num_copies, 2 * num_copies)
    problem.inputs[copies] = problem.inputs[:num_copies]
    other = 0 if with_targets else 1
    problem.targets[copies] = (problem.targets[:num_copies] + other) % 4
    return problem


@pytest.mark.parametrize(
    ("share", "with_targets", "check"),
    [
        (1.05 * COPY_SHARE, True, "copies"),
        (0.95 * COPY_SHARE, True, ""),
        (1.05 * CONFLICT_SHARE, False, "conflicting copies"),
        (0.95 * CONFLICT_SHARE, False, ""),
    ],
)
def test_copies_among_the_training_examples(share: float, with_targets: bool, check: str) -> None:
    problem = copied(round(share * 400), with_targets=with_targets)
    checks = [finding.check for finding in screen(problem).findings]
    assert checks == ([check] if check else [])


@pytest.mark.parametrize("num_shared", [4, 5])
def test_examples_that_are_in_both_sets(num_shared: int) -> None:
    problem = make_problem(lambda: nn.Linear(10, 4), (X, Y))
    problem.held_inputs[:num_shared] = problem.inputs[:num_shared]
    checks = [finding.check for finding in screen(problem).findings]
    is_noted = num_shared >= LEAK_SHARE * len(problem.held_inputs)
    assert checks == (["shared examples"] if is_noted else [])
