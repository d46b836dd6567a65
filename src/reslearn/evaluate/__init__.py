"""Evaluation: loss and error, the paper's test protocols, and recomputed batch-norm statistics."""

from reslearn.evaluate.batch_norm import recompute_batch_norm
from reslearn.evaluate.metrics import Metrics, evaluate
from reslearn.evaluate.protocols import Protocol, metrics_of_scores, scores, views

__all__ = [
    "Metrics",
    "Protocol",
    "evaluate",
    "metrics_of_scores",
    "recompute_batch_norm",
    "scores",
    "views",
]
