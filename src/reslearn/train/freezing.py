"""Freeze stages of a network, so that they keep their weights during fine-tuning."""

from torch import nn

from reslearn.models import Network


def freeze_stages(network: Network, num_stages: int) -> None:
    """Freeze the first stages of `network`, and the stem with them.

    Their weights get no gradients. `set_training_mode` keeps their batch norm in evaluation mode,
    so the statistics of the weights that training starts from are used and stay.

    Raises:
        ValueError: If the network has fewer stages.
    """
    if not num_stages:
        return
    names = [name for name, _ in network.named_children() if name.startswith("stage")]
    if num_stages > len(names):
        raise ValueError(
            f"init.frozen_stages = {num_stages}: {network.name} has {len(names)} stages"
        )
    for name in ("stem", *names[:num_stages]):
        part = network.get_submodule(name)
        part.requires_grad_(False)
        for module in part.modules():
            module.is_frozen = True  # type: ignore[assignment]


def set_training_mode(network: nn.Module) -> None:
    """Set `network` to training mode, except for frozen modules."""
    network.train()
    for module in network.modules():
        if getattr(module, "is_frozen", False):
            module.eval()
