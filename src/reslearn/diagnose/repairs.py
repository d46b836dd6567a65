"""Repairs of the user's code: each passes what a function returns through another function.

| repair | function | what it does |
|---|---|---|
| shortcuts | build | adds parameter-free shortcuts around blocks (Eq. 1) |
| initialized | build | draws the weights by the rule of its activations and sets the biases to 0 |
| bare | build | removes the activation behind the last weights |
| standardized | data | scales the inputs to mean 0 and standard deviation 1 |
| registered | build | registers modules in plain attributes; the classes are edited if possible |
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from reslearn.diagnose.initial_weights import suitable_initializer
from reslearn.diagnose.interventions import (
    initialized,
    output_activations,
    standard_axes,
    without_modules,
)
from reslearn.diagnose.problem import Problem
from reslearn.diagnose.registration import Registration, registered, registrations
from reslearn.diagnose.user_code import Build
from reslearn.models import SurgeryError, add_shortcuts

_SEED = 0
_INITIALIZATION = '''\
def newly_initialized(net):
    """Draw the weights by {rule}, and set the biases to 0."""
    for _, module in sorted(net.named_modules()):
        if isinstance(module, (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)):
            {code}
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    return net'''
_STANDARDIZATION = '''\
def standardized(pair):
    """Scale the inputs to mean 0 and standard deviation 1."""
    inputs, targets = torch.as_tensor(pair[0]).float(), pair[1]
    mean = inputs.mean({axes}, keepdim=True)
    deviation = inputs.std({axes}, keepdim=True).clamp_min(1e-6)
    return (inputs - mean) / deviation, targets'''


@dataclass(frozen=True, kw_only=True)
class Repair:
    """A change of a function in the user's code.

    Attributes:
        name: The variant that has the same change.
        summary: What the changed function gives, for the first line of the patch.
        imports: Lines that the file needs at its top.
        helper: Source of a function that the file gets; empty if it is imported.
        before: Code before each return value.
        after: Code behind each return value.
        changed: Names of the blocks or modules that change.
        registrations: Attributes to register where a class assigns them. Then nothing needs to be
            done to return values.
        parts: The repairs that this one combines, in order; empty for a single one.
        expected: Builds the repaired network of a seed. None if the data change.
    """

    name: str
    summary: str
    imports: tuple[str, ...]
    helper: str = ""
    before: str
    after: str = ")"
    changed: tuple[str, ...] = ()
    registrations: tuple[Registration, ...] = ()
    parts: tuple[Repair, ...] = ()
    expected: Callable[[int], nn.Module] | None = None

    @property
    def shortcuts_around(self) -> tuple[str, ...]:
        """Names of the blocks that get a shortcut, if that is the whole change."""
        return self.changed if self.name == "shortcuts" else ()

    def applied_to(self, build: Build) -> Build:
        """Return a build that passes the networks of `build` through the code of the repair."""
        namespace: dict[str, Any] = {}
        exec("\n".join((*self.imports, self.helper)), namespace)
        change = eval(f"lambda value: {self.before}value{self.after}", namespace)
        return lambda: change(build())


def combined(names: Sequence[str], problem: Problem) -> Repair:
    """Return several repairs of a build as one, applied in order.

    Raises:
        SurgeryError: If one of the changes has no code, or if no block can get a shortcut.
    """
    repairs: list[Repair] = []
    current = problem
    for name in names:
        repair = repair_of(name, current)
        repairs.append(repair)
        current = replace(current, build=repair.applied_to(current.build))
    if len(repairs) == 1:
        return repairs[0]
    imports = dict.fromkeys(line for repair in repairs for line in repair.imports)
    return Repair(
        name="repairs",
        summary=", and ".join(repair.summary for repair in repairs),
        imports=tuple(imports),
        helper="\n\n\n".join(repair.helper for repair in repairs if repair.helper),
        before="".join(repair.before for repair in reversed(repairs)),
        after="".join(repair.after for repair in repairs),
        changed=tuple(name for repair in repairs for name in repair.changed),
        parts=tuple(repairs),
        expected=current.net,
    )


def repair_of(name: str, problem: Problem) -> Repair:
    """Return the repair that has the change of a variant.

    Raises:
        SurgeryError: If the change has no code, or if no block can get a shortcut.
    """
    makers: dict[str, Callable[[Problem], Repair]] = {
        "shortcuts": _shortcuts,
        "initialized": _initialization,
        "bare": _output_layer,
        "standardized": _input_scale,
        "registered": _registration,
    }
    return makers[name](problem)


def example_code(problem: Problem) -> str:
    """Return Python code for a batch of the right shape; `add_shortcuts` ignores its values."""
    sizes = ", ".join(str(size) for size in (2, *problem.inputs.shape[1:]))
    dtype = "" if problem.inputs.dtype == torch.float32 else f", dtype={problem.inputs.dtype}"
    return f"torch.zeros({sizes}{dtype})"


def _shortcuts(problem: Problem) -> Repair:
    changed = add_shortcuts(problem.net(_SEED), problem.example).changed
    blocks = f"{len(changed)} block{'s' * (len(changed) > 1)}"

    def expected(seed: int) -> nn.Module:
        return add_shortcuts(problem.net(seed), problem.example).network

    return Repair(
        name="shortcuts",
        summary=f"with shortcuts around {blocks}; parameters keep their names",
        imports=("import torch", "from reslearn.models import add_shortcuts"),
        before="add_shortcuts(",
        after=f", {example_code(problem)}).network",
        changed=changed,
        expected=expected,
    )


def _initialization(problem: Problem) -> Repair:
    initializer = suitable_initializer(problem)
    return Repair(
        name="initialized",
        summary=f"with new initial weights, by {initializer.rule}",
        imports=("from torch import nn",),
        helper=_INITIALIZATION.format(rule=initializer.rule, code=initializer.code),
        before="newly_initialized(",
        expected=initialized(problem).make,
    )


def _output_layer(problem: Problem) -> Repair:
    names = output_activations(problem.net(_SEED), problem.example)
    if not names:
        raise SurgeryError("the activation behind the last weights is no module of its own")
    lines = []
    for name in names:
        parent, _, attribute = name.rpartition(".")
        lines.append(f"    setattr(net.get_submodule({parent!r}), {attribute!r}, nn.Identity())\n")
    helper = (
        "def without_output_activation(net):\n"
        '    """Replace the activation behind the last weights by the identity."""\n'
        f"{''.join(lines)}    return net"
    )
    return Repair(
        name="bare",
        summary="without the activation behind the last weights",
        imports=("from torch import nn",),
        helper=helper,
        before="without_output_activation(",
        changed=names,
        expected=lambda seed: without_modules(problem.net(seed), names),
    )


def _input_scale(problem: Problem) -> Repair:
    return Repair(
        name="standardized",
        summary="with inputs of mean 0 and standard deviation 1",
        imports=("import torch",),
        helper=_STANDARDIZATION.format(axes=tuple(standard_axes(problem.inputs))),
        before="standardized(",
    )


def _registration(problem: Problem) -> Repair:
    variant = registered(problem)
    if variant is None:
        raise SurgeryError("no plain attribute holds modules that torch can register")
    changes = registrations(problem.net(_SEED))
    lines = []
    for change in changes:
        module = f"net.get_submodule({change.path!r})" if change.path else "net"
        value = f"{module}.{change.attribute}"
        lines.append(f"    {value} = nn.{change.wrapper}({value})\n")
    helper = (
        "def registered(net):\n"
        '    """Register the modules that plain attributes hold."""\n'
        f"{''.join(lines)}    return net"
    )
    return Repair(
        name="registered",
        summary="with registered modules",
        imports=("from torch import nn",),
        helper=helper,
        before="registered(",
        registrations=tuple(changes),
        expected=variant.make,
    )
