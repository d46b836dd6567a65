"""Counting: against an independent counter, without a trace on the network, and for networks that are not ours."""

import math

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from reslearn.models import build, complexity


@pytest.mark.parametrize("name", ["plain8", "resnet14", "resnet50"])
def test_macs_agree_with_those_that_pytorch_counts(name: str) -> None:
    net = build(name, num_classes=10)
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad():
        net(torch.randn(2, 3, 64, 64))
    assert (
        counter.get_total_flops() == 2 * 2 * complexity(net, (3, 64, 64)).macs
    )  # a MAC is two operations; two images


def test_counting_leaves_no_trace() -> None:
    net = build("resnet8", num_classes=10).train()
    before = {key: value.clone() for key, value in net.state_dict().items()}
    complexity(net)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in net.modules())
    assert net.training and all(parameter.device.type == "cpu" for parameter in net.parameters())
    assert all(torch.equal(before[key], value) for key, value in net.state_dict().items())


def test_a_shape_that_does_not_fit_is_refused_and_leaves_no_trace() -> None:
    net = build("resnet8", num_classes=10)
    with pytest.raises(ValueError, match=r"input_shape=\(1, 32, 32\)"):
        complexity(net, (1, 32, 32))
    assert not any(module._forward_hooks for module in net.modules())


def test_layers_add_up() -> None:
    counted = complexity(build("resnet8", num_classes=10, shortcut="B"))
    assert sum(layer.parameters for layer in counted.layers) == counted.parameters
    assert sum(layer.macs for layer in counted.layers) == counted.macs
    assert counted.layers[0].name == "stem.conv" and counted.layers[-1].name == "head.fc"
    assert counted.layers[0].output_shape == (16, 32, 32) and counted.layers[-1].output_shape == (
        10,
    )
    weighted = [layer for layer in counted.layers if layer.macs]
    assert (
        counted.activations == sum(math.prod(layer.output_shape) for layer in weighted)
        and len(weighted) == 10
    )


def test_a_network_on_meta_stays_there() -> None:
    with torch.device("meta"):
        net = build("resnet56", num_classes=10)
    assert complexity(net).macs == 125_485_696
    assert all(tensor.is_meta for tensor in net.state_dict().values())


def test_a_foreign_network_counts_too() -> None:
    shared = nn.Linear(6, 6, bias=False)
    net = nn.Sequential(
        nn.Conv1d(4, 6, 3, groups=2),
        nn.BatchNorm1d(6),
        nn.AdaptiveAvgPool1d(1),
        nn.Flatten(),
        shared,
        nn.ReLU(),
        shared,
    )
    counted = complexity(net, (4, 10))
    assert counted.macs == 8 * 6 * 2 * 3 + 2 * 36
    assert (
        counted.parameters
        == 6 * 2 * 3 + 6 + 12 + 36
        == sum(layer.parameters for layer in counted.layers)
    )


def test_half_precision_counts_alike() -> None:
    net = build("resnet8", num_classes=10)
    assert complexity(net) == complexity(net.to(torch.bfloat16))
