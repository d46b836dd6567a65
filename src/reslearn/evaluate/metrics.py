"""Loss and error of a network on batches, with each image counted once (Sec. 4.2: the single view).

Shapes: B images in a batch, K classes. Errors are in percent, as in the paper.
"""

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional


@dataclass(frozen=True, kw_only=True)
class Metrics:
    """Means over `num_images` images.

    Attributes:
        loss: Cross entropy in nats.
        top5_error_pct: None if there are fewer than six classes.
    """

    loss: float
    top1_error_pct: float
    top5_error_pct: float | None
    num_images: int
    num_classes: int


@torch.inference_mode()
def evaluate(
    net: nn.Module,
    batches: Iterable[tuple[Tensor, Tensor]],
    *,
    autocast: AbstractContextManager[object] | None = None,
    total: Callable[[Tensor], Tensor] = lambda values: values,
) -> Metrics:
    """Compute loss and errors of `net` in evaluation mode.

    Sums are float64 and stay on the device, so neither the batch size nor a short last batch
    changes the means.

    Args:
        net: The network; returned to its previous mode.
        batches: Images, float [B, C, H, W], and labels, int64 [B].
        autocast: Context of the forward passes.
        total: Adds sums over the processes that evaluate other images of the same set.

    Raises:
        ValueError: If there are no images.
    """
    modes = {module: module.training for module in net.modules()}
    net.eval()
    totals: Tensor | None = None
    num_images = num_classes = 0
    try:
        for x, y in batches:
            with autocast or nullcontext():
                logits = net(x)
            logits = logits.float()
            num_images, num_classes = num_images + len(y), logits.shape[1]
            misses = logits.topk(min(5, num_classes)).indices != y[:, None]
            measures = [
                functional.cross_entropy(logits, y, reduction="none"),
                misses[:, 0],
                misses.all(1),
            ]
            sums = torch.stack([measure.double().sum() for measure in measures])
            totals = sums if totals is None else totals + sums
    finally:
        for module, training in modes.items():
            module.training = training
    if totals is None:
        raise ValueError("there are no images to evaluate on")
    sums = total(torch.cat([totals, totals.new_full((1,), num_images)]))
    num_images = int(sums[-1])
    loss, top1_errors, top5_errors = sums[:-1].tolist()
    return Metrics(
        loss=loss / num_images,
        top1_error_pct=100 * top1_errors / num_images,
        top5_error_pct=100 * top5_errors / num_images if num_classes > 5 else None,
        num_images=num_images,
        num_classes=num_classes,
    )
