"""Variants of the user's network: each would train better if one suspected cause were true.

| variant | change | suspected cause |
|---|---|---|
| deep | none | |
| shallow | two of three shape-preserving blocks removed | depth |
| shallowest | all of them removed; tried if "shallow" learns nothing either | depth |
| shortcuts | parameter-free shortcuts around the blocks (Eq. 1, option A) | depth |

Variants for other causes are in `interventions.py`. All variants of a seed start from the weights
that the deep network has at that seed, so results are paired by seed. `constructed` builds the
paper's solution by construction (Sec. 1).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from reslearn.diagnose.containers import traced_network
from reslearn.diagnose.problem import Problem
from reslearn.models import (
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
MakeNetwork = Callable[[int], nn.Module]


@dataclass(frozen=True, kw_only=True)
class Regime:
    """How a network is trained, apart from its learning rate.

    Attributes:
        warms_up: The rate rises linearly during the first fifth of the steps.
        clips_gradients: Larger gradients are scaled to a norm of 1.
    """

    warms_up: bool = False
    clips_gradients: bool = False


@dataclass(frozen=True, kw_only=True, eq=False)
class Variant:
    """A way to build a network for a seed.

    `problem` differs from the user's problem only if the variant changes the data or the optimizer.
    """

    name: str
    description: str
    problem: Problem
    make: MakeNetwork
    regime: Regime = Regime()


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
        opened = traced_network(problem, 0)
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
        opened = traced_network(problem, 0)
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
            traced_network(problem, seed), shallow, removed_blocks, problem.inputs[:64]
        )
    except SurgeryError as error:
        return str(error)
    if not construction.is_unchanged:
        return (
            f"identities change the outputs by {construction.difference:.2g} (outputs are up to "
            f"{construction.scale:.2g}), so ReLU does not pass them unchanged"
        )
    return construction.network


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
        opened = traced_network(problem, seed)
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
