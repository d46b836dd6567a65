"""Register modules and tensors that a network keeps in plain attributes, as lists of layers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from reslearn.diagnose.problem import Problem
from reslearn.diagnose.variant import Variant
from reslearn.diagnose.wiring import unregistered_holders


@dataclass(frozen=True, kw_only=True)
class Registration:
    """An attribute whose value must pass through a class of torch.nn.

    Attributes:
        path: The module that has the attribute, from the network; empty for the network.
        owner: The name of its class.
        wrapper: The class of torch.nn, as "ModuleList".
    """

    path: str
    owner: str
    attribute: str
    wrapper: str

    def apply(self, net: nn.Module) -> None:
        """Register the value in place; its tensors stay the same."""
        module = net.get_submodule(self.path)
        value = getattr(module, self.attribute)
        setattr(module, self.attribute, getattr(nn, self.wrapper)(value))


def registrations(net: nn.Module) -> list[Registration]:
    """Return what must be registered, in the order of the network.

    Raises:
        ValueError: If a value is neither a tensor nor a flat list, tuple or dictionary of modules
            or tensors.
    """
    return [
        Registration(
            path=holder.path,
            owner=type(holder.owner).__name__,
            attribute=holder.attribute,
            wrapper=_wrapper_of(holder.value),
        )
        for holder in unregistered_holders(net)
    ]


def registered(problem: Problem) -> Variant | None:
    """Return the network with its modules registered.

    Returns:
        None if there is nothing to register, or if a value has no class of torch.nn.
    """
    try:
        changes = registrations(problem.net(0))
    except ValueError:
        return None
    if not changes:
        return None

    def make(seed: int) -> nn.Module:
        net = problem.net(seed)
        for change in changes:
            change.apply(net)
        return net

    return Variant(
        name="registered",
        description="the modules in plain attributes are registered",
        problem=problem,
        make=make,
    )


def _wrapper_of(value: Any) -> str:
    if isinstance(value, Tensor):
        return "Parameter"
    parts = list(value.values()) if isinstance(value, dict) else value
    if isinstance(parts, list | tuple):
        kind = "Dict" if isinstance(value, dict) else "List"
        for name, element in (("Module", nn.Module), ("Parameter", Tensor)):
            if all(isinstance(part, element) for part in parts):
                return f"{name}{kind}"
    raise ValueError("nested containers and other objects have no class of torch.nn")
