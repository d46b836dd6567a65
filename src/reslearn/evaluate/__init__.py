"""A network and batches to numbers: loss and error, and batch-norm statistics recomputed on images of one's choice."""

from reslearn.evaluate.batch_norm import recompute_batch_norm
from reslearn.evaluate.metrics import Metrics, evaluate

__all__ = ["Metrics", "evaluate", "recompute_batch_norm"]
