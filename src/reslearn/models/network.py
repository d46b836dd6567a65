"""A network of the paper, plain or residual: stem, stages of blocks, head (Table 1; Sec. 4.2).

Modules and their names are in the order of the computation: stem, stage1.0.body.conv1, ...,
head.fc.

Shapes: images x [B, C, H, W]; logits [B, K] for K classes. A network with num_classes=0 has no
classifier and returns the pooled features [B, num_features].

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

Init = Literal["he_fan_out", "he_fan_in", "normal_0.01"]
# Names that users of torchvision, timm and transformers try, and what to use here.
_OTHER_NAMES = {
    "fc": "get_classifier() returns the classifier, and reset_classifier(num_classes) replaces it",
    "classifier": "get_classifier() returns it, and reset_classifier(num_classes) replaces it",
    "conv1": "the first layers are in `stem`",
    "bn1": "the first layers are in `stem`",
    "maxpool": "the first layers are in `stem`",
    "layer1": "the stages are `stage1`, `stage2`, ...",
    "layer2": "the stages are `stage1`, `stage2`, ...",
    "layer3": "the stages are `stage1`, `stage2`, ...",
    "layer4": "the stages are `stage1`, `stage2`, ...",
    "avgpool": "the pooling layer is `head.pool`",
    "global_pool": "the pooling layer is `head.pool`",
    "feature_info": "create_model(name, features_only=True) returns a network that has it",
    "forward_intermediates": "stages(images) returns the outputs of the stages",
    "pretrained_cfg": "reslearn.interop.preprocess_with returns the preprocessing of weights",
    "default_cfg": "reslearn.interop.preprocess_with returns the preprocessing of weights",
    "save_pretrained": "call reslearn.interop.save_pretrained(network, folder)",
    "push_to_hub": "call reslearn.interop.save_pretrained(network, folder), and upload the folder",
    "set_grad_checkpointing": "build the network with checkpoint_activations=True",
}


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

    def __getattr__(self, name: str) -> Tensor | nn.Module:
        """Say what to use for a name of another library. torch calls this for unknown names."""
        _check_name(name)
        return super().__getattr__(name)

    def __setattr__(self, name: str, value: Any) -> None:
        """Refuse `network.fc = ...`, which would add a layer behind the head."""
        _check_name(name)
        super().__setattr__(name, value)

    @property
    def name(self) -> str:
        """The name that `build` was called with."""
        return str(self.spec["name"])

    @property
    def num_classes(self) -> int:
        """Number of classes, which is the number of logits. 0 if there is no classifier."""
        return int(self.spec["num_classes"])

    @property
    def num_features(self) -> int:
        """Number of pooled features, the input of the classifier."""
        _, last_block = self.blocks()[-1]
        convolutions = [
            module for module in last_block.body.modules() if isinstance(module, nn.Conv2d)
        ]
        return convolutions[-1].out_channels

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

    def forward_features(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B _ _ _"]:
        """Return the maps that the head pools; in v2 they are after batch norm and ReLU."""
        for name, part in self.named_children():
            x = part(x) if name != "head" else x
        for name, part in self.head.named_children():
            if name == "pool":
                return x
            x = part(x)
        raise AssertionError("the head has no pool")

    def forward_head(
        self, x: Float[Tensor, "B C h w"], pre_logits: bool = False
    ) -> Float[Tensor, "B _"]:
        """Return the logits [B, K] of the maps that `forward_features` returned.

        Args:
            pre_logits: Return the pooled features [B, num_features] instead.
        """
        pooled: Tensor = self.head.get_submodule("pool")(x).flatten(1)
        if pre_logits:
            return pooled
        logits: Tensor = self.get_classifier()(pooled)
        return logits

    def get_classifier(self) -> nn.Module:
        """Return the fully connected layer, or an `nn.Identity` if there are no classes."""
        return self.head.get_submodule("fc")

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Replace the fully connected layer by a new one, in place, and update `spec`.

        Args:
            num_classes: 0 removes the layer, and the network returns pooled features.
            global_pool: None or "avg". The head always averages.

        Raises:
            ValueError: If `num_classes` is not a whole number from 0, or `global_pool` is another
                pooling.
        """
        check_num_classes(num_classes)
        if global_pool not in (None, "avg"):
            raise ValueError(
                f"global_pool={global_pool!r}: the head averages; "
                "forward_features(images) returns the maps before it"
            )
        layer: nn.Module = nn.Identity()
        if num_classes:
            weight = next(self.parameters())
            layer = nn.Linear(
                self.num_features, num_classes, device=weight.device, dtype=weight.dtype
            )
            nn.init.zeros_(layer.bias)
        self.head.add_module("fc", layer.train(self.training))
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


def _check_name(name: str) -> None:
    if name in _OTHER_NAMES:
        raise AttributeError(f"a Network has no {name!r}: {_OTHER_NAMES[name]}")


def check_num_classes(num_classes: Any) -> None:
    """Raise ValueError unless `num_classes` is a whole number from 0. 0 means no classifier."""
    if isinstance(num_classes, bool) or not isinstance(num_classes, int) or num_classes < 0:
        raise ValueError(
            f"num_classes={num_classes!r}: allowed are whole numbers from 1, and 0 for a network "
            "that returns features"
        )


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
