"""The recipe's optimizer: stochastic gradient descent with momentum, weight decay on all parameters or on weights only (Sec. 3.4)."""

import torch
from torch import nn

from reslearn import recipes
from reslearn.train.muon import Muon


def build_optimizer(model: nn.Module, config: recipes.Optimizer) -> torch.optim.Optimizer:
    """SGD over all parameters of `model`; decay = "weights" spares biases and batch norm (every parameter of one dimension).

    Each group carries "base_lr", which the loop multiplies by the schedule's factor.
    """
    if config.name == "muon":
        assert config.filter_lr is not None
        muon = Muon(
            model,
            lr=config.lr,
            filter_lr=config.filter_lr,
            momentum=config.momentum,
            weight_decay=config.weight_decay,
        )
        return _with_base_lr(muon)
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if config.decay == "all":
        groups = [{"params": parameters, "weight_decay": config.weight_decay}]
    else:
        groups = [
            {
                "params": [parameter for parameter in parameters if parameter.ndim > 1],
                "weight_decay": config.weight_decay,
            },
            {
                "params": [parameter for parameter in parameters if parameter.ndim <= 1],
                "weight_decay": 0.0,
            },
        ]
    # fused: one kernel for all parameters; a deep thin network has hundreds of them
    return _with_base_lr(
        torch.optim.SGD(
            groups, lr=config.lr, momentum=config.momentum, nesterov=config.nesterov, fused=True
        )
    )


def _with_base_lr(optimizer: torch.optim.Optimizer) -> torch.optim.Optimizer:
    for group in optimizer.param_groups:
        group["base_lr"] = group["lr"]
    return optimizer
