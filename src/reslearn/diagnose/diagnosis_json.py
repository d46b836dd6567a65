"""The result of a diagnosis as plain JSON values."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from reslearn.diagnose.answer import answer_lines
from reslearn.diagnose.diagnosis import Diagnosis
from reslearn.diagnose.findings import finding_json
from reslearn.diagnose.patch import Patch
from reslearn.diagnose.proof import Proof
from reslearn.diagnose.scores import MARGIN
from reslearn.diagnose.signals import LayerSignal
from reslearn.diagnose.trial import Trial
from reslearn.diagnose.verdict_rules import RULES


def diagnosis_json(
    diagnosis: Diagnosis, *, patch: Patch | None = None, command: Sequence[str] | None = None
) -> dict[str, Any]:
    """Return everything that `reslearn diagnose --json` prints; unknown numbers are None."""
    variants, scores = diagnosis.variants, diagnosis.scores
    return {
        "network": diagnosis.problem.name,
        "verdict": diagnosis.verdict.name,
        "subcause": diagnosis.verdict.subcause,
        "suspicion": diagnosis.verdict.suspicion,
        "because": diagnosis.verdict.reason,
        "certain": diagnosis.verdict.certain,
        "interrupted": diagnosis.interrupted,
        "margin": MARGIN,
        "answer": answer_lines(diagnosis, command),
        "findings": [finding_json(finding) for finding in diagnosis.screening.findings],
        "screening_failures": list(diagnosis.screening.failures),
        "conditions": {name: variant.description for name, variant in variants.by_name.items()},
        "notes": list(variants.notes),
        "layers": variants.num_layers,
        "layers_shallow": variants.num_layers_shallow,
        "left_out": list(variants.removed_blocks),
        "shortcuts_around": list(variants.shortcuts_around),
        "learning_rates": {name: choice.lr for name, choice in diagnosis.rates.items()},
        "train_scores": _lists(scores.train),
        "held_scores": _lists(scores.held_out),
        "held_scores_at_half": _lists(scores.held_at_half),
        "train_scores_at_half": _lists(scores.train_at_half),
        "neighbors_held_score": finite_or_none(scores.neighbors),
        "linear_train_score": finite_or_none(scores.linear),
        "gradient_ratio_at_start": finite_or_none(diagnosis.start.gradient_ratio),
        "dead_share_at_start": finite_or_none(diagnosis.start.dead_share),
        "layer_signals": {name: _layers(layers) for name, layers in diagnosis.layers.items()},
        "patch": None if patch is None else _patch(patch),
        "proof": None if diagnosis.proof is None else _proof(diagnosis.proof),
        "steps": diagnosis.steps,
        "trials": len(diagnosis.trials),
        "seconds": round(diagnosis.seconds, 1),
        "rules": [{"verdict": name, "when": when} for name, when in RULES],
    }


def finite_or_none(value: float | None) -> float | None:
    """Return `value`, or None if it is NaN or infinite, which JSON cannot hold."""
    return None if value is None or not math.isfinite(value) else value


def _lists(scores: Mapping[str, Sequence[float]]) -> dict[str, list[float]]:
    return {name: list(values) for name, values in scores.items()}


def _layers(layers: Sequence[LayerSignal]) -> list[dict[str, Any]]:
    return [
        {
            "name": layer.name,
            "response": finite_or_none(layer.response),
            "gradient": finite_or_none(layer.gradient),
        }
        for layer in layers
    ]


def _patch(patch: Patch) -> dict[str, Any]:
    return {
        "kind": patch.kind,
        "repair": patch.repair,
        "file": str(patch.path),
        "use": patch.use,
        "shortcuts_around": list(patch.shortcuts_around),
        "text": patch.text,
    }


def _proof(proof: Proof) -> dict[str, Any]:
    return {
        "repair": proof.repair,
        "repairs": list(proof.repairs),
        "seed": proof.before.seed,
        "before": _trial(proof.before),
        "after": _trial(proof.after),
        "gain": proof.gain,
        "helps": proof.helps,
    }


def _trial(trial: Trial) -> dict[str, Any]:
    return {
        "learning_rate": trial.lr,
        "train_score": trial.train_score,
        "held_score": trial.held_score,
        "curve": [[step, finite_or_none(score)] for step, score in trial.curve],
    }
