"""The switches of a network: each choice at which published ResNets differ, in one table without
torch.

`reslearn.models.build`, the `model` table of a recipe, the readers of weights and `reslearn
inspect` all read `SWITCHES`. A new switch is one row here and the code in `models` that obeys it.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

Scope = Literal["every network", "option A", "projections", "bottlenecks"]
InWeights = Literal["visible", "by dialect", "hidden", "unrelated"]


@dataclass(frozen=True, kw_only=True)
class Switch:
    """One row of the table.

    Attributes:
        name: Keyword argument of `build`, and key of a recipe's `model` table.
        values: Texts that are allowed; `bool` for True or False; `int` for a whole number from 1.
        default: The paper's value. None if the paper's two families differ.
        set_by_name: The name of a network may stand for another value than `default`. In that case
            the argument's own default is None, which means the value that the name stands for.
        scope: The networks in which the switch has an effect.
        in_weights: "visible" if names and shapes of the tensors show the value, "by dialect" if
            only the naming scheme of another project does, "hidden" if the value changes the output
            and leaves no trace in a file of weights, and "unrelated" if the value matters during
            training only.
        description: One sentence for documentation and error messages.
    """

    name: str
    values: tuple[str, ...] | type[bool] | type[int]
    default: str | int | None
    set_by_name: bool = False
    scope: Scope = "every network"
    in_weights: InWeights
    description: str

    @property
    def argument_default(self) -> str | int | None:
        """The default of the keyword argument of `build` and of the recipe key."""
        return None if self.set_by_name else self.default

    @property
    def decides_output(self) -> bool:
        """Whether two networks with equal weights and different values compute different
        outputs."""
        return self.in_weights != "unrelated"

    def applies(self, *, has_bottlenecks: bool, shortcut: str | None) -> bool:
        """Return whether the switch has an effect in a network with these blocks and this shortcut
        option."""
        if self.scope == "option A":
            return shortcut == "A"
        if self.scope == "projections":
            return shortcut in ("B", "C")
        return has_bottlenecks or self.scope != "bottlenecks"

    def check(self, value: Any) -> None:
        """Raise ValueError if `value` is not allowed."""
        if isinstance(self.values, tuple):
            if value not in self.values:
                options = ", ".join(map(repr, self.values))
                raise ValueError(f"{self.name}={value!r}: allowed are {options}")
        elif self.values is bool:
            if not isinstance(value, bool):
                raise ValueError(f"{self.name}={value!r}: allowed are True and False")
        else:
            check_count(self.name, value)


_ROWS = (
    Switch(
        name="shortcut",
        values=("A", "B", "C"),
        default=None,
        set_by_name=True,
        in_weights="visible",
        description="Shortcut option (Sec. 3.3): B in bottleneck networks, A in all others.",
    ),
    Switch(
        name="zero_pad",
        values=("append", "split"),
        default="append",
        scope="option A",
        in_weights="hidden",
        description="Option A puts zero channels after x, or half before and half after.",
    ),
    Switch(
        name="subsample",
        values=("slice", "average"),
        default="slice",
        scope="option A",
        in_weights="hidden",
        description="Option A halves maps by taking every second pixel, or the mean of 2 x 2.",
    ),
    Switch(
        name="stride_in",
        values=("1x1", "3x3"),
        default="1x1",  # Paper: the multiply-adds of Table 1 identify the first 1x1.
        set_by_name=True,
        scope="bottlenecks",
        in_weights="hidden",
        description="The convolution of a bottleneck that has stride 2: the first 1x1, or the 3x3.",
    ),
    Switch(
        name="init",
        values=("he_fan_out", "he_fan_in", "normal_0.01"),
        default="he_fan_out",
        in_weights="unrelated",
        description="Distribution of the initial weights (Sec. 3.4; N(0, 0.01) is a control).",
    ),
    Switch(
        name="zero_init",
        values=bool,
        default=False,
        in_weights="unrelated",
        description="Initialize gamma of the last batch norm of each body to zero.",
    ),
    Switch(
        name="normalize",
        values=bool,
        default=True,
        in_weights="visible",
        description="Use batch norm; without it the convolutions have biases.",
    ),
    Switch(
        name="checkpoint_activations",
        values=bool,
        default=False,
        in_weights="unrelated",
        description="Recompute each block in the backward pass: less memory, one more forward.",
    ),
    # Deviates: the rows below are for variants of the paper's networks that others published
    # weights of.
    Switch(
        name="stem",
        values=("cifar", "imagenet", "deep"),
        default=None,
        set_by_name=True,
        in_weights="visible",
        description="3x3 (CIFAR); 7x7 and max pool (ImageNet); or three 3x3 and max pool (deep).",
    ),
    Switch(
        name="groups",
        values=int,
        default=1,
        set_by_name=True,
        scope="bottlenecks",
        in_weights="visible",
        description="Groups of the 3x3 convolution of a bottleneck (ResNeXt).",
    ),
    Switch(
        name="base_width",
        values=int,
        default=64,
        set_by_name=True,
        scope="bottlenecks",
        in_weights="visible",
        description="Width of each group of a bottleneck's 3x3, where 64 is the paper's width.",
    ),
    Switch(
        name="width",
        values=int,
        default=1,
        set_by_name=True,
        in_weights="visible",
        description="Factor of the channels of all stages (wide residual networks).",
    ),
    Switch(
        name="shortcut_pool",
        values=bool,
        default=False,
        set_by_name=True,
        scope="projections",
        in_weights="by dialect",
        description="Average 2 x 2 pixels before a projection, which then has stride 1 (ResNet-D).",
    ),
    Switch(
        name="preactivation",
        values=bool,
        default=False,
        set_by_name=True,
        in_weights="visible",
        description="Batch norm and ReLU before each convolution instead of after it (v2).",
    ),
)
SWITCHES: Mapping[str, Switch] = {switch.name: switch for switch in _ROWS}


def resolve(chosen: Mapping[str, Any], by_name: Mapping[str, Any]) -> dict[str, Any]:
    """Return a value for each switch, in the order of the table.

    Args:
        chosen: Values that the user chose. None stands for the value of the name.
        by_name: Values that the name of the network stands for.

    Raises:
        ValueError: If a switch is unknown or its value is not allowed.
    """
    for name in chosen:
        if name not in SWITCHES:
            raise ValueError(_unknown(name))
    values: dict[str, Any] = {}
    for name, switch in SWITCHES.items():
        value = chosen.get(name, switch.argument_default)
        if value is None and switch.set_by_name:
            value = by_name.get(name, switch.default)
        else:
            switch.check(value)
        values[name] = value
    return values


def check_count(name: str, value: Any) -> None:
    """Raise ValueError unless `value` is a whole number from 1."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"{name}={value!r}: allowed are whole numbers from 1")


def _unknown(name: str) -> str:
    similar = difflib.get_close_matches(name, SWITCHES, n=1)
    hint = f"did you mean {similar[0]!r}? " if similar else ""
    return f"unknown switch {name!r}: {hint}the switches are {', '.join(SWITCHES)}"
