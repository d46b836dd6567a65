"""A network of the paper, plain or residual: a stem, stages of blocks, a head (Table 1; Sec. 4.2 for CIFAR).

The order of its parts is the order of the computation and of its names: stem, stage1.0.body.conv1, ..., head.fc.
Shapes: x [B, C, H, W] to logits [B, num_classes].
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, final

from jaxtyping import Float
from torch import Tensor, nn

from reslearn.models.residual import Residual


@final
class Network(nn.Module):
    """stem, stage1, stage2, ..., head, one after the other; `spec` is plain JSON and `build(**spec)` makes the same network.

    Each stage is a sequence of `Residual` blocks; a plain network's have no shortcut.
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
        return str(self.spec["name"])

    @property
    def num_classes(self) -> int:
        return int(self.spec["num_classes"])

    def forward(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B K"]:
        for part in self.children():
            x = part(x)
        return x

    def stages(self, x: Float[Tensor, "B C H W"]) -> dict[str, Float[Tensor, "B _ _ _"]]:
        """The outputs of "stem", "stage1", ..., after the activation, in order; the head is not computed. No hooks."""
        outputs: dict[str, Tensor] = {}
        for name, part in self.named_children():
            if part is not self.head:
                x = outputs[name] = part(x)
        return outputs

    def features(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B _ _ _"]:
        """What the head pools: the last stage's output, with pre-activation normalized and after the ReLU."""
        for name, part in self.named_children():
            x = part(x) if name != "head" else x
        for name, part in self.head.named_children():
            if name == "pool":
                return x
            x = part(x)
        raise AssertionError("a head pools")

    def reset_head(self, num_classes: int) -> None:
        """A fresh fully connected layer for so many classes, in place; `spec` says so too. ValueError for less than one."""
        if isinstance(num_classes, bool) or not isinstance(num_classes, int) or num_classes < 1:
            raise ValueError(f"num_classes={num_classes!r}: must be a whole number from 1 on")
        old = self.head.get_submodule("fc")
        assert isinstance(old, nn.Linear)
        fresh = nn.Linear(
            old.in_features, num_classes, device=old.weight.device, dtype=old.weight.dtype
        )
        nn.init.zeros_(fresh.bias)
        self.head.add_module("fc", fresh)
        self.spec["num_classes"] = num_classes

    def blocks(self) -> list[tuple[str, Residual]]:
        """("stage1.0", block), ... in the order of the computation."""
        return [
            (name, module) for name, module in self.named_modules() if isinstance(module, Residual)
        ]

    def response_layers(self) -> list[tuple[str, nn.Module]]:
        """("stage1.0.body.conv1", module) for the stem's and the bodies' convolutions, in order; projections are left out.

        The module's output is the layer's response of Fig. 7: after batch norm, before ReLU and addition (the batch norm's own
        output; the convolution's in a network without, or with pre-activation). A ReLU overwrites it right afterwards: a forward
        hook must reduce or clone it.
        """
        found: dict[str, nn.Module] = {}
        convolution = ""
        for name, module in self.named_modules():
            if ".shortcut" in name:
                continue
            if isinstance(module, nn.Conv2d):
                convolution = name
                found[convolution] = module
            elif isinstance(module, nn.BatchNorm2d) and not self.spec.get("preactivation"):
                found[convolution] = module
        return list(found.items())
