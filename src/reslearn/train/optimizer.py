"""The recipe's optimizer.

The paper trains by stochastic gradient descent (SGD) with momentum (Sec. 3.4). The recipe may also
ask for Muon, which makes the momentum of each convolution orthogonal before it is applied.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from reslearn import recipes

# Jordan et al. 2024: steepest at zero, and singular values end within [0.7, 1.2].
_QUINTIC = (3.4445, -4.7750, 2.0315)
_NUM_ITERATIONS = 3


def build_optimizer(
    model: nn.Module, config: recipes.Optimizer, *, layer_lr_decay: float = 1.0
) -> torch.optim.Optimizer:
    """Build SGD or Muon over all trainable parameters of `model`.

    With decay = "weights", biases and batch norm (all parameters of one dimension) do not decay.
    Each parameter group holds its base learning rate as "base_lr", which `LearningRate` multiplies.

    Args:
        model: Its children are stem, stages and head, in the order of the computation.
        config: Table `optimizer` of the recipe.
        layer_lr_decay: Factor of the learning rate from each child to the one before it. The head,
            whose group is the first, has the full rate. Muon takes 1 only.
    """
    if config.name == "muon":
        assert config.filter_lr is not None
        optimizer: torch.optim.Optimizer = Muon(
            model,
            lr=config.lr,
            filter_lr=config.filter_lr,
            momentum=config.momentum,
            weight_decay=config.weight_decay,
        )
    else:
        optimizer = torch.optim.SGD(
            _sgd_groups(model, config, layer_lr_decay),
            lr=config.lr,
            momentum=config.momentum,
            nesterov=config.nesterov,
            # One kernel for all parameters: a deep thin network has hundreds of them.
            fused=True,
        )
    for group in optimizer.param_groups:
        group["base_lr"] = group["lr"]
    return optimizer


def _sgd_groups(
    model: nn.Module, config: recipes.Optimizer, layer_lr_decay: float
) -> list[dict[str, Any]]:
    if layer_lr_decay == 1:
        return _decay_groups(model, config)
    groups = []
    for distance, part in enumerate(reversed(list(model.children()))):
        scale = layer_lr_decay**distance
        for group in _decay_groups(part, config):
            if group["params"]:
                groups.append({**group, "lr": config.lr * scale, "lr_scale": scale})
    return groups


def _decay_groups(module: nn.Module, config: recipes.Optimizer) -> list[dict[str, Any]]:
    parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
    if config.decay == "all":
        return [{"params": parameters, "weight_decay": config.weight_decay}]
    weights = [parameter for parameter in parameters if parameter.ndim > 1]
    vectors = [parameter for parameter in parameters if parameter.ndim <= 1]
    return [
        {"params": weights, "weight_decay": config.weight_decay},
        {"params": vectors, "weight_decay": 0.0},
    ]


class Muon(torch.optim.Optimizer):
    """Orthogonalized Nesterov momentum for convolutions, and Nesterov SGD for all other parameters.

    This deviates from the paper, which trains by plain SGD, as all claims do here. It serves only
    the recipe `cifar-fast`, where it reaches the same error in fewer epochs (LOG.md).

    Each filter bank is held at Frobenius norm sqrt(O). Batch norm follows it, so this scaling does
    not change the function. A step moves the filters by `filter_lr` times that norm. Weight decay
    acts only on the weights of fully connected layers.

    Source: Jordan et al. 2024, "Muon".
    """

    def __init__(
        self, model: nn.Module, *, lr: float, filter_lr: float, momentum: float, weight_decay: float
    ) -> None:
        parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        filters = [parameter for parameter in parameters if parameter.ndim > 2]
        matrices = [parameter for parameter in parameters if parameter.ndim == 2]
        vectors = [parameter for parameter in parameters if parameter.ndim < 2]
        groups: list[dict[str, Any]] = [
            {"params": filters, "lr": filter_lr, "orthogonal": True, "weight_decay": 0.0},
            {"params": matrices, "lr": lr, "orthogonal": False, "weight_decay": weight_decay},
            {"params": vectors, "lr": lr, "orthogonal": False, "weight_decay": 0.0},
        ]
        super().__init__(groups, {"lr": lr, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Update all parameters from their gradients."""
        assert closure is None, "a closure is not supported"
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._update(parameter, parameter.grad, group)

    def _update(self, parameter: nn.Parameter, gradient: Tensor, group: dict[str, Any]) -> None:
        if group["weight_decay"]:
            gradient = gradient.add(parameter, alpha=group["weight_decay"])
        momentum = self.state[parameter].setdefault("momentum", torch.zeros_like(parameter))
        momentum.mul_(group["momentum"]).add_(gradient)
        update = gradient.add(momentum, alpha=group["momentum"])
        if group["orthogonal"]:
            parameter.mul_(math.sqrt(len(parameter)) / parameter.norm())
            update = orthogonalize(update)
        # The rate is a number, or a tensor if the step is replayed as a CUDA graph.
        parameter.sub_(update * group["lr"])


def orthogonalize(update: Tensor) -> Tensor:
    """Return a tensor near the closest semi-orthogonal matrix, by quintic Newton-Schulz iteration.

    Args:
        update: Filters [O, I, H, W], treated as a matrix [O, I*H*W].

    Returns:
        A tensor of the same shape and singular vectors, with singular values of about 1.
    """
    matrix = update.reshape(len(update), -1)
    wide = matrix.T if matrix.shape[0] > matrix.shape[1] else matrix
    x = wide / (wide.norm() + 1e-7)
    a, b, c = _QUINTIC
    for _ in range(_NUM_ITERATIONS):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    result: Tensor = (x.T if wide is not matrix else x).reshape(update.shape)
    return result
