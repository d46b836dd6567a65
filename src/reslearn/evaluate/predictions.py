"""The outputs of one network for a set of images, from which all metrics are computed.

Shapes: B images in a batch, N images, K classes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float32, Int64
from torch import Tensor, nn

from reslearn.evaluate.class_metrics import Integers


@dataclass(frozen=True, kw_only=True, eq=False)
class Predictions:
    """Logits and labels of N images, on the CPU.

    Attributes:
        logits: Outputs of the network, before the softmax.
        labels: The classes that the data name.
    """

    logits: Float32[Tensor, "n k"]
    labels: Int64[Tensor, n]

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def num_classes(self) -> int:
        return self.logits.shape[1]

    @property
    def predicted(self) -> Int64[Tensor, n]:
        """The class with the greatest logit; `evaluate` counts the same class."""
        return self.logits.topk(1).indices[:, 0]

    @property
    def label_array(self) -> Integers:
        return self.labels.numpy()

    @property
    def predicted_array(self) -> Integers:
        return self.predicted.numpy()

    def probabilities(self, temperature: float = 1.0) -> Float32[Tensor, "n k"]:
        """Return the softmax of the logits divided by `temperature`."""
        return (self.logits / temperature).softmax(1)

    def num_right_of_best(self, num_best: int) -> int:
        """Return how many labels are among the `num_best` greatest logits."""
        best = self.logits.topk(min(num_best, self.num_classes)).indices
        return int((best == self.labels[:, None]).any(1).sum())


@torch.inference_mode()
def predict(
    net: nn.Module,
    batches: Iterable[tuple[Tensor, Tensor]],
    *,
    autocast: Callable[[], AbstractContextManager[object]] = nullcontext,
) -> Predictions:
    """Compute the logits of all images in evaluation mode.

    Args:
        net: The network; returned to its previous mode.
        batches: Images, float [B, C, H, W], and labels, int64 [B].
        autocast: Makes the context of a forward pass.

    Raises:
        ValueError: If there are no images.
    """
    modes = {module: module.training for module in net.modules()}
    net.eval()
    logits: list[Tensor] = []
    labels: list[Tensor] = []
    try:
        for x, y in batches:
            with autocast():
                outputs = net(x)
            logits.append(outputs.float().cpu())
            labels.append(y.cpu())
    finally:
        for module, training in modes.items():
            module.training = training
    if not labels:
        raise ValueError("there are no images to evaluate on")
    # Clones, because tensors of inference mode cannot be used where gradients are computed.
    return Predictions(logits=torch.cat(logits).clone(), labels=torch.cat(labels).clone())


def most_confident_mistakes(
    predictions: Predictions, confidences: Float32[Tensor, n], num_images: int
) -> Integers:
    """Return the indices of the wrong predictions with the greatest confidence, in this order."""
    wrong = np.flatnonzero(predictions.predicted_array != predictions.label_array)
    order = np.argsort(-confidences.numpy()[wrong], kind="stable")
    return wrong[order][:num_images].astype(np.int64)
