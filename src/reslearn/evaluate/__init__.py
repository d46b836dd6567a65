"""Networks and images to numbers: loss and error, the paper's protocols, and batch-norm statistics recomputed on images of one's choice."""

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
