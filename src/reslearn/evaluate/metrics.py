"""Loss and error of a network on batches, each image counted once (Sec. 4.2: the single original view).

Shapes: B images a batch, K classes. Errors in per cent, as the paper speaks.
"""

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional


@dataclass(frozen=True, kw_only=True)
class Metrics:
    """Means over `num_images` images; top-5 is None where there are fewer than six classes."""

    loss: float
    top1_error_pct: float
    top5_error_pct: float | None
    num_images: int


@torch.inference_mode()
def evaluate(
    net: nn.Module,
    batches: Iterable[tuple[Tensor, Tensor]],
    *,
    autocast: AbstractContextManager[object] | None = None,
    total: Callable[[Tensor], Tensor] = lambda values: values,
) -> Metrics:
    """Cross entropy (nats) and errors of `net` in evaluation mode; its mode is put back afterwards.

    `batches` yields (float [B, C, H, W], int64 [B]). Sums are kept on the device in float64, so that neither the size of a
    batch nor a short last one moves the mean. `total` adds sums up over processes that evaluate other images of the same set.
    ValueError where there is no image.
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
            losses = functional.cross_entropy(logits, y, reduction="none")
            part = torch.stack(
                [losses.double().sum(), misses[:, 0].double().sum(), misses.all(1).double().sum()]
            )
            totals = part if totals is None else totals + part
    finally:
        for module, training in modes.items():
            module.training = training
    if totals is None:
        raise ValueError("no image to evaluate on")
    *sums, everything = total(torch.cat([totals, totals.new_full((1,), num_images)])).unbind()
    totals, num_images = torch.stack(sums), int(everything)
    loss, top1_errors, top5_errors = totals.tolist()
    return Metrics(
        loss=loss / num_images,
        top1_error_pct=100 * top1_errors / num_images,
        top5_error_pct=100 * top5_errors / num_images if num_classes > 5 else None,
        num_images=num_images,
    )
