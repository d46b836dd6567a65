"""Say before a training whether torchvision and Hugging Face can load the trained network.

Their networks have a 7x7 stem, projections where the shape changes (option B), and bottlenecks that
stride in the 3x3 convolution. The paper's defaults differ in all three.
"""

from typing import Any

from torch import nn

from reslearn.interop import dialect_named
from reslearn.interop.write import differing_switches
from reslearn.models import Network

_PROJECTS = {"torchvision": "torchvision", "hf": "Hugging Face"}
_REASONS = {
    "shortcut": "its shortcuts are of option {}",
    "stride_in": "its bottlenecks stride in the {} convolution",
}


def export_note(network: nn.Module, *, has_weights: bool) -> str:
    """Return one line if projects cannot load the network, and could with other settings.

    Args:
        network: The network that will be trained.
        has_weights: Whether the training starts from weights, which decide the settings.

    Returns:
        An empty text if the projects can load the network, or have nothing like it, such as a
        plain network.
    """
    if not isinstance(network, Network):
        return ""
    projects: list[str] = []
    needed: dict[str, tuple[Any, ...]] = {}
    for dialect, project in _PROJECTS.items():
        if differences := differing_switches(network, dialect_named(dialect)):
            projects.append(project)
            needed |= differences
    if not needed or network.spec["shortcut"] is None:
        return ""
    if network.spec["stem"] == "cifar":
        reason = f"{network.name} has a CIFAR stem"
        advice = "train another, as with --model resnet18 --set model.shortcut=B"
    elif needed.keys() <= _REASONS.keys():
        reasons = [_REASONS[key].format(network.spec[key]) for key in needed]
        reason = " and ".join(reasons)
        advice = "add " + " ".join(f"--set model.{key}={needed[key][0]}" for key in needed)
    else:
        return ""
    if has_weights:
        advice = "start from other weights"
    return (
        f"{' and '.join(projects)} cannot load the trained network, because {reason}; to export "
        f"a network there, {advice}"
    )
