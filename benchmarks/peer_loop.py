"""The rivals on a GPU: networks of torchvision and timm in the plainest loop that is correct there.

The loop uses channels_last, bf16 autocast and fused SGD, with torch.compile or without. It trains
on one batch that stays in the device's memory, so it pays nothing for data. Neither project has
CIFAR networks; for these, `autocast` trains the networks of the plain loop. Nothing of reslearn is
used.
"""

from collections.abc import Iterator
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType

import numpy as np
import numpy.typing as npt
import torch
from benchmarks import peers
from benchmarks.plain_loop import network
from torch import Tensor, nn


def peer_network(peer: str, name: str, num_classes: int) -> nn.Module:
    """Build a network of a peer.

    Raises:
        ValueError: If the peer is not installed.
    """
    if peer == "autocast":
        return network(name)
    module = _import_peer(peer)
    create = module.create_model if peer == "timm" else module.models.get_model
    net: nn.Module = create(name, num_classes=num_classes)
    return net


def _import_peer(peer: str) -> ModuleType:
    """Import torchvision or timm, from this environment or from `.venv-peers`."""
    if find_spec(peer) is None and not peers.installed():
        raise ValueError(peers.REASON)
    return import_module(peer)


def peer_loop(
    peer: str,
    name: str,
    pixels: npt.NDArray[np.uint8],
    labels: npt.NDArray[np.int64],
    *,
    batch_size: int,
    device: str,
    compiled: bool,
) -> Iterator[Tensor]:
    """Train forever; each `next` makes one step of SGD and returns its loss, on the device."""
    net = peer_network(peer, name, int(labels.max()) + 1).train()
    # torch's stub lacks memory_format.
    net = net.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    x = torch.from_numpy(pixels[:batch_size]).to(device).permute(0, 3, 1, 2)
    x = x.float().div(255).sub(0.5).div(0.25)
    y = torch.from_numpy(labels[:batch_size]).to(device)
    optimizer = torch.optim.SGD(
        net.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-4, fused=True
    )
    loss_function = nn.CrossEntropyLoss()
    forward = torch.compile(net) if compiled else net
    while True:
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(torch.device(device).type, dtype=torch.bfloat16):
            loss: Tensor = loss_function(forward(x), y)
        torch.autograd.backward(loss)
        optimizer.step()
        yield loss.detach()
