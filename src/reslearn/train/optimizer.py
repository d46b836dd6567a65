"""The recipe's optimiser: stochastic gradient descent with momentum, weight decay on all parameters or on weights only (Sec. 3.4)."""

import torch
from torch import nn

from reslearn import recipes


def build_optimizer(model: nn.Module, config: recipes.Optimizer) -> torch.optim.Optimizer:
    """SGD over all parameters of `model`; decay = "weights" spares biases and batch norm (every parameter of one dimension).

    Each group carries "base_lr", which the loop multiplies by the schedule's factor.
    """
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if config.decay == "all":
        groups = [{"params": parameters, "weight_decay": config.weight_decay}]
    else:
        groups = [
            {"params": [parameter for parameter in parameters if parameter.ndim > 1], "weight_decay": config.weight_decay},
            {"params": [parameter for parameter in parameters if parameter.ndim <= 1], "weight_decay": 0.0},
        ]
    # fused: one kernel for all parameters; a deep thin network has hundreds of them
    optimizer = torch.optim.SGD(groups, lr=config.lr, momentum=config.momentum, nesterov=config.nesterov, fused=True)
    for group in optimizer.param_groups:
        group["base_lr"] = config.lr
    return optimizer
