"""How weights start (Sec. 3.4): He initialization, N(0, 2 / fan) for layers followed by a ReLU.

The paper names the method and not the fan; its authors' published code takes the outputs, so that is the default. N(0, 0.01)
(standard deviation 0.01) is what was common before: the control of claim C6. Biases start at zero, batch norm at gamma 1, beta 0.
"""

from __future__ import annotations

import math
from typing import Literal

from torch import nn

from reslearn.models.network import Network
from reslearn.models.residual import Residual

Init = Literal["he_fan_out", "he_fan_in", "normal_0.01"]


def initialize(net: Network, init: Init, *, zero_init: bool) -> None:
    """Draw all weights anew from torch's global generator, in the order of the modules.

    zero_init: gamma of F's last batch norm is zero, so that every block starts as its shortcut alone. On the meta device there is
    nothing to draw, and torch would import its compiler, which takes seconds, to draw it.
    """
    if next(net.parameters()).is_meta:
        return
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            _start_convolution(module, init)
        elif isinstance(module, nn.BatchNorm2d):
            module.reset_parameters()
        elif isinstance(module, nn.Linear):
            _start_fully_connected(module, init)
    if zero_init:
        for _, block in net.blocks():
            nn.init.zeros_(last_batch_norm(block).weight)


def last_batch_norm(block: Residual) -> nn.BatchNorm2d:
    """F's last batch norm: with its gamma and beta at zero, F is zero."""
    return [module for module in block.body.modules() if isinstance(module, nn.BatchNorm2d)][-1]


def _start_convolution(module: nn.Conv2d, init: Init) -> None:
    if init == "normal_0.01":
        nn.init.normal_(module.weight, std=0.01)
    else:
        nn.init.kaiming_normal_(
            module.weight, mode="fan_out" if init == "he_fan_out" else "fan_in", nonlinearity="relu"
        )
    if module.bias is not None:
        nn.init.zeros_(module.bias)


def _start_fully_connected(module: nn.Linear, init: Init) -> None:
    # No ReLU follows, and fan_out (10 classes) would make the first logits large: the authors' code is uniform, 1 / sqrt(fan_in).
    if init == "normal_0.01":
        nn.init.normal_(module.weight, std=0.01)
    else:
        bound = 1 / math.sqrt(module.in_features)
        nn.init.uniform_(module.weight, -bound, bound)
    nn.init.zeros_(module.bias)
