"""A network of the paper, plain or residual: stem, stages of blocks, head (Table 1; Sec. 4.2).

Modules and their names are in the order of the computation: stem, stage1.0.body.conv1, ...,
head.fc.

Shapes: images x [B, C, H, W]; logits [B, K] for K classes.

`initialize` draws the weights (Sec. 3.4): He initialization, N(0, 2 / fan) for a layer that a ReLU
follows. The paper names the method and not the fan. The published code of its authors uses the
outputs, so `he_fan_out` is the default. "normal_0.01", a standard deviation of 0.01, was common
before: it is the control of claim C6. Biases are zero. Batch norm has gamma 1 and beta 0.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal, final

from jaxtyping import Float
from torch import Tensor, nn

from reslearn.models.residual import Residual
from reslearn.switches import check_count

Init = Literal["he_fan_out", "he_fan_in", "normal_0.01"]


@final
class Network(nn.Module):
    """Apply stem, stage1, stage2, ..., and head, one after the other.

    Each stage is a sequence of `Residual` blocks. The blocks of a plain network have no shortcut.

    Attributes:
        spec: Plain JSON values; `build(**spec)` builds the same network with new weights.
    """

    def __init__(
        self,
        *,
        stem: nn.Module,
        stages: Sequence[Sequence[Residual]],
        head: nn.Module,
        spec: Mapping[str, Any],
    ) -> None:
        super().__init__()
        self.stem = stem
        for number, blocks in enumerate(stages, start=1):
            self.add_module(f"stage{number}", nn.Sequential(*blocks))
        self.head = head
        self.spec: dict[str, Any] = dict(spec)

    @property
    def name(self) -> str:
        """The name that `build` was called with."""
        return str(self.spec["name"])

    @property
    def num_classes(self) -> int:
        """Number of classes, which is the number of logits."""
        return int(self.spec["num_classes"])

    def forward(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B K"]:
        for part in self.children():
            x = part(x)
        return x

    def stages(self, x: Float[Tensor, "B C H W"]) -> dict[str, Float[Tensor, "B _ _ _"]]:
        """Return the outputs of "stem", "stage1", ... in order. The head is not computed."""
        outputs: dict[str, Tensor] = {}
        for name, part in self.named_children():
            if part is not self.head:
                x = outputs[name] = part(x)
        return outputs

    def features(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B _ _ _"]:
        """Return the maps that the head pools; in v2 they are after batch norm and ReLU."""
        for name, part in self.named_children():
            x = part(x) if name != "head" else x
        for name, part in self.head.named_children():
            if name == "pool":
                return x
            x = part(x)
        raise AssertionError("the head has no pool")

    def reset_head(self, num_classes: int) -> None:
        """Replace the fully connected layer by a new one, in place, and update `spec`.

        Raises:
            ValueError: If `num_classes` is not a whole number from 1.
        """
        check_count("num_classes", num_classes)
        old = self.head.get_submodule("fc")
        assert isinstance(old, nn.Linear)
        new = nn.Linear(
            old.in_features, num_classes, device=old.weight.device, dtype=old.weight.dtype
        )
        nn.init.zeros_(new.bias)
        self.head.add_module("fc", new)
        self.spec["num_classes"] = num_classes

    def blocks(self) -> list[tuple[str, Residual]]:
        """Return ("stage1.0", block), ... in the order of the computation."""
        return [
            (name, module) for name, module in self.named_modules() if isinstance(module, Residual)
        ]

    def response_layers(self) -> list[tuple[str, nn.Module]]:
        """Return the layers of Fig. 7 in order: convolutions of the stem and of the bodies.

        Each pair is the name of the convolution, such as "stage1.0.body.conv1", and the module
        whose output is the
        response: after batch norm, before ReLU and addition. That is the batch norm; without batch
        norm or with pre-activation it is the convolution. A ReLU overwrites the response
        afterwards, so a forward hook must reduce or clone it.
        """
        layers: dict[str, nn.Module] = {}
        convolution = ""
        for name, module in self.named_modules():
            if ".shortcut" in name:
                continue
            if isinstance(module, nn.Conv2d):
                convolution = name
                layers[convolution] = module
            elif isinstance(module, nn.BatchNorm2d) and not self.spec.get("preactivation"):
                layers[convolution] = module
        return list(layers.items())


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
