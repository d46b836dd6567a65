"""Small networks as users write them; they use nothing of reslearn.

`depth` is the number of hidden layers, or of the layers of a transformer.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "tanh": nn.Tanh,
    "gelu": nn.GELU,
    "sigmoid": nn.Sigmoid,
}


class Shortcut(nn.Module):
    """Two layers with a shortcut around them, and an activation after the addition."""

    def __init__(self, body: nn.Module, activation: nn.Module) -> None:
        super().__init__()
        self.body = body
        self.activation = activation

    def forward(self, x: Tensor) -> Tensor:
        """Return activation(body(x) + x)."""
        y: Tensor = self.activation(self.body(x) + x)
        return y


@dataclass(frozen=True, kw_only=True)
class Options:
    """Options of the chains.

    Attributes:
        norm: Batch norm after each layer.
        shortcuts: Shortcuts around blocks of two layers.
        gain: Factor of the weights, which follow He's rule.
        bias: Initial value of the biases.
    """

    width: int
    activation: str = "relu"
    norm: bool = False
    shortcuts: bool = False
    gain: float = 1.0
    bias: float = 0.0
    dropout: float = 0.0


def mlp(inputs: int, outputs: int, depth: int, *, width: int = 16, **further: Any) -> nn.Module:
    """Return a chain of fully connected layers; `Options` lists further arguments."""
    options = Options(width=width, **further)
    layers = _chain(nn.Linear, nn.BatchNorm1d, inputs, depth, options)
    layers.append(nn.Linear(width, outputs))
    if outputs == 1:
        layers.append(nn.Flatten(0))
    return _initialized(nn.Sequential(*layers), options)


def conv2d(outputs: int, depth: int, *, width: int = 8, **further: Any) -> nn.Module:
    """Return 3x3 convolutions on [N, 1, 8, 8]; `Options` lists further arguments."""
    conv = partial(nn.Conv2d, kernel_size=3, padding=1)
    options = Options(width=width, **further)
    layers = _chain(_halving(conv), nn.BatchNorm2d, 1, depth, options)
    return _classifier(layers, nn.AdaptiveAvgPool2d(1), outputs, options)


def conv1d(outputs: int, depth: int, *, width: int = 8, **further: Any) -> nn.Module:
    """Return convolutions of length 5 on [N, 1, 32]; `Options` lists further arguments."""
    conv = partial(nn.Conv1d, kernel_size=5, padding=2)
    options = Options(width=width, **further)
    layers = _chain(_halving(conv), nn.BatchNorm1d, 1, depth, options)
    return _classifier(layers, nn.AdaptiveAvgPool1d(1), outputs, options)


def _halving(conv: Callable[..., nn.Module]) -> Callable[[int, int], nn.Module]:
    """Return a function that makes layers; the first one, with one input channel, halves sizes."""

    def layer(in_channels: int, out_channels: int) -> nn.Module:
        return conv(in_channels, out_channels, stride=2 if in_channels == 1 else 1)

    return layer


def _classifier(
    layers: list[nn.Module], pool: nn.Module, outputs: int, options: Options
) -> nn.Module:
    """Return the layers with a linear classifier of their mean over positions."""
    head = [pool, nn.Flatten(), nn.Linear(options.width, outputs)]
    return _initialized(nn.Sequential(*layers, *head), options)


class Attention(nn.MultiheadAttention):
    """Self-attention."""

    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]
        """Map [N, L, D] to [N, L, D]."""
        y: Tensor = super().forward(x, x, x, need_weights=False)[0]
        return y


class Layer(nn.Module):
    """A pre-norm transformer layer, with its shortcuts or without."""

    def __init__(self, width: int, shortcuts: bool) -> None:
        super().__init__()
        self.shortcuts = shortcuts
        self.attend = nn.Sequential(nn.LayerNorm(width), Attention(width, 2, batch_first=True))
        self.think = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, L, D] to [N, L, D]."""
        x = self.attend(x) + x if self.shortcuts else self.attend(x)
        y: Tensor = self.think(x) + x if self.shortcuts else self.think(x)
        return y


class Transformer(nn.Module):
    """A transformer whose logits are the mean over positions."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        length: int,
        depth: int,
        *,
        width: int = 16,
        shortcuts: bool = True,
    ) -> None:
        super().__init__()
        self.embed = nn.Linear(inputs, width)
        self.places = nn.Parameter(0.02 * torch.randn(length, width))
        self.layers = nn.Sequential(*[Layer(width, shortcuts) for _ in range(depth)])
        self.head = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, outputs))

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, L, inputs] to logits [N, outputs]."""
        y: Tensor = self.head(self.layers(self.embed(x) + self.places).mean(1))
        return y


def _chain(
    make: Callable[[int, int], nn.Module],
    batch_norm: Callable[[int], nn.Module],
    inputs: int,
    depth: int,
    options: Options,
) -> list[nn.Module]:
    """Return a first layer and depth - 1 layers of one width, in blocks of two with shortcuts."""
    activation = ACTIVATIONS[options.activation]

    def layer(size: int, *, active: bool = True) -> list[nn.Module]:
        parts = [make(size, options.width)]
        if options.norm:
            parts.append(batch_norm(options.width))
        if active:
            parts.append(activation())
            if options.dropout:
                parts.append(nn.Dropout(options.dropout))
        return parts

    layers = layer(inputs)
    if options.shortcuts:
        for _ in range((depth - 1) // 2):
            body = nn.Sequential(*layer(options.width), *layer(options.width, active=False))
            layers.append(Shortcut(body, activation()))
    else:
        for _ in range(depth - 1):
            layers += layer(options.width)
    return layers


def _initialized(net: nn.Module, options: Options) -> nn.Module:
    for module in net.modules():
        if isinstance(module, nn.Linear | nn.Conv1d | nn.Conv2d):
            fan_in = module.weight[0].numel()
            nn.init.normal_(module.weight, std=options.gain * math.sqrt(2 / fan_in))
            if module.bias is not None:
                nn.init.constant_(module.bias, options.bias)
    return net
