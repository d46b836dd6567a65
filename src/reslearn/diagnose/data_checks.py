"""Screening of inputs and targets: NaN, scale, constant features, labels, copies and leaks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from reslearn.diagnose.findings import ScreeningFinding, counted
from reslearn.diagnose.problem import Problem

SCALE_LIMITS = (0.05, 20.0)
"""If the root mean square of the inputs lies outside, or their mean is more than 20 standard
deviations from 0, standardized inputs are tried too."""
CONSTANT_SHARE = 0.5
"""From this share of constant features on, there is a note. Scans have some at their edges."""
COPY_SHARE = 0.1
CONFLICT_SHARE = 0.05
LEAK_SHARE = 0.05
_MAX_COMPARED = 50_000_000
"""Number of values that are compared to find copies, at most."""


def data_fault(problem: Problem) -> str:
    """Describe what is wrong with the inputs; return an empty text if nothing is."""
    if not problem.inputs.is_floating_point():
        return ""
    for role, inputs in (("training", problem.inputs), ("held-out", problem.held_inputs)):
        is_bad = ~torch.isfinite(inputs.flatten(1)).all(1)
        if bool(is_bad.any()):
            number = counted(int(is_bad.sum()), f"{role} example")
            return (
                f"inputs are not finite: they hold NaN or infinity, in {number}. Replace or remove "
                "these values"
            )
    if float(problem.inputs.std(0).max()) == 0:
        return "inputs do not vary: all examples are the same"
    return ""


def input_scale(problem: Problem) -> tuple[float, float]:
    """Return the root mean square of the inputs, and their mean in standard deviations."""
    strength = float(problem.inputs.square().mean().sqrt())
    shift = float(problem.inputs.mean().abs() / problem.inputs.std().clamp_min(1e-12))
    return strength, shift


def has_bad_scale(problem: Problem) -> bool:
    """Return whether the inputs are far from mean 0 and standard deviation 1."""
    if not problem.inputs.is_floating_point():
        return False
    strength, shift = input_scale(problem)
    low, high = SCALE_LIMITS
    return not low < strength < high or shift > high


def data_findings(problem: Problem) -> list[ScreeningFinding]:
    """Find faults of inputs and targets that a network can be trained on."""
    findings = []
    if has_bad_scale(problem):
        findings.append(_scale_finding(problem))
    if problem.inputs.is_floating_point():
        findings += _constant_features(problem)
    if problem.task == "classification":
        findings += _label_findings(problem)
    findings += _copy_findings(problem)
    return findings


def _scale_finding(problem: Problem) -> ScreeningFinding:
    low, high = float(problem.inputs.min()), float(problem.inputs.max())
    strength, shift = input_scale(problem)
    change = "Standardize them in the data function: subtract the mean, divide by the deviation."
    if low >= 0 and 128 < high <= 255:
        change = "They look like pixels: divide them by 255 in the data function."
    elif not SCALE_LIMITS[0] < strength < SCALE_LIMITS[1]:
        change = f"Divide them by about {strength:.2g} in the data function, or standardize them."
    return ScreeningFinding(
        check="input scale",
        level="suspicion",
        causes=("data fault",),
        message=f"The inputs are not scaled: they go from {low:.3g} to {high:.3g}. {change}",
        evidence=f"Their root mean square is {strength:.3g} (usual: {SCALE_LIMITS[0]:g} to "
        f"{SCALE_LIMITS[1]:g}), and their mean is {shift:.2g} standard deviations from 0 (usual: "
        f"at most {SCALE_LIMITS[1]:g}).",
    )


def _constant_features(problem: Problem) -> list[ScreeningFinding]:
    features = problem.inputs.flatten(1)
    num_constant = int((features.amax(0) == features.amin(0)).sum())
    num_features = features.shape[1]
    if num_constant < CONSTANT_SHARE * num_features:
        return []
    return [
        ScreeningFinding(
            check="constant features",
            level="note",
            message="Most features are the same for all training examples. Is a file or a column "
            "missing?",
            evidence=f"{num_constant:,} of {counted(num_features, 'feature')} are constant.",
        )
    ]


def _label_findings(problem: Problem) -> list[ScreeningFinding]:
    """Find classes that do not occur between the first and the last, or only in held-out data."""
    labels = torch.cat([problem.targets, problem.held_targets])
    present = set(labels.tolist())
    num_classes = max(present) + 1
    absent = sorted(set(range(num_classes)) - present)
    findings = []
    if absent:
        change = "Number the classes 0, 1, ... without gaps."
        if absent == [0]:
            change = "Subtract 1 from the targets: classes are numbered from 0."
        findings.append(
            ScreeningFinding(
                check="labels",
                level="note",
                message=f"The targets are not the classes 0 to {num_classes - 1}. {change}",
                evidence=f"{_listed(absent)} never occur{'s' * (len(absent) == 1)}.",
            )
        )
    unlearned = sorted(set(problem.held_targets.tolist()) - set(problem.targets.tolist()))
    if unlearned:
        findings.append(
            ScreeningFinding(
                check="classes without training examples",
                level="note",
                message="Some classes have no training example. Give more examples of them, or "
                "leave them out.",
                evidence=f"{_listed(unlearned)} occur{'s' * (len(unlearned) == 1)} in held-out "
                "data only.",
            )
        )
    return findings


def _listed(labels: Sequence[int]) -> str:
    names = ", ".join(str(label) for label in labels[:5])
    if len(labels) > 5:
        names += f" and {len(labels) - 5} more"
    return f"Class{'es' * (len(labels) > 1)} {names}"


def _copy_findings(problem: Problem) -> list[ScreeningFinding]:
    """Find copies among the training examples, copies with other targets, and leaks."""
    targets_by_input: dict[int, set[int]] = {}
    num_compared = num_copies = num_conflicts = 0
    for key, target in zip(_row_keys(problem.inputs), _row_keys(problem.targets), strict=False):
        num_compared += 1
        targets = targets_by_input.setdefault(key, set())
        num_copies += bool(targets)
        num_conflicts += bool(targets - {target})
        targets.add(target)
    held_keys = list(_row_keys(problem.held_inputs))
    num_leaks = sum(key in targets_by_input for key in held_keys)
    findings = []
    if num_conflicts >= CONFLICT_SHARE * num_compared:
        findings.append(
            _copy_note(
                "conflicting copies",
                "Equal inputs have different targets, so the training loss cannot fall to 0. Are "
                "the targets in the order of the inputs?",
                f"{num_conflicts:,} of {counted(num_compared, 'training example')} repeat an input "
                "with another target.",
            )
        )
    elif num_copies >= COPY_SHARE * num_compared:
        findings.append(
            _copy_note(
                "copies",
                "Many training examples are copies. Remove them, or count them once.",
                f"{num_copies:,} of {counted(num_compared, 'training example')} repeat an earlier "
                "one.",
            )
        )
    if num_leaks >= LEAK_SHARE * len(held_keys):
        findings.append(
            _copy_note(
                "shared examples",
                "Training and held-out data share examples, so held-out losses are too low. Remove "
                "copies before the data are split.",
                f"{num_leaks:,} of {counted(len(held_keys), 'held-out example')} occur in the "
                "training data.",
            )
        )
    return findings


def _copy_note(check: str, message: str, evidence: str) -> ScreeningFinding:
    return ScreeningFinding(check=check, level="note", message=message, evidence=evidence)


def _row_keys(values: Tensor) -> Iterable[int]:
    """Yield a hash of each row, for as many rows as are compared."""
    rows = values.flatten(1) if values.ndim > 1 else values[:, None]
    num_rows = max(1, _MAX_COMPARED // max(1, rows.shape[1]))
    for row in rows[:num_rows].contiguous().numpy():
        yield hash(row.tobytes())
