"""Counts agree with an independent counter, and counting does not change the network."""

import math

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from reslearn.models import build, complexity


@pytest.mark.parametrize("name", ["plain8", "resnet14", "resnet50"])
def test_macs_equal_the_count_of_pytorch(name: str) -> None:
    net = build(name, num_classes=10)
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad():
        net(torch.randn(2, 3, 64, 64))
    assert (
        counter.get_total_flops() == 2 * 2 * complexity(net, (3, 64, 64)).macs
    )  # a MAC is two operations; two images


def test_counting_does_not_change_the_network() -> None:
    net = build("resnet8", num_classes=10).train()
    before = {key: value.clone() for key, value in net.state_dict().items()}
    complexity(net)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in net.modules())
    assert net.training and all(parameter.device.type == "cpu" for parameter in net.parameters())
    assert all(torch.equal(before[key], value) for key, value in net.state_dict().items())


def test_a_wrong_input_shape_is_refused_and_hooks_are_removed() -> None:
    net = build("resnet8", num_classes=10)
    with pytest.raises(ValueError, match=r"input_shape=\(1, 32, 32\)"):
        complexity(net, (1, 32, 32))
    assert not any(module._forward_hooks for module in net.modules())


def test_batch_norm_of_other_channels_is_refused() -> None:
    for norm in (nn.BatchNorm1d(7), nn.BatchNorm1d(7, track_running_stats=False)):
        with pytest.raises(ValueError, match="cannot take it: batch norm of 7 channels got 6"):
            complexity(nn.Sequential(nn.Conv1d(4, 6, 3), norm), (4, 10))
    without_parameters = nn.BatchNorm1d(7, affine=False, track_running_stats=False)
    assert complexity(nn.Sequential(nn.Conv1d(4, 6, 3), without_parameters), (4, 10)).macs == 576


def test_totals_are_the_sums_over_layers() -> None:
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


def test_a_network_on_the_meta_device_stays_on_it() -> None:
    with torch.device("meta"):
        net = build("resnet56", num_classes=10)
    assert complexity(net).macs == 125_485_696
    assert all(tensor.is_meta for tensor in net.state_dict().values())


def test_a_network_of_the_user_is_counted() -> None:
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


def test_half_precision_has_the_same_counts() -> None:
    net = build("resnet8", num_classes=10)
    assert complexity(net) == complexity(net.to(torch.bfloat16))
