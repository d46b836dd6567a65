"""Linear probes: what a linear classifier can read from each stage.

Sec. 1 states that levels of features are "enriched by the number of stacked layers". The output of
each stage is averaged over positions, as in the head of the network, and standardized. Principal
components of the training images reduce all stages to the same dimension: otherwise a wide stage
would win by its width. Then logistic regression predicts the class. Positions are averaged on
purpose: a grid of positions would give the probe of the stem almost the whole image.

Shapes: output of a stage [B, C, H, W]; features [B, D], with the same D for all stages.
"""

import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from reslearn.models import Network

Features = npt.NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class StageProbe:
    """Probe of one stage.

    Attributes:
        stage: Name of the stage.
        dimension: Number of principal components.
        train_error_pct: Error on the images that the probe was fitted to, in percent.
        test_error_pct: Error on images that neither probe nor network was fitted to, in percent.
    """

    stage: str
    dimension: int
    train_error_pct: float
    test_error_pct: float


def probes(
    net: Network,
    train: Iterable[tuple[Tensor, Tensor]],
    test: Iterable[tuple[Tensor, Tensor]],
    *,
    dimension: int = 16,
    seed: int = 0,
) -> list[StageProbe]:
    """Fit a probe to each stage of a network, in order.

    Args:
        net: Runs in evaluation mode.
        train: Images and labels that the probes are fitted to.
        test: Images and labels of the test error.
        dimension: Number of components. The narrowest stage limits the dimension of all stages.
        seed: Seed of randomized components.

    Raises:
        ValueError: If `dimension` is below 1, or there are fewer than two classes.
    """
    if dimension < 1:
        raise ValueError(f"dimension = {dimension}: it must be at least 1")
    train_features, train_labels = _features(net, train)
    test_features, test_labels = _features(net, test)
    common = min(dimension, *(min(features.shape) for features in train_features.values()))
    return [
        _probe(
            stage,
            (features, train_labels),
            (test_features[stage], test_labels),
            dimension=common,
            seed=seed,
        )
        for stage, features in train_features.items()
    ]


@torch.no_grad()
def _features(
    net: Network, batches: Iterable[tuple[Tensor, Tensor]]
) -> tuple[dict[str, Features], npt.NDArray[np.int64]]:
    """Return the features of each stage, [N, C], and the labels, [N]."""
    was_training = net.training
    net.eval()
    parts: dict[str, list[Tensor]] = {}
    labels = []
    for x, y in batches:
        for stage, output in net.stages(x).items():
            parts.setdefault(stage, []).append(output.mean(dim=(2, 3)))
        labels.append(y)
    net.train(was_training)
    if not labels:
        raise ValueError("no images: at least one is needed to fit a probe")
    features = {stage: torch.cat(outputs).numpy() for stage, outputs in parts.items()}
    return features, torch.cat(labels).numpy()


def _probe(
    stage: str,
    train: tuple[Features, Any],
    test: tuple[Features, Any],
    *,
    dimension: int,
    seed: int,
) -> StageProbe:
    from sklearn.decomposition import PCA
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    classifier = make_pipeline(
        StandardScaler(),
        PCA(dimension, random_state=seed),
        LogisticRegression(max_iter=300, random_state=seed),
    )
    # The products are small. On a busy machine, two threads wait for each other, and took
    # 60 times as long as one.
    with warnings.catch_warnings(), threadpool_limits(1, user_api="blas"):
        # A probe near the optimum is good enough.
        warnings.simplefilter("ignore", ConvergenceWarning)
        classifier.fit(*train)
    return StageProbe(
        stage=stage,
        dimension=dimension,
        train_error_pct=100 * (1 - float(classifier.score(*train))),
        test_error_pct=100 * (1 - float(classifier.score(*test))),
    )
