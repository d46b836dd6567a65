"""The solution by construction (Sec. 1): a trained shallow net and identity layers are a deeper net that is no worse (claim C10).

`models.extend_with_identities` builds it; here it is checked that the function did not change and its training loss is measured, in evaluation mode
and with the batch norm statistics that it brings: recomputed ones would no longer make its added layers identities.
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
    """`max_logit_difference` is the greatest between shallow and constructed net, `max_logit` the greatest logit, for scale."""

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
        """Same function up to rounding: logits differ by less than 1e-4 of the greatest (of 1, if that is smaller)."""
        return self.max_logit_difference <= 1e-4 * max(1.0, self.max_logit)


@torch.no_grad()
def construct(
    shallow: Network, name: str, batches: Iterable[tuple[Tensor, Tensor]]
) -> Construction:
    """Deepen `shallow` to the network called `name` and compare both on `batches`. ValueError where that network is no deeper relative."""
    kept = list(batches)
    shallow = shallow.eval()
    deep = extend_with_identities(shallow, name)
    difference = largest = 0.0
    for x, _ in kept:
        expected, got = shallow(x), deep(x)
        difference = max(difference, float((got - expected).abs().max()))
        largest = max(largest, float(expected.abs().max()))
    before, after = evaluate(shallow, kept), evaluate(deep, kept)
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
