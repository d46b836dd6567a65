"""The networks that would do better if a suspected cause were true, made from the user's own by surgery and nothing else.

deep: as it is. shallow: every shape-preserving block but one in three left out. shallowest: all of them left out, for where "shallow" is
still too deep to learn anything. shortcuts: parameter-free shortcuts around its blocks.
standardized: inputs brought to mean 0 and deviation 1. initialized: weights drawn by He's rule, biases zero. Weights of a seed are those
that the deep network has at that seed, so that conditions of one seed are pairs. constructed: the paper's solution by construction
(Sec. 1), the deep network that computes what the trained shallow one does.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from reslearn.diagnose.problem import Problem
from reslearn.models import (
    Opened,
    Residual,
    SurgeryError,
    add_shortcuts,
    blocks,
    construct_from,
    remove_blocks,
    trace,
)

KEPT_ONE_IN = 3
Make = Callable[[int], nn.Module]


@dataclass(frozen=True, kw_only=True, eq=False)
class Variant:
    """`problem` differs from the user's only where the data are what is changed."""

    name: str
    what: str
    problem: Problem
    make: Make


@dataclass(frozen=True, kw_only=True, eq=False)
class Conditions:
    """Those that could be made, in order, and why others could not. `left_out` are the blocks that the shallow one lacks; `narrows`: where
    one of these has fewer values inside than enter it, so that it cannot be an identity."""

    made: dict[str, Variant]
    notes: tuple[str, ...]
    num_layers: int | None = None
    num_layers_shallow: int | None = None
    left_out: tuple[str, ...] = ()
    shortcuts_around: tuple[str, ...] = ()
    narrows: str = ""


def make_conditions(problem: Problem) -> Conditions:
    """Every condition that this network allows."""
    made = {
        "deep": Variant(name="deep", what="the network as it is", problem=problem, make=problem.net)
    }
    notes: list[str] = []
    if all(
        torch.equal(a, b)
        for a, b in zip(problem.net(0).parameters(), problem.net(1).parameters(), strict=True)
    ):
        notes.append(
            "build gives the same weights for every seed (does it set one?): seeds differ in the order of the data alone"
        )
    layers = shallow_layers = None
    left_out: tuple[str, ...] = ()
    around: tuple[str, ...] = ()
    narrows = ""
    try:
        opened = trace(problem.net(0), problem.example)
        layers = opened.num_layers
        left_out = tuple(
            name for index, name in enumerate(_keep_shape(opened)) if index % KEPT_ONE_IN
        )
        if left_out:
            shallow = remove_blocks(opened, left_out).network
            shallow_layers = trace(shallow, problem.example).num_layers
            blocks = (
                "a block that keeps" if len(left_out) == 1 else f"{len(left_out)} blocks that keep"
            )
            what = f"{shallow_layers} of {layers} layers: without {blocks} the shape"
            made["shallow"] = Variant(
                name="shallow", what=what, problem=problem, make=_shallow(problem, left_out)
            )
            narrows = _narrows(opened, left_out)
        else:
            notes.append("no shallower network: it has fewer than two blocks that keep the shape")
    except SurgeryError as error:
        notes.append(f"no shallower network: {error}")
    try:
        operated = add_shortcuts(problem.net(0), problem.example)
        around = operated.done
        what = f"parameter-free shortcuts around {len(around)} block{'s' * (len(around) > 1)}"
        made["shortcuts"] = Variant(
            name="shortcuts",
            what=what,
            problem=problem,
            make=lambda seed: add_shortcuts(problem.net(seed), problem.example).network,
        )
        notes += [f"no shortcut around {reason}" for reason in operated.not_done]
    except SurgeryError as error:
        notes.append(f"no residual counterpart: {error}")
    return Conditions(
        made=made,
        notes=tuple(notes),
        num_layers=layers,
        num_layers_shallow=shallow_layers,
        left_out=left_out,
        shortcuts_around=around,
        narrows=narrows,
    )


