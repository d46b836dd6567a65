"""Claim C10: deeper networks that compute the function of a shallow network."""

from typing import Any

import pytest
import torch

from reslearn.models import Network, build, extend_with_identities


def trained(name: str, **switches: Any) -> Network:
    """Return a network in which no weight and no statistic has its initial value."""
    torch.manual_seed(0)
    net = build(name, num_classes=10, **switches)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.05)
        for _ in range(3):
            net.train()(torch.randn(8, 3, 16, 16))
    return net.eval()


@pytest.mark.parametrize(
    "switches", [{}, {"shortcut": "B"}, {"normalize": False}, {"zero_init": True}]
)
def test_deeper_residual_networks_are_bit_identical(switches: dict[str, Any]) -> None:
    net = trained("resnet8", **switches)
    deeper = extend_with_identities(net, "resnet20")
    x = torch.randn(4, 3, 16, 16)
    assert torch.equal(deeper(x), net(x))
    assert deeper.spec == {**net.spec, "name": "resnet20"} and len(deeper.blocks()) == 9


@pytest.mark.parametrize(
    ("name", "deep", "switches"),
    [
        ("plain8", "plain56", {}),
        ("plain8", "plain20", {"normalize": False}),
        ("resnet8", "resnet20", {"shortcut": "C"}),
    ],
)
def test_deeper_networks_of_dirac_kernels_agree_up_to_rounding(
    name: str, deep: str, switches: dict[str, Any]
) -> None:
    net = trained(name, **switches)
    x = torch.randn(4, 3, 16, 16)
    torch.testing.assert_close(extend_with_identities(net, deep)(x), net(x), rtol=1e-4, atol=1e-4)


def test_a_changed_identity_layer_changes_the_output() -> None:
    net = trained("plain8")
    deeper = extend_with_identities(net, 2)
    deeper.stage2[1].body.conv1.weight.data.mul_(2)
    x = torch.randn(4, 3, 16, 16)
    assert not torch.allclose(deeper(x), net(x), atol=1e-2)


def test_blocks_per_stage_select_a_cifar_network() -> None:
    net = trained("plain8")
    assert extend_with_identities(net, 3).name == "plain20"
    assert extend_with_identities(net, 8).name == "plain50-cifar"
    assert extend_with_identities(net, 1).name == "plain8"


def test_the_deeper_network_can_be_trained_further() -> None:
    deeper = extend_with_identities(trained("resnet8").train(), "resnet14")
    assert deeper.training
    deeper(torch.randn(4, 3, 16, 16)).sum().backward()
    gamma = deeper.stage1[1].body.bn2.weight
    assert gamma.grad is not None and gamma.grad.any()


def test_imagenet_networks_are_extended_by_name() -> None:
    net = trained("resnet18")
    x = torch.randn(1, 3, 32, 32)
    assert torch.equal(extend_with_identities(net, "resnet34")(x), net(x))


@pytest.mark.parametrize(
    ("name", "deep", "message"),
    [
        ("plain14", "plain8", "fewer blocks"),
        ("plain8", "resnet20", "not of the family"),
        ("resnet8", "resnet34", "not of the family"),
        ("resnet18", 3, "no CIFAR network"),
        ("plain8", "plain21", "did you mean 'plain20'"),
        ("plain8", 0, "did you mean 'plain8'"),
    ],
)
def test_an_impossible_extension_is_refused(name: str, deep: str | int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        extend_with_identities(trained(name), deep)
