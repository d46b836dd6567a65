"""The forward signal: how strong the activations are, block by block (Sec. 4.1: "forward propagated signals ... non-zero variances").

Shapes: x [B, C, H, W]; each block's output [B, C', H', W'].
"""

from copy import deepcopy

import torch
from torch import Tensor, nn

from reslearn.models import Network


@torch.no_grad()
def forward_signal(net: Network, x: Tensor) -> list[tuple[str, float]]:
    """("stem", rms), ("stage1.0", rms), ...: root mean square of each part's output, batch norm as in training. `net` is not changed."""
    twin = deepcopy(net).train()
    strength: list[tuple[str, float]] = []

    def watch(name: str, module: nn.Module) -> None:
        def add(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            strength.append((name, float(output.double().square().mean().sqrt())))

        module.register_forward_hook(add)

    for name, module in [("stem", twin.get_submodule("stem")), *twin.blocks()]:
        watch(name, module)
    twin(x)
    return strength
