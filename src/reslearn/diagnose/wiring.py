"""Screening of the wiring: does the optimizer reach all weights that shape the outputs?

Layers in a Python list are used in forward, but torch does not register them: no optimizer gets
their parameters. The graph of the outputs has them, so the graph and the optimizer are compared.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from reslearn.diagnose.code_places import attribute_place
from reslearn.diagnose.findings import ScreeningFinding, at, counted

if TYPE_CHECKING:
    from reslearn.diagnose.problem import Problem

_INTERNAL_ATTRIBUTES = frozenset(vars(nn.Module()))
_MAX_NESTING = 4
LEFT_OUT_SHARE = 0.5
"""From this share of values that the optimizer does not get, it is a proof."""


@dataclass(frozen=True, kw_only=True)
class AttributeHolder:
    """The attribute of a registered module that holds tensors which are not registered.

    Attributes:
        path: The module that has it, from the network; empty for the network.
    """

    owner: nn.Module
    path: str
    attribute: str
    value: Any


def wiring_findings(problem: Problem, seed: int) -> list[ScreeningFinding]:
    """Find trainable tensors that shape the outputs and that no optimizer gets."""
    net = problem.net(seed)
    trainable = [parameter for parameter in net.parameters() if parameter.requires_grad]
    optimizer = problem.make_optimizer(net.parameters(), problem.lr)
    reached = {id(parameter) for parameter in trainable}
    optimized: set[int] = set()
    for group in optimizer.param_groups:
        optimized |= {id(parameter) for parameter in group["params"]}
    inputs, targets = problem.inputs[: problem.batch_size], problem.targets[: problem.batch_size]
    with torch.random.fork_rng(devices=[]), torch.enable_grad():
        torch.manual_seed(seed)
        outputs = net.train()(inputs)
    leaves = {id(leaf): leaf for leaf in trainable_leaves(outputs)}
    unreached = [leaf for key, leaf in leaves.items() if key not in reached | optimized]
    findings = _unregistered_findings(net, unreached)
    if not optimized & reached:
        torch.autograd.backward(problem.loss(outputs, targets))
        if not _step_changes(optimizer, trainable):
            findings.append(_no_parameters(problem))
    elif reached - optimized:
        findings.append(_partly_optimized(net, trainable, optimized))
    unused = [parameter for parameter in trainable if id(parameter) not in leaves]
    if _is_most(unused, trainable) and _shapes_outputs(net, unused, inputs, seed):
        findings.append(_cut_finding(net, unused, trainable))
    return findings


def trainable_leaves(outputs: Tensor) -> list[Tensor]:
    """Return the tensors that require a gradient and on which the outputs depend."""
    leaves = []
    pending = [outputs.grad_fn]
    visited: set[Any] = set()
    while pending:
        node = pending.pop()
        if node is None or node in visited:
            continue
        visited.add(node)
        if type(node).__name__ == "AccumulateGrad":
            leaves.append(node.variable)  # type: ignore[attr-defined]
        pending += [following for following, _ in node.next_functions]
    return leaves


def unregistered_modules(net: nn.Module) -> str:
    """Describe the attributes that hold modules or tensors which are not registered.

    Returns:
        One sentence per attribute with what to change. Empty if there are none.
    """
    sentences = dict.fromkeys(_advice(holder) for holder in unregistered_holders(net))
    return " ".join(sentences)


def unregistered_holders(net: nn.Module) -> list[AttributeHolder]:
    """Return the attributes that hold trainable tensors which are not registered, each once."""
    registered = {id(parameter) for parameter in net.parameters()}
    holders: dict[tuple[str, str], AttributeHolder] = {}
    for tensor, holder in _held_tensors(net):
        is_trainable = tensor.requires_grad and tensor.is_leaf
        if is_trainable and id(tensor) not in registered:
            holders.setdefault((holder.path, holder.attribute), holder)
    return list(holders.values())


def _unregistered_findings(net: nn.Module, unreached: Sequence[Tensor]) -> list[ScreeningFinding]:
    """Return one finding per attribute that holds tensors, and one for tensors without any."""
    holders: dict[int, AttributeHolder] = {}
    for tensor, holder in _held_tensors(net):
        holders.setdefault(id(tensor), holder)
    names = {id(parameter): name for name, parameter in net.named_parameters()}
    groups: dict[str, list[Tensor]] = {}
    for tensor in unreached:
        holder_or_none = holders.get(id(tensor))
        if id(tensor) in names:
            key = "late"
        elif holder_or_none is None:
            key = "lost"
        else:
            key = f"{holder_or_none.path}.self.{holder_or_none.attribute}"
        groups.setdefault(key, []).append(tensor)
    findings = []
    for key, tensors in groups.items():
        if key == "late":
            findings.append(_late_finding(tensors, names[id(tensors[0])]))
        elif key == "lost":
            findings.append(_lost_finding(tensors))
        else:
            findings.append(_held_finding(holders[id(tensors[0])], tensors))
    return findings


def _held_tensors(net: nn.Module) -> Iterator[tuple[Tensor, AttributeHolder]]:
    """Yield tensors in attributes that nn.Module does not register, with their attributes."""
    for path, module in net.named_modules():
        for attribute, value in vars(module).items():
            if attribute in _INTERNAL_ATTRIBUTES:
                continue
            holder = AttributeHolder(owner=module, path=path, attribute=attribute, value=value)
            for tensor in _tensors_inside(value, _MAX_NESTING, set()):
                yield tensor, holder


def _tensors_inside(value: Any, nesting: int, visited: set[int]) -> Iterator[Tensor]:
    """Yield the tensors in containers, modules and plain objects."""
    if id(value) in visited or nesting < 0 or isinstance(value, type | str | bytes | int | float):
        return
    visited.add(id(value))
    if isinstance(value, Tensor):
        yield value
        return
    parts: list[Any] = []
    if isinstance(value, nn.Module):
        for module in value.modules():
            parts += module._parameters.values()
            parts += [part for name, part in vars(module).items() if not _is_internal(name)]
    elif isinstance(value, dict):
        parts = list(value.values())
    elif isinstance(value, list | tuple | set | frozenset):
        parts = list(value)
    elif hasattr(value, "__dict__") and not callable(value):
        parts = list(vars(value).values())
    for part in parts:
        yield from _tensors_inside(part, nesting - 1, visited)


def _is_internal(attribute: str) -> bool:
    return attribute in _INTERNAL_ATTRIBUTES


def _advice(holder: AttributeHolder) -> str:
    """Say what the attribute is and what to make of it, in two sentences."""
    name = f"self.{holder.attribute}"
    location = at(attribute_place(holder.owner, holder.attribute))
    owner, kind = type(holder.owner).__name__, type(holder.value).__name__
    article = "an" if kind[:1].lower() in "aeiou" else "a"
    if isinstance(holder.value, Tensor):
        return (
            f"{name} of {owner} is a plain tensor, so no optimizer trains it. "
            f"Make it a parameter: {name} = nn.Parameter(...){location}."
        )
    has_modules = any(isinstance(part, nn.Module) for part in _elements(holder.value))
    word = "Module" if has_modules else "Parameter"
    if isinstance(holder.value, dict):
        change = f"Make it an nn.{word}Dict: {name} = nn.{word}Dict({{...}}){location}."
    elif isinstance(holder.value, list | tuple):
        change = f"Make it an nn.{word}List: {name} = nn.{word}List([...]){location}."
    else:
        change = f"Assign the modules in it to attributes of {owner}{location}."
    subject = "its layers" if has_modules else "its weights"
    return (
        f"{name} of {owner} is {article} {kind}, so torch does not know {subject} and no optimizer "
        f"trains them. {change}"
    )


def _elements(value: Any) -> Iterator[Any]:
    """Yield the elements of nested containers."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list | tuple | set | frozenset):
        for part in value:
            yield from _elements(part)
    else:
        yield value


