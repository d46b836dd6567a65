"""Batch-norm statistics recomputed on given images, with the weights as they are.

Moving averages lag behind the weights while these still move fast, and mislead about a young or badly trained network. The
authors computed the statistics anew on a large batch after training; we also use it to judge training itself.
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
    """Set every running mean and variance of `net`, in place, to the plain average over `batches` of the batch statistics.

    All else in the net is in evaluation mode meanwhile. Batches smaller than the first are left out, since they would count as much
    as a full one. Without batch norm nothing happens, and no batch is drawn. ValueError where there is no batch.
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
            norm.momentum = None  # torch's word for a plain average over all batches seen
            norm.train()
        full = 0
        for x, _ in batches:
            full = full or len(x)
            if len(x) >= full:
                with autocast or nullcontext():
                    net(x)
        if not full:
            raise ValueError("no batch to compute batch-norm statistics on")
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
        for module, training in modes.items():
            module.training = training
