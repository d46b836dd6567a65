"""Variants of the user's network: each would train better if one suspected cause were true.

| variant | change | suspected cause |
|---|---|---|
| deep | none | |
| shallow | two of three shape-preserving blocks removed | depth |
| shallowest | all of them removed; tried if "shallow" learns nothing either | depth |
| shortcuts | parameter-free shortcuts around the blocks (Eq. 1, option A) | depth |
| standardized | inputs scaled to mean 0 and standard deviation 1 | scale of the inputs |
| initialized | weights drawn by He's rule, biases zero | initialization |
| wide | another network, wide and residual, as a yardstick | capacity |

All variants of a seed start from the weights that the deep network has at that seed, so results
are paired by seed. `constructed` builds the paper's solution by construction (Sec. 1).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from reslearn.diagnose.problem import Problem
from reslearn.models import (
    Residual,
    SurgeryError,
    Trace,
    add_shortcuts,
    blocks,
    construct_from,
    remove_blocks,
    trace,
)

KEEP_ONE_IN = 3
"""The shallow variant keeps one shape-preserving block in three."""
WIDE_UNITS = 256
MakeNetwork = Callable[[int], nn.Module]


@dataclass(frozen=True, kw_only=True, eq=False)
class Variant:
    """A way to build a network for a seed.

    `problem` differs from the user's problem only if the variant changes the data.
    """

    name: str
    description: str
    problem: Problem
    make: MakeNetwork


@dataclass(frozen=True, kw_only=True, eq=False)
class Variants:
    """The variants that could be made, in order, and notes on those that could not.

    Attributes:
        by_name: Variants that come up during a diagnosis are added.
        removed_blocks: Blocks that the shallow variant lacks.
        narrows: Describes a layer in a removed block that has fewer values than enter the block.
            Such a block cannot be an identity. Empty if there is none.
    """

    by_name: dict[str, Variant]
    notes: tuple[str, ...]
    num_layers: int | None = None
    num_layers_shallow: int | None = None
    removed_blocks: tuple[str, ...] = ()
    shortcuts_around: tuple[str, ...] = ()
    narrows: str = ""


def make_variants(problem: Problem) -> Variants:
    """Make the variants "deep", "shallow" and "shortcuts", as far as the network allows."""
    deep = Variant(
        name="deep", description="the network unchanged", problem=problem, make=problem.net
    )
    by_name = {"deep": deep}
    notes: list[str] = []
    if _seeds_are_equal(problem):
        notes.append(
            "build returns the same weights for every seed (does it set a seed?), so seeds differ "
            "only in the order of the data"
        )
    num_layers = num_layers_shallow = None
    removed_blocks: tuple[str, ...] = ()
    shortcuts_around: tuple[str, ...] = ()
    narrows = ""
    try:
        opened = trace(problem.net(0), problem.example)
        num_layers = opened.num_layers
        names = _shape_preserving_blocks(opened)
        removed_blocks = tuple(name for index, name in enumerate(names) if index % KEEP_ONE_IN != 0)
        if removed_blocks:
            shallow = remove_blocks(opened, removed_blocks).network
            num_layers_shallow = trace(shallow, problem.example).num_layers
            by_name["shallow"] = Variant(
                name="shallow",
                description=f"{num_layers_shallow} of {num_layers} layers: "
                f"{_count_blocks(removed_blocks)} removed",
                problem=problem,
                make=_without(problem, removed_blocks),
            )
            narrows = _first_narrow_layer(opened, removed_blocks)
        else:
            notes.append(
                "no shallower network can be made: there are fewer than two blocks that preserve "
                "the shape"
            )
    except SurgeryError as error:
        notes.append(f"no shallower network can be made: {error}")
    try:
        operated = add_shortcuts(problem.net(0), problem.example)
        shortcuts_around = operated.changed
        by_name["shortcuts"] = _with_shortcuts(problem, shortcuts_around)
        notes += [f"no shortcut around {reason}" for reason in operated.skipped]
    except SurgeryError as error:
        notes.append(f"no residual counterpart can be made: {error}")
    return Variants(
        by_name=by_name,
        notes=tuple(notes),
        num_layers=num_layers,
        num_layers_shallow=num_layers_shallow,
        removed_blocks=removed_blocks,
        shortcuts_around=shortcuts_around,
        narrows=narrows,
    )


def shallowest(problem: Problem) -> Variant | None:
    """Return the network without any shape-preserving block.

    Returns:
        None if "shallow" has only one such block, or if the network cannot be traced.
    """
    try:
        opened = trace(problem.net(0), problem.example)
        names = tuple(_shape_preserving_blocks(opened))
        if len(names) <= KEEP_ONE_IN:
            return None
        shallow = remove_blocks(opened, names).network
        num_layers = trace(shallow, problem.example).num_layers
    except SurgeryError:
        return None
    return Variant(
        name="shallowest",
        description=f"{num_layers} of {opened.num_layers} layers: {_count_blocks(names)} removed",
        problem=problem,
        make=_without(problem, names),
    )


def constructed(
    problem: Problem, seed: int, shallow: nn.Module, removed_blocks: tuple[str, ...]
) -> nn.Module | str:
    """Return the paper's solution by construction (Sec. 1).

    The network of `seed` takes the weights of the trained `shallow` network. The blocks that
    `shallow` lacks become identities.

    Returns:
        The network. Or a sentence that says why it would not compute the same function, or why
        there is no such network.
    """
    try:
        construction = construct_from(
            trace(problem.net(seed), problem.example), shallow, removed_blocks, problem.inputs[:64]
        )
    except SurgeryError as error:
        return str(error)
    if not construction.is_unchanged:
        return (
            f"identities change the outputs by {construction.difference:.2g} (outputs are up to "
            f"{construction.scale:.2g}), so ReLU does not pass them unchanged"
        )
    return construction.network


def standardized(problem: Problem) -> Variant:
    """Return the deep network on inputs of mean 0 and standard deviation 1.

    Statistics are per feature, or per channel if inputs have spatial dimensions.
    """
    axes = [0]
    if problem.inputs.ndim > 1:
        axes = [axis for axis in range(problem.inputs.ndim) if axis != 1]
    mean = problem.inputs.mean(axes, keepdim=True)
    deviation = problem.inputs.std(axes, keepdim=True).clamp_min(1e-6)

    def standardize(x: Tensor) -> Tensor:
        return (x - mean) / deviation

    return Variant(
        name="standardized",
        description="inputs scaled to mean 0 and standard deviation 1",
        problem=replace(
            problem,
            inputs=standardize(problem.inputs),
            held_inputs=standardize(problem.held_inputs),
        ),
        make=problem.net,
    )


def initialized(problem: Problem) -> Variant:
    """Return the deep network with weights by He's rule (2015) and biases at zero."""

    def make(seed: int) -> nn.Module:
        net = problem.net(seed)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            for module in net.modules():
                if isinstance(module, nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d):
                    nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
                    if module.bias is not None:
                        nn.init.zeros_(module.bias)
        return net

    return Variant(
        name="initialized",
        description="weights drawn by He's rule, biases zero",
        problem=problem,
        make=make,
    )


