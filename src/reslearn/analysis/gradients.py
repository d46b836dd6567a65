"""Forward signals and gradients by layer: do they vanish or explode? (Sec. 4.1, claim C9.)

The paper states that "neither forward nor backward signals vanish". The gradient of the mean loss
of a batch, in training mode, is measured in two ways. The gradient of the weights of a convolution
is what the optimizer sees. The gradient of the output of a block is the backward signal of the
paper. Both are L2 norms. If the ratio of first to last layers is below 1, the gradient vanishes on
its way back; above 1 it explodes.

Shapes: x [B, C, H, W], y [B].
"""

import math
import statistics
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from reslearn.models import Network


@dataclass(frozen=True, kw_only=True)
class LayerGradient:
    """L2 norm of the gradient of one convolution or block, with its name."""

    name: str
    norm: float


@dataclass(frozen=True, kw_only=True)
class Gradients:
    """Gradients of one backward pass.

    Attributes:
        step: Training step of the network.
        loss: Mean cross entropy of the batch, in nats.
        weights: Gradients of the weights of each convolution.
        signal: Gradients of the output of each block.
        weights_ratio: `first_to_last` of `weights`.
        signal_ratio: `first_to_last` of `signal`.
    """

    step: int
    loss: float
    weights: tuple[LayerGradient, ...]
    signal: tuple[LayerGradient, ...]
    weights_ratio: float
    signal_ratio: float


def gradients(net: Network, x: Tensor, y: Tensor, *, step: int = 0) -> Gradients:
    """Measure the gradients of the mean cross entropy of one batch. `net` is not changed.

    Args:
        net: The network; a copy runs in training mode, with the batch-norm statistics of the batch.
        x: Images, preprocessed. Use a large batch: the mean over few images is mostly noise.
        y: Labels.
        step: Training step, copied to the result.
    """
    twin = deepcopy(net).train().requires_grad_(True)
    outputs: dict[str, Tensor] = {}

    def record(name: str) -> None:
        def retain(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            output.retain_grad()
            outputs[name] = output

        twin.get_submodule(name).register_forward_hook(retain)

    for name, _ in twin.blocks():
        record(name)
    with torch.enable_grad():
        loss = functional.cross_entropy(twin(x), y)
        torch.autograd.backward(loss)
    weights = tuple(
        LayerGradient(name=name, norm=_norm(module.weight.grad))
        for name, module in twin.named_modules()
        if isinstance(module, nn.Conv2d) and ".shortcut" not in name
    )
    signal = tuple(
        LayerGradient(name=name, norm=_norm(output.grad)) for name, output in outputs.items()
    )
    return Gradients(
        step=step,
        loss=float(loss.detach()),
        weights=weights,
        signal=signal,
        weights_ratio=first_to_last([layer.norm for layer in weights]),
        signal_ratio=first_to_last([layer.norm for layer in signal]),
    )


@torch.no_grad()
def forward_signal(net: Network, x: Tensor) -> list[tuple[str, float]]:
    """Return the root mean square of the output of the stem and of each block, by name.

    Batch norm uses the statistics of the batch, as in training. `net` is not changed.
    """
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


def first_to_last(norms: Sequence[float]) -> float:
    """Return the median of the first third of `norms` over the median of the last third.

    Thirds and medians are robust to single layers, such as the stem, whose norms differ for other
    reasons. The result is nan for 0 / 0 and inf for x / 0.
    """
    if not norms:
        raise ValueError("no norms: at least one layer is needed")
    third = max(1, len(norms) // 3)
    first, last = statistics.median(norms[:third]), statistics.median(norms[-third:])
    if last == 0:
        return math.nan if first == 0 else math.inf
    return first / last


def _norm(gradient: Tensor | None) -> float:
    """Return the L2 norm in float64: the square of a vanishing signal underflows in float32."""
    return 0.0 if gradient is None else float(gradient.double().norm())