def _held_finding(holder: AttributeHolder, tensors: Sequence[Tensor]) -> ScreeningFinding:
    return ScreeningFinding(
        check="unregistered parameters",
        level="proof",
        causes=("untrained parameters",),
        message=_advice(holder),
        evidence=f"{_size(tensors)} of self.{holder.attribute} shape the outputs, but are not in "
        "net.parameters().",
        attribute=f"self.{holder.attribute}",
        location=attribute_place(holder.owner, holder.attribute),
    )


def _late_finding(tensors: Sequence[Tensor], name: str) -> ScreeningFinding:
    return ScreeningFinding(
        check="late parameters",
        level="proof",
        causes=("untrained parameters",),
        message=f"{name} is created at the first call of the network, after the optimizer got the "
        "parameters, so it is never trained. Create it in __init__, or call the network once on an "
        "example inside build.",
        evidence=f"{_size(tensors)} shape the outputs, but are not in net.parameters() before the "
        "first call.",
        attribute=name,
    )


def _lost_finding(tensors: Sequence[Tensor]) -> ScreeningFinding:
    shapes = ", ".join(str(tuple(tensor.shape)) for tensor in tensors[:3])
    return ScreeningFinding(
        check="unregistered parameters",
        level="proof",
        causes=("untrained parameters",),
        message="The outputs depend on trainable tensors that no attribute of the network holds, "
        "so no optimizer trains them. If forward creates layers, create them in __init__; if they "
        "are global, assign them to attributes.",
        evidence=f"{_size(tensors)} (of shape {shapes}) shape the outputs, but are not in "
        "net.parameters().",
    )


