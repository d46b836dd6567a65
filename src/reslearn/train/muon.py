"""Steepest descent for filters in the spectral norm: the momentum of each convolution is made orthogonal before it is applied.

Deviates: the paper trains by plain SGD, and so do all its claims here; this serves the recipe `cifar-fast` alone, where it reaches
the same error in fewer epochs (LOG.md). Source: Jordan et al. 2024, "Muon"; quintic Newton-Schulz iteration.
Shapes: a filter bank [O, I, H, W] is treated as a matrix [O, I*H*W].
"""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

_QUINTIC = (
    3.4445,
    -4.7750,
    2.0315,
)  # Jordan et al.: steepest at zero, singular values end within [0.7, 1.2]
_NUM_ITERATIONS = 3


def orthogonalise(update: Tensor) -> Tensor:
    """A tensor [O, ...] near the closest semi-orthogonal matrix [O, rest]: same singular vectors, singular values about 1."""
    matrix = update.reshape(len(update), -1)
    wide = matrix.T if matrix.shape[0] > matrix.shape[1] else matrix
    x = wide / (wide.norm() + 1e-7)
    a, b, c = _QUINTIC
    for _ in range(_NUM_ITERATIONS):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    result: Tensor = (x.T if wide is not matrix else x).reshape(update.shape)
    return result


class Muon(torch.optim.Optimizer):
    """Orthogonalised Nesterov momentum for convolutions, Nesterov SGD for all the rest (fc, batch norm, biases).

    Filter banks are held at Frobenius norm sqrt(O), which batch norm makes free of effect on the function; `filter_lr` is
    then the part of that norm by which a step moves them. Weight decay acts on the fully connected weights only.
    """

    def __init__(
        self, model: nn.Module, *, lr: float, filter_lr: float, momentum: float, weight_decay: float
    ) -> None:
        parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        groups: list[dict[str, Any]] = [
            {
                "params": [p for p in parameters if p.ndim > 2],
                "lr": filter_lr,
                "orthogonal": True,
                "weight_decay": 0.0,
            },
            {
                "params": [p for p in parameters if p.ndim == 2],
                "lr": lr,
                "orthogonal": False,
                "weight_decay": weight_decay,
            },
            {
                "params": [p for p in parameters if p.ndim < 2],
                "lr": lr,
                "orthogonal": False,
                "weight_decay": 0.0,
            },
        ]
        super().__init__(groups, {"lr": lr, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """One update from the gradients at hand."""
        assert closure is None, "a closure is not supported"
        for group in self.param_groups:
            for parameter in group["params"]:
                gradient = parameter.grad
                if gradient is None:
                    continue
                if group["weight_decay"]:
                    gradient = gradient.add(parameter, alpha=group["weight_decay"])
                momentum = self.state[parameter].setdefault("momentum", torch.zeros_like(parameter))
                momentum.mul_(group["momentum"]).add_(gradient)
                update = gradient.add(momentum, alpha=group["momentum"])
                if group["orthogonal"]:
                    parameter.mul_(math.sqrt(len(parameter)) / parameter.norm())
                    update = orthogonalise(update)
                parameter.sub_(
                    update * group["lr"]
                )  # a number, or a tensor where the step is replayed
