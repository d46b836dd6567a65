"""Gradients by layer: do they vanish or explode on their way back (Sec. 4.1, "neither forward nor backward signals vanish"; claim C9)?

Two views of one backward pass in training mode: the gradient with respect to each convolution's weights, which is what the solver
sees, and with respect to each block's output, which is the backward propagated signal the paper speaks of. Both are L2 norms of the
gradient of the mean loss of a batch. A ratio of first to last layers below 1 says vanishing, above 1 exploding.
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
    """`name` is a convolution's or a block's; `norm` the L2 norm of its gradient."""

    name: str
    norm: float


@dataclass(frozen=True, kw_only=True)
class Gradients:
    """One backward pass. Ratios are `first_to_last` of the norms; 1 is even, below 1 vanishing, above 1 exploding."""

    step: int
    loss: float
    weights: tuple[LayerGradient, ...]
    signal: tuple[LayerGradient, ...]
    weights_ratio: float
    signal_ratio: float


def gradients(net: Network, x: Tensor, y: Tensor, *, step: int = 0) -> Gradients:
    """Norms for the mean cross entropy of one batch, with batch statistics as in training. `net` is not changed.

    `step` only labels the result. The batch should be large: the norm of a mean over few images is mostly noise.
    """
    twin = deepcopy(net).train().requires_grad_(True)
    outputs: dict[str, Tensor] = {}

    def keep(name: str) -> None:
        def retain(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            output.retain_grad()
            outputs[name] = output

        twin.get_submodule(name).register_forward_hook(retain)

    for name, _ in twin.blocks():
        keep(name)
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


def first_to_last(norms: Sequence[float]) -> float:
    """Median of the first third of `norms` over the median of the last third; NaN for 0 / 0, infinite for x / 0.

    Thirds and medians, because single layers (the stem, those that halve maps) stand out for reasons of their own.
    """
    if not norms:
        raise ValueError("no norms: at least one layer is needed")
    third = max(1, len(norms) // 3)
    first, last = statistics.median(norms[:third]), statistics.median(norms[-third:])
    if last == 0:
        return math.nan if first == 0 else math.inf
    return first / last


def _norm(gradient: Tensor | None) -> float:
    """In float64: a signal that vanishes would underflow when squared in float32."""
    return 0.0 if gradient is None else float(gradient.double().norm())
