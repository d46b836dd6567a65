"""Batch-norm statistics recomputed on given images, without a change of the weights.

Moving averages lag behind weights that change fast, so they misjudge a network early in training or
after a bad training. The paper's authors recomputed the statistics on a large batch after training.
We do the same to evaluate the training error.
"""

from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn

_BatchNorm = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)


@torch.no_grad()
def recompute_batch_norm(
    net: nn.Module,
    batches: Iterable[tuple[Tensor, Tensor]],
    *,
    autocast: AbstractContextManager[object] | None = None,
) -> None:
    """Replace running means and variances by the average of the batch statistics over `batches`.

    A batch that is smaller than the first is skipped, because it would count as much as a full one.
    A network without batch norm is not changed, and no batch is read.

    Args:
        net: Modified in place; returned to its previous mode. All other layers are in evaluation
            mode while the statistics are computed.
        batches: Images [B, C, H, W], preprocessed as in training. Labels are ignored.
        autocast: Context of the forward passes.

    Raises:
        ValueError: If `batches` is empty.
    """
    norms = [
        module
        for module in net.modules()
        if isinstance(module, _BatchNorm) and module.track_running_stats
    ]
    if not norms:
        return
    modes = {module: module.training for module in net.modules()}
    momenta = [norm.momentum for norm in norms]
    try:
        net.eval()
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None  # torch then averages over all batches
            norm.train()
        full_size = 0
        for x, _ in batches:
            full_size = full_size or len(x)
            if len(x) >= full_size:
                with autocast or nullcontext():
                    net(x)
        if not full_size:
            raise ValueError("no batch to compute batch-norm statistics on")
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
        for module, training in modes.items():
            module.training = training
