"""The same numbers as torchvision's and timm's own networks: logits and gradients, in evaluation and training mode, under weights and
statistics of chance. Needs `make peers`, and is skipped where there are none.

Bounds, relative to the largest number: 1e-5 in float32; in float64 1e-11, which is rounding of some hundred layers.
"""

import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from reslearn import models
from reslearn.interop import Checkpoint, Stored, identify, load_weights

sys.path.insert(0, str(Path(__file__).parent))
import peers

pytestmark = pytest.mark.skipif(not peers.installed(), reason=peers.REASON)
QUICK = ["torchvision:resnet18", "timm:resnet18d", "timm:resnetv2_18"]
LARGE = [
    *(f"torchvision:{name}" for name in ("resnet34", "resnet50", "resnet101", "resnet152", "resnext50_32x4d", "resnext101_32x8d")),
    *(f"torchvision:{name}" for name in ("resnext101_64x4d", "wide_resnet50_2", "wide_resnet101_2")),
    *(f"timm:{name}" for name in ("resnet50", "resnet34d", "resnet50d", "resnet101d", "resnet152d", "resnetv2_34", "resnetv2_50")),
    *(f"timm:{name}" for name in ("resnetv2_101", "resnext101_32x4d")),
]


def peer(name: str) -> nn.Module:
    """A network of theirs, with 10 classes, in float64."""
    project, _, network = name.partition(":")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # theirs are not ours to mend
        if project == "timm":
            import timm

            net: nn.Module = timm.create_model(network, num_classes=10)
        else:
            import torchvision

            net = torchvision.models.get_model(network, num_classes=10)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.weight.data, module.running_var):
                tensor.uniform_(0.5, 1.5)
            for tensor in (module.bias.data, module.running_mean):
                tensor.uniform_(-0.2, 0.2)
    return net.double()


def ours(net: nn.Module) -> models.Network:
    """The network that our identification makes of their state."""
    state = net.state_dict()
    stored = {key: Stored(shape=tuple(value.shape), dtype=value.dtype, read=value.clone) for key, value in state.items()}
    identity = identify(Checkpoint(path=peers.ROOT, container="state", entries={"": stored}))
    again = models.build(**identity.spec, num_classes=10).double()
    loaded = load_weights(again, identity)
    assert (loaded.fresh, loaded.unused) == ((), ())
    return again


def check(name: str) -> None:
    theirs = peer(name)
    net = ours(theirs)
    for dtype, bound in ((torch.float64, 1e-11), (torch.float32, 1e-5)):
        x = torch.randn(2, 3, 64, 64, dtype=dtype)
        for training in (False, True):
            results = [run(part.to(dtype).train(training), x) for part in (theirs, net)]
            for expected, found in zip(*results, strict=True):
                difference = float((expected - found).abs().max() / expected.abs().max())
                assert difference <= bound, f"{name}, {dtype}, training {training}: {difference}"


def run(net: nn.Module, x: torch.Tensor) -> list[Any]:
    """Logits, and the gradient of a sum of squares with respect to the image: it goes through every layer."""
    x = x.clone().requires_grad_()
    logits = net(x)
    (gradient,) = torch.autograd.grad(logits.square().sum(), x)
    return [logits.detach(), gradient]


@pytest.mark.parametrize("name", QUICK)
def test_logits_and_gradients_are_theirs(name: str) -> None:
    check(name)


@pytest.mark.slow
@pytest.mark.parametrize("name", LARGE)
def test_logits_and_gradients_are_theirs_in_large(name: str) -> None:
    check(name)