def wide(problem: Problem) -> Variant:
    """Return another network that is large enough for most tasks of a few thousand examples.

    It has two residual blocks of 256 units.
    """

    def make(seed: int) -> nn.Module:
        shape = problem.net(seed)(problem.example).shape[1:]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            bodies = [_wide_body(), _wide_body()]
            num_inputs = problem.example[0].numel()
            head: list[nn.Module] = [
                nn.Linear(WIDE_UNITS, shape.numel()),
                nn.Unflatten(1, tuple(shape) or (1,)),
            ]
            layers: list[nn.Module] = [
                nn.Flatten(),
                nn.BatchNorm1d(num_inputs),
                nn.Linear(num_inputs, WIDE_UNITS),
                nn.ReLU(),
            ]
            layers += [Residual(body, nn.Identity(), nn.ReLU()) for body in bodies]
            layers.append(nn.Sequential(*head))
            if not shape:
                layers.append(nn.Flatten(0))
            return nn.Sequential(*layers)

    return Variant(
        name="wide",
        description=f"another network, {WIDE_UNITS} units wide, as a yardstick",
        problem=problem,
        make=make,
    )


def _wide_body() -> nn.Module:
    return nn.Sequential(
        nn.Linear(WIDE_UNITS, WIDE_UNITS),
        nn.BatchNorm1d(WIDE_UNITS),
        nn.ReLU(),
        nn.Linear(WIDE_UNITS, WIDE_UNITS),
        nn.BatchNorm1d(WIDE_UNITS),
    )


def _with_shortcuts(problem: Problem, shortcuts_around: tuple[str, ...]) -> Variant:
    plural = "s" * (len(shortcuts_around) > 1)
    return Variant(
        name="shortcuts",
        description=f"parameter-free shortcuts around {len(shortcuts_around)} block{plural}",
        problem=problem,
        make=lambda seed: add_shortcuts(problem.net(seed), problem.example).network,
    )


def _without(problem: Problem, removed_blocks: tuple[str, ...]) -> MakeNetwork:
    def make(seed: int) -> nn.Module:
        opened = trace(problem.net(seed), problem.example)
        return remove_blocks(opened, removed_blocks).network

    return make


def _seeds_are_equal(problem: Problem) -> bool:
    pairs = zip(problem.net(0).parameters(), problem.net(1).parameters(), strict=True)
    return all(torch.equal(first, second) for first, second in pairs)


def _shape_preserving_blocks(opened: Trace) -> list[str]:
    return [block.name for block in blocks(opened) if block.keeps_shape]


def _count_blocks(names: tuple[str, ...]) -> str:
    if len(names) == 1:
        return "1 block that preserves the shape"
    return f"{len(names)} blocks that preserve the shape"


def _first_narrow_layer(opened: Trace, names: tuple[str, ...]) -> str:
    """Describe the first layer in one of the blocks that has fewer values than enter the block."""
    for block in blocks(opened):
        if block.name not in names:
            continue
        num_values = math.prod(block.in_shape[1:])
        for segment in block.segments:
            num_inside = math.prod(segment.out_shape[1:])
            if num_inside < num_values:
                layer = segment.modules[0] if segment.modules else block.name
                return f"{layer} narrows {num_values:,} values to {num_inside:,}"
    return ""
