"""Small networks as strangers write them: nothing of reslearn's own models is in them. `depth` counts hidden layers, or a transformer's."""

import math
from collections.abc import Callable
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
    """Two layers and a shortcut around them, activation after the addition."""

    def __init__(self, body: nn.Module, activation: nn.Module) -> None:
        super().__init__()
        self.body = body
        self.activation = activation

    def forward(self, x: Tensor) -> Tensor:
        """activation(body(x) + x)"""
        y: Tensor = self.activation(self.body(x) + x)
        return y


def mlp(
    inputs: int,
    outputs: int,
    depth: int,
    *,
    width: int = 16,
    activation: str = "relu",
    norm: bool = False,
    shortcuts: bool = False,
    gain: float = 1.0,
    bias: float = 0.0,
    dropout: float = 0.0,
) -> nn.Module:
    """A chain of fully connected layers. Weights by He's rule times `gain`, biases at `bias`."""
    return _finished(
        nn.Sequential(
            *_chain(
                nn.Linear,
                inputs,
                width,
                depth,
                norm and nn.BatchNorm1d,
                activation,
                shortcuts,
                dropout,
            ),
            nn.Linear(width, outputs),
            *([nn.Flatten(0)] if outputs == 1 else []),
        ),
        gain,
        bias,
    )


def conv2d(outputs: int, depth: int, **options: Any) -> nn.Module:
    """3x3 convolutions on [N, 1, 8, 8]; options as those of `mlp`."""
    return _convolutional(
        partial(nn.Conv2d, kernel_size=3, padding=1),
        nn.BatchNorm2d,
        nn.AdaptiveAvgPool2d(1),
        outputs,
        depth,
        **options,
    )


def conv1d(outputs: int, depth: int, **options: Any) -> nn.Module:
    """Convolutions of length 5 on [N, 1, 32]; options as those of `mlp`."""
    return _convolutional(
        partial(nn.Conv1d, kernel_size=5, padding=2),
        nn.BatchNorm1d,
        nn.AdaptiveAvgPool1d(1),
        outputs,
        depth,
        **options,
    )


def _convolutional(
    conv: Callable[..., nn.Module],
    batch_norm: Callable[[int], nn.Module],
    pool: nn.Module,
    outputs: int,
    depth: int,
    *,
    width: int = 8,
    activation: str = "relu",
    norm: bool = False,
    shortcuts: bool = False,
    gain: float = 1.0,
    bias: float = 0.0,
    dropout: float = 0.0,
) -> nn.Module:
    """Sizes halved by the first convolution, and a linear classifier behind the mean."""

    def layer(one: int, other: int) -> nn.Module:
        return conv(one, other, stride=2 if one == 1 else 1)

    layers = _chain(layer, 1, width, depth, norm and batch_norm, activation, shortcuts, dropout)
    return _finished(
        nn.Sequential(*layers, pool, nn.Flatten(), nn.Linear(width, outputs)), gain, bias
    )


class Attention(nn.MultiheadAttention):
    """Of a sequence to itself."""

    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]
        """[N, L, D] -> [N, L, D]"""
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
        """[N, L, D] -> [N, L, D]"""
        x = self.attend(x) + x if self.shortcuts else self.attend(x)
        y: Tensor = self.think(x) + x if self.shortcuts else self.think(x)
        return y


class Transformer(nn.Module):
    """On [N, L, inputs] to logits [N, outputs], by the mean over places."""

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
        """[N, L, inputs] -> [N, outputs]"""
        y: Tensor = self.head(self.layers(self.embed(x) + self.places).mean(1))
        return y


def _chain(
    make: Callable[[int, int], nn.Module],
    inputs: int,
    width: int,
    depth: int,
    norm: "Callable[[int], nn.Module] | bool",
    activation: str,
    shortcuts: bool,
    dropout: float,
) -> list[nn.Module]:
    """A first layer and depth - 1 of one width; with shortcuts in blocks of two."""

    def layer(one: int, *, active: bool = True) -> list[nn.Module]:
        parts = [make(one, width)]
        if callable(norm):
            parts.append(norm(width))
        return (
            parts
            + ([ACTIVATIONS[activation]()] if active else [])
            + ([nn.Dropout(dropout)] if dropout and active else [])
        )

    if not shortcuts:
        return [part for index in range(depth) for part in layer(width if index else inputs)]

    def block() -> nn.Module:
        return Shortcut(
            nn.Sequential(*layer(width), *layer(width, active=False)), ACTIVATIONS[activation]()
        )

    return [*layer(inputs), *(block() for _ in range((depth - 1) // 2))]


def _finished(net: nn.Module, gain: float, bias: float) -> nn.Module:
    for module in net.modules():
        if isinstance(module, nn.Linear | nn.Conv1d | nn.Conv2d):
            fan_in = module.weight[0].numel()
            nn.init.normal_(module.weight, std=gain * math.sqrt(2 / fan_in))
            if module.bias is not None:
                nn.init.constant_(module.bias, bias)
    return net
