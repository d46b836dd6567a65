"""Grad-CAM: equals CAM for a pooled head, finds a planted spot, and changes nothing."""

import pytest
import torch

from reslearn import models
from reslearn.analysis import grad_cam


def trained_like(**switches: object) -> models.Network:
    net = models.build("resnet8", num_classes=5, **switches)
    net(torch.randn(8, 3, 16, 16))  # so that the statistics are not the initial ones
    return net.eval()


@pytest.mark.parametrize("preactivation", [False, True])
def test_it_is_the_class_activation_map_of_a_pooled_head(preactivation: bool) -> None:
    net = trained_like(preactivation=preactivation)
    x, classes = torch.randn(6, 3, 16, 16), torch.tensor([0, 1, 2, 3, 4, 0])
    heat = grad_cam(net, x, classes)
    with torch.no_grad():
        maps = net.forward_features(x)
        weights = net.head.get_submodule("fc").weight[classes]
    expected = torch.einsum("bk,bkhw->bhw", weights, maps).clamp_min(0)
    greatest = expected.amax((1, 2), keepdim=True)
    torch.testing.assert_close(heat, expected / greatest.clamp_min(1e-30), rtol=1e-3, atol=1e-5)
    assert heat.shape == (6, 4, 4)
    assert heat.min() >= 0 and heat.amax((1, 2)).eq(1).logical_or(greatest.flatten() == 0).all()


def test_a_class_that_nothing_speaks_for_has_an_empty_map() -> None:
    net = trained_like()
    torch.nn.init.constant_(net.head.get_submodule("fc").weight, -1.0)
    assert grad_cam(net, torch.randn(2, 3, 16, 16), torch.tensor([0, 1])).eq(0).all()


def test_modes_and_gradients_are_unchanged_even_where_gradients_are_off() -> None:
    net = trained_like().train()
    net.blocks()[0][1].eval()
    modes = [module.training for module in net.modules()]
    x, classes = torch.randn(2, 3, 16, 16), torch.tensor([0, 1])
    with torch.no_grad():
        without_gradients = grad_cam(net, x, classes)
    assert torch.equal(without_gradients, grad_cam(net, x, classes))
    assert [module.training for module in net.modules()] == modes
    assert all(parameter.grad is None for parameter in net.parameters())
    assert not without_gradients.requires_grad