def shallowest(problem: Problem) -> Variant | None:
    """Every block that keeps the shape left out; None where "shallow" keeps no more than one of them, or there is no such network."""
    try:
        opened = trace(problem.net(0), problem.example)
        names = tuple(_keep_shape(opened))
        if len(names) <= KEPT_ONE_IN:
            return None
        left = trace(remove_blocks(opened, names).network, problem.example).num_layers
    except SurgeryError:
        return None
    what = f"{left} of {opened.num_layers} layers: without any block that keeps the shape"
    return Variant(name="shallowest", what=what, problem=problem, make=_shallow(problem, names))


def constructed(
    problem: Problem, seed: int, shallow: nn.Module, left_out: tuple[str, ...]
) -> nn.Module | str:
    """The network of `seed` with the weights of the trained `shallow` and identities for the blocks that it lacks; a text where that is
    not the same function, or there is no such network."""
    try:
        made = construct_from(
            trace(problem.net(seed), problem.example), shallow, left_out, problem.inputs[:64]
        )
    except SurgeryError as error:
        return str(error)
    if not made.is_unchanged:
        return f"identities move its outputs by {made.difference:.2g} (of {made.scale:.2g}): not what ReLU passes on untouched"
    return made.network


def _narrows(opened: Opened, names: tuple[str, ...]) -> str:
    for block in blocks(opened):
        for segment in block.segments if block.name in names else ():
            if math.prod(segment.out_shape[1:]) < math.prod(block.in_shape[1:]):
                module = (*segment.modules, block.name)[0]
                return f"{module} narrows {math.prod(block.in_shape[1:]):,} values to {math.prod(segment.out_shape[1:]):,}"
    return ""


def _keep_shape(opened: Opened) -> list[str]:
    return [block.name for block in blocks(opened) if block.keeps_shape]


def standardized(problem: Problem) -> Variant:
    """The deep network on inputs of mean 0 and deviation 1, feature by feature (channel by channel where there is space)."""
    axes = (
        [axis for axis in range(problem.inputs.ndim) if axis != 1]
        if problem.inputs.ndim > 1
        else [0]
    )
    mean = problem.inputs.mean(axes, keepdim=True)
    deviation = problem.inputs.std(axes, keepdim=True).clamp_min(1e-6)

    def scaled(x: Tensor) -> Tensor:
        return (x - mean) / deviation

    changed = replace(
        problem, inputs=scaled(problem.inputs), held_inputs=scaled(problem.held_inputs)
    )
    return Variant(
        name="standardized",
        what="inputs brought to mean 0 and deviation 1",
        problem=changed,
        make=problem.net,
    )


def initialized(problem: Problem) -> Variant:
    """The deep network with weights by He's rule (2015) and biases at zero."""

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
        what="weights drawn by He's rule, biases zero",
        problem=problem,
        make=make,
    )


def wide(problem: Problem) -> Variant:
    """A network of ours that few tasks of a few thousand examples are too large for: two residual blocks of 256 units."""
    width = 256

    def make(seed: int) -> nn.Module:
        shape = problem.net(seed)(problem.example).shape[1:]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            body = [
                nn.Sequential(
                    nn.Linear(width, width),
                    nn.BatchNorm1d(width),
                    nn.ReLU(),
                    nn.Linear(width, width),
                    nn.BatchNorm1d(width),
                )
                for _ in range(2)
            ]
            num_inputs = problem.example[0].numel()
            head = nn.Sequential(
                nn.Linear(width, shape.numel()), nn.Unflatten(1, tuple(shape) or (1,))
            )
            parts: list[nn.Module] = [
                nn.Flatten(),
                nn.BatchNorm1d(num_inputs),
                nn.Linear(num_inputs, width),
                nn.ReLU(),
            ]
            parts += [Residual(one, nn.Identity(), nn.ReLU()) for one in body]
            return nn.Sequential(*parts, head, *([] if shape else [nn.Flatten(0)]))

    return Variant(
        name="wide",
        what=f"a network of ours, {width} units wide, as a yardstick",
        problem=problem,
        make=make,
    )


def _shallow(problem: Problem, left_out: tuple[str, ...]) -> Make:
    return lambda seed: remove_blocks(trace(problem.net(seed), problem.example), left_out).network