def _no_parameters(problem: Problem) -> ScreeningFinding:
    return ScreeningFinding(
        check="optimizer without parameters",
        level="proof",
        causes=("untrained parameters",),
        message="The optimizer has none of the network's parameters, so no step changes the "
        f"network. Make {problem.optimizer_name} use the parameters that it is passed.",
        evidence="After one step of the optimizer, every parameter is the same as before.",
        attribute=problem.optimizer_name,
    )


def _partly_optimized(
    net: nn.Module, trainable: Sequence[Tensor], optimized: set[int]
) -> ScreeningFinding:
    left_out = [parameter for parameter in trainable if id(parameter) not in optimized]
    first = _names(net, left_out)[0]
    is_most = _is_most(left_out, trainable)
    return ScreeningFinding(
        check="optimizer without some parameters",
        level="proof" if is_most else "note",
        causes=("untrained parameters",) if is_most else (),
        message=f"The optimizer does not get {_listed(net, left_out)}, so no step changes them. "
        "Give it all of net.parameters(). If they are frozen on purpose, set their requires_grad "
        "to False.",
        evidence=f"It leaves out {_size(left_out)} of {_size(trainable)}.",
        attribute=first,
    )


def _is_most(tensors: Sequence[Tensor], trainable: Sequence[Tensor]) -> bool:
    num_values, num_trainable = (sum(t.numel() for t in ts) for ts in (tensors, trainable))
    return num_values >= LEFT_OUT_SHARE * num_trainable


def _names(net: nn.Module, parameters: Sequence[Tensor]) -> list[str]:
    names = {id(parameter): name for name, parameter in net.named_parameters()}
    return [names[id(parameter)] for parameter in parameters]


def _listed(net: nn.Module, parameters: Sequence[Tensor]) -> str:
    first, *further = _names(net, parameters)
    return f"{first} and {len(further)} more" if further else first


@torch.no_grad()
def _shapes_outputs(
    net: nn.Module, parameters: Sequence[Tensor], inputs: Tensor, seed: int
) -> bool:
    """Return whether the outputs change with parameters, which are left changed."""

    def outputs() -> Tensor:
        torch.manual_seed(seed)
        result: Tensor = net.eval()(inputs)
        return result

    with torch.random.fork_rng(devices=[]):
        before = outputs()
        for parameter in parameters:
            parameter.add_(torch.randn_like(parameter))
        return not torch.equal(before, outputs())


def _cut_finding(
    net: nn.Module, unused: Sequence[Tensor], trainable: Sequence[Tensor]
) -> ScreeningFinding:
    return ScreeningFinding(
        check="parameters behind a cut",
        level="proof",
        causes=("untrained parameters",),
        message=f"{_listed(net, unused)} shape the outputs, but no gradient reaches them, so they "
        "never change. Does forward use detach, .data, .item(), torch.no_grad or NumPy? If they "
        "are frozen on purpose, set their requires_grad to False.",
        evidence=f"{_size(unused)} of {_size(trainable)} are not in the graph of the outputs.",
        attribute=_names(net, unused)[0],
    )


def _step_changes(optimizer: torch.optim.Optimizer, trainable: Sequence[Tensor]) -> bool:
    """Make a step and return whether it changes a parameter of the network."""
    before = [parameter.detach().clone() for parameter in trainable]
    optimizer.step()
    pairs = zip(before, trainable, strict=True)
    return any(not torch.equal(old, new.detach()) for old, new in pairs)


def _size(tensors: Sequence[Tensor]) -> str:
    num_values = sum(tensor.numel() for tensor in tensors)
    return f"{counted(len(tensors), 'tensor')} with {counted(num_values, 'value')}"
