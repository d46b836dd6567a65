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
    net: nn.Module, batches: Iterable[tuple[Tensor, Tensor]], *, autocast: AbstractContextManager[object] | None = None
) -> None:
    """Set every running mean and variance of `net`, in place, to the plain average over `batches` of the batch statistics.

    Batches should be of one size. Without batch norm nothing happens, and no batch is drawn.
    """
    norms = [module for module in net.modules() if isinstance(module, _BatchNorm) and module.track_running_stats]
    if not norms:
        return
    was_training = net.training
    momenta = [norm.momentum for norm in norms]
    try:
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None  # torch's word for a plain average over all batches seen
        net.train()
        for x, _ in batches:
            with autocast or nullcontext():
                net(x)
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
        net.train(was_training)
