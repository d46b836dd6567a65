"""Gradient norms equal plain autograd, and vanishing signals are detected (claim C9)."""

import math
from copy import deepcopy

import pytest
import torch
from torch.nn import functional

from reslearn.analysis import first_to_last, forward_signal, gradients
from reslearn.models import build


@pytest.fixture
def batch() -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(16, 1, 8, 8), torch.arange(16) % 10


@pytest.mark.parametrize("name", ["plain14", "resnet14"])
def test_norms_equal_plain_autograd(name: str, batch: tuple[torch.Tensor, torch.Tensor]) -> None:
    net = build(name, num_classes=10, in_channels=1)
    x, y = batch
    found = gradients(net, x, y, step=7)
    by_hand = deepcopy(net).train()
    outputs = {}
    hidden = by_hand.get_submodule("stem")(x)
    for block_name, block in by_hand.blocks():
        hidden = outputs[block_name] = block(hidden)
    loss = functional.cross_entropy(by_hand.head(hidden), y)
    expected = torch.autograd.grad(loss, list(outputs.values()), retain_graph=True)
    weight = by_hand.get_submodule("stage2.0.body.conv1").weight
    (weight_gradient,) = torch.autograd.grad(loss, [weight])
    assert found.step == 7
    assert found.loss == pytest.approx(float(loss.detach()))
    assert [layer.name for layer in found.signal] == list(outputs)
    assert [layer.norm for layer in found.signal] == pytest.approx(
        [float(gradient.norm()) for gradient in expected], rel=1e-5
    )
    weights = {layer.name: layer.norm for layer in found.weights}
    assert weights["stage2.0.body.conv1"] == pytest.approx(float(weight_gradient.norm()), rel=1e-5)
    assert len(weights) == 13


def test_the_network_is_not_changed(batch: tuple[torch.Tensor, torch.Tensor]) -> None:
    net = build("plain8", num_classes=10, in_channels=1).eval().requires_grad_(False)
    before = deepcopy(net.state_dict())
    gradients(net, *batch)
    forward_signal(net, batch[0])
    assert not net.training
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())
    assert all(
        parameter.grad is None and not parameter.requires_grad for parameter in net.parameters()
    )


def test_a_vanishing_signal_is_detected(batch: tuple[torch.Tensor, torch.Tensor]) -> None:
    """Weights from N(0, 0.01) without batch norm shrink the signal of a plain network per layer.

    The signal of the residual network does not shrink.
    """
    vanishing = build("plain32", num_classes=10, in_channels=1, init="normal_0.01", normalize=False)
    carried = build("resnet32", num_classes=10, in_channels=1)
    assert gradients(vanishing, *batch).signal_ratio < 1e-6
    assert 0.01 < gradients(carried, *batch).signal_ratio < 100
    strength = [rms for _, rms in forward_signal(vanishing, batch[0])]
    assert strength[-1] < 1e-12 * strength[0]
    assert [name for name, _ in forward_signal(carried, batch[0])][:2] == ["stem", "stage1.0"]


def test_first_to_last_is_two_sided() -> None:
    assert first_to_last([1, 1, 100, 5, 5, 4, 2, 2, 0.1]) == pytest.approx(0.5)
    assert first_to_last([8, 1]) == 8
    assert first_to_last([3.0]) == 1
    assert first_to_last([1, 1, 0]) == math.inf
    assert math.isnan(first_to_last([0, 0, 0]))
    with pytest.raises(ValueError, match="no norms"):
        first_to_last([])
