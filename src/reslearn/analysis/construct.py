"""The solution by construction: a trained shallow network plus identity layers (Sec. 1, claim C10).

`models.extend_with_identities` builds the deeper network. This module checks that the function did
not change, and measures the training loss. It uses evaluation mode and the copied batch-norm
statistics: with recomputed statistics, the new layers would not be identities.

Shapes: x [B, C, H, W], logits [B, K].
"""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from reslearn.evaluate import evaluate
from reslearn.models import Network, extend_with_identities


@dataclass(frozen=True, kw_only=True)
class Construction:
    """Comparison of a shallow network with the deeper network constructed from it.

    Attributes:
        shallow: Name of the shallow network.
        constructed: Name of the constructed network.
        max_logit_difference: Greatest absolute difference of their logits.
        max_logit: Greatest absolute logit of the shallow network, for scale.
        shallow_loss: Loss of the shallow network, in nats.
        constructed_loss: Loss of the constructed network, in nats.
        constructed_top1_error_pct: Error of the constructed network, in percent.
        num_images: Number of images.
    """

    shallow: str
    constructed: str
    max_logit_difference: float
    max_logit: float
    shallow_loss: float
    constructed_loss: float
    constructed_top1_error_pct: float
    num_images: int

    @property
    def is_unchanged(self) -> bool:
        """Whether the functions agree up to rounding.

        The logits may differ by at most 1e-4 times the greatest logit, or times 1 if all logits are
        smaller.
        """
        return self.max_logit_difference <= 1e-4 * max(1.0, self.max_logit)


@torch.no_grad()
def construct(
    shallow: Network, name: str, batches: Iterable[tuple[Tensor, Tensor]]
) -> Construction:
    """Extend `shallow` to the network `name` by identities, and compare both.

    Args:
        shallow: Set to evaluation mode.
        name: Name of a deeper network of the same family.
        batches: Images and labels.

    Raises:
        ValueError: If the network `name` is not a deeper network of the same family.
    """
    batches = list(batches)
    shallow = shallow.eval()
    deep = extend_with_identities(shallow, name)
    difference = largest = 0.0
    for x, _ in batches:
        expected, logits = shallow(x), deep(x)
        difference = max(difference, float((logits - expected).abs().max()))
        largest = max(largest, float(expected.abs().max()))
    before, after = evaluate(shallow, batches), evaluate(deep, batches)
    return Construction(
        shallow=shallow.name,
        constructed=deep.name,
        max_logit_difference=difference,
        max_logit=largest,
        shallow_loss=before.loss,
        constructed_loss=after.loss,
        constructed_top1_error_pct=after.top1_error_pct,
        num_images=after.num_images,
    )
