"""Evaluation: metrics with intervals, calibration, suspected labels, the paper's test protocols."""

from reslearn.evaluate.batch_norm import recompute_batch_norm
from reslearn.evaluate.calibration import Calibration, calibration, fit_temperature
from reslearn.evaluate.class_metrics import (
    ClassMetrics,
    Share,
    class_means,
    class_metrics,
    confusion_matrix,
    f1_share,
    share,
)
from reslearn.evaluate.detailed_metrics import DetailedMetrics, detailed_metrics
from reslearn.evaluate.label_errors import SuspectedLabel, suspected_labels
from reslearn.evaluate.metrics import Metrics, evaluate
from reslearn.evaluate.predictions import Predictions, most_confident_mistakes, predict
from reslearn.evaluate.protocols import Protocol, metrics_of_scores, scores, views
from reslearn.evaluate.robustness import Robustness, robustness
from reslearn.evaluate.task import EvaluationTask, select

__all__ = [
    "Calibration",
    "ClassMetrics",
    "DetailedMetrics",
    "EvaluationTask",
    "Metrics",
    "Predictions",
    "Protocol",
    "Robustness",
    "Share",
    "SuspectedLabel",
    "calibration",
    "class_means",
    "class_metrics",
    "confusion_matrix",
    "detailed_metrics",
    "evaluate",
    "f1_share",
    "fit_temperature",
    "metrics_of_scores",
    "most_confident_mistakes",
    "predict",
    "recompute_batch_norm",
    "robustness",
    "scores",
    "select",
    "share",
    "suspected_labels",
    "views",
]
