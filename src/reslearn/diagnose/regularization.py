"""The variant without weight decay and dropout, for the cause "too much regularization"."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.dropout import _DropoutNd

from reslearn.diagnose.problem import Problem
from reslearn.diagnose.variant import Variant


def regularization_of(problem: Problem) -> tuple[float, float]:
    """Return the largest weight decay of the optimizer, and the largest dropout of a module."""
    net = problem.net(0)
    optimizer = problem.make_optimizer(net.parameters(), problem.lr)
    decay = max((float(group.get("weight_decay", 0)) for group in _groups(optimizer)), default=0.0)
    shares = [getattr(module, name) for module, name in _dropouts(net)]
    return decay, max(shares, default=0.0)


def unregularized(problem: Problem) -> Variant | None:
    """Return the deep network without weight decay and dropout.

    Returns:
        None if it has neither. Functional dropout, and penalties in the loss, are not visible.
    """
    if not any(regularization_of(problem)):
        return None

    def make_optimizer(parameters: Iterable[Tensor], lr: float) -> torch.optim.Optimizer:
        optimizer = problem.make_optimizer(parameters, lr)
        for group in _groups(optimizer):
            if "weight_decay" in group:
                group["weight_decay"] = 0.0
        return optimizer

    def make(seed: int) -> nn.Module:
        net = problem.net(seed)
        for module, name in _dropouts(net):
            setattr(module, name, 0.0)
        return net

    return Variant(
        name="unregularized",
        description="without weight decay and dropout",
        problem=replace(problem, make_optimizer=make_optimizer),
        make=make,
    )


def _groups(optimizer: torch.optim.Optimizer) -> list[dict[str, Any]]:
    groups: list[dict[str, Any]] = getattr(optimizer, "param_groups", [])
    return groups


def _dropouts(net: nn.Module) -> Iterator[tuple[nn.Module, str]]:
    """Yield modules with dropout, each with the name of its share.

    Recurrent networks and attention of torch have a number `dropout`.
    """
    for module in net.modules():
        if isinstance(module, _DropoutNd):
            yield module, "p"
        elif isinstance(getattr(module, "dropout", None), float | int):
            yield module, "dropout"
