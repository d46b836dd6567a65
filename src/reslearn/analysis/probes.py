"""Linear probes: what a linear reader can tell from each stage (Sec. 1: levels of features "enriched by the number of stacked layers").

Each stage's output is averaged over positions, as the network's own head does, standardized, and brought to one dimension for all
stages by principal components of the training images: without that a wider stage would win by its width. Logistic regression reads the
class. Positions are given up on purpose: with a grid of them a reader of the stem would be handed a small image nearly whole.
Shapes: a stage's output [B, C, H, W]; features [B, D], D equal for all stages.
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
    """The probe of one stage: its error on images that neither it nor the network was fitted on, in per cent."""

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
    """A probe for each of `net.stages`, in order, fitted on `train` and read on `test`, network in evaluation mode.

    `dimension` is lowered for all stages alike to that of the narrowest. `seed` fixes what the randomized components need.
    ValueError for a dimension below 1, or fewer than two classes.
    """
    if dimension < 1:
        raise ValueError(f"dimension = {dimension}: allowed are 1 and more")
    fitted, labels = _features(net, train)
    read, answers = _features(net, test)
    common = min(dimension, *(min(features.shape) for features in fitted.values()))
    return [
        _probe(stage, fitted[stage], labels, read[stage], answers, dimension=common, seed=seed)
        for stage in fitted
    ]


@torch.no_grad()
def _features(
    net: Network, batches: Iterable[tuple[Tensor, Tensor]]
) -> tuple[dict[str, Features], npt.NDArray[np.int64]]:
    """{stage: [N, C]} and labels [N]."""
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
        raise ValueError("no image to probe with")
    return {stage: torch.cat(part).numpy() for stage, part in parts.items()}, torch.cat(
        labels
    ).numpy()


def _probe(
    stage: str,
    fitted: Features,
    labels: Any,
    read: Features,
    answers: Any,
    *,
    dimension: int,
    seed: int,
) -> StageProbe:
    from sklearn.decomposition import PCA
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]  # comes with scikit-learn, without types

    reader = make_pipeline(
        StandardScaler(),
        PCA(dimension, random_state=seed),
        LogisticRegression(max_iter=300, random_state=seed),
    )
    # One thread: these are small products, and two threads on a busy machine wait for each other (measured: 60 times as long).
    with warnings.catch_warnings(), threadpool_limits(1, user_api="blas"):
        warnings.simplefilter(
            "ignore", ConvergenceWarning
        )  # near the optimum is as good for a reading
        reader.fit(fitted, labels)
    return StageProbe(
        stage=stage,
        dimension=dimension,
        train_error_pct=100 * (1 - float(reader.score(fitted, labels))),
        test_error_pct=100 * (1 - float(reader.score(read, answers))),
    )
