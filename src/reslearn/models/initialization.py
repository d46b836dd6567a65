"""Initial weights (Sec. 3.4): He initialization, N(0, 2 / fan) for a layer that a ReLU follows.

The paper names the method and not the fan. The published code of its authors uses the outputs, so
`he_fan_out` is the default. "normal_0.01", a standard deviation of 0.01, was common before: it is
the control of claim C6. Biases are zero. Batch norm has gamma 1 and beta 0.
"""

from __future__ import annotations

import math
from typing import Literal

from torch import nn

from reslearn.models.network import Network
from reslearn.models.residual import Residual

Init = Literal["he_fan_out", "he_fan_in", "normal_0.01"]


def initialize(net: Network, init: Init, *, zero_init: bool) -> None:
    """Draw new weights for all layers from torch's global generator, in the order of the modules.

    Args:
        net: Modified in place. A network on the meta device is not changed.
        init: Distribution of the weights.
        zero_init: Set gamma of the last batch norm of each body to zero, so that each block is its
            shortcut at first.
    """
    if next(net.parameters()).is_meta:
        return  # there are no values, and torch would import its compiler, which takes seconds
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            _initialize_convolution(module, init)
        elif isinstance(module, nn.BatchNorm2d):
            module.reset_parameters()
        elif isinstance(module, nn.Linear):
            _initialize_linear(module, init)
    if zero_init:
        for _, block in net.blocks():
            nn.init.zeros_(last_batch_norm(block).weight)


def last_batch_norm(block: Residual) -> nn.BatchNorm2d:
    """Return the last batch norm of F. F is zero if gamma and beta of this layer are zero."""
    return [module for module in block.body.modules() if isinstance(module, nn.BatchNorm2d)][-1]


def _initialize_convolution(module: nn.Conv2d, init: Init) -> None:
    if init == "normal_0.01":
        nn.init.normal_(module.weight, std=0.01)
    else:
        mode: Literal["fan_out", "fan_in"] = "fan_out" if init == "he_fan_out" else "fan_in"
        nn.init.kaiming_normal_(module.weight, mode=mode, nonlinearity="relu")
    if module.bias is not None:
        nn.init.zeros_(module.bias)


def _initialize_linear(module: nn.Linear, init: Init) -> None:
    if init == "normal_0.01":
        nn.init.normal_(module.weight, std=0.01)
    else:
        # No ReLU follows, and fan_out (10 classes) would make the first logits large. The code of
        # the paper's authors draws from a uniform distribution with the bound 1 / sqrt(fan_in).
        bound = 1 / math.sqrt(module.in_features)
        nn.init.uniform_(module.weight, -bound, bound)
    nn.init.zeros_(module.bias)
