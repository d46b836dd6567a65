"""Initial weights (Sec. 3.4): standard deviations, zeros, and the size of the signal with depth."""

import math

import pytest
import torch
from torch import nn

from reslearn.models import build, last_batch_norm
from reslearn.models.network import Init


@pytest.mark.parametrize("init", ["he_fan_out", "he_fan_in", "normal_0.01"])
@pytest.mark.parametrize("normalize", [True, False])
def test_weights_have_the_standard_deviation_of_their_initialization(
    init: Init, normalize: bool
) -> None:
    torch.manual_seed(0)
    net = build("resnet20", num_classes=10, init=init, normalize=normalize)
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            area = math.prod(module.kernel_size)
            fan = {
                "he_fan_out": module.out_channels * area,
                "he_fan_in": module.in_channels * area,
                "normal_0.01": 2e4,
            }[init]
            tolerance = 6 / math.sqrt(
                2 * module.weight.numel()
            )  # six standard errors of a standard deviation
            assert module.weight.std().item() == pytest.approx(math.sqrt(2 / fan), rel=tolerance)
            assert (module.bias is None) == normalize and (
                module.bias is None or not module.bias.any()
            )
        elif isinstance(module, nn.Linear):
            spread = 0.01 if init == "normal_0.01" else 1 / math.sqrt(3 * module.in_features)
            assert (
                module.weight.std().item() == pytest.approx(spread, rel=0.1)
                and not module.bias.any()
            )


@pytest.mark.parametrize("zero_init", [False, True])
def test_with_zero_init_every_block_is_its_shortcut_at_first(zero_init: bool) -> None:
    net = build("resnet14", num_classes=10, zero_init=zero_init)
    x = torch.randn(2, 3, 8, 8)
    outputs = net.stages(x)
    assert torch.equal(outputs["stem"], outputs["stage1"]) == zero_init
    assert all(
        bool((last_batch_norm(block).weight == 0).all()) == zero_init for _, block in net.blocks()
    )


def test_he_initialization_preserves_the_signal_and_normal_001_does_not() -> None:
    """Claim C6: in 32 plain layers without batch norm, N(0, 0.01) loses the signal."""

    def signal(init: Init) -> float:
        torch.manual_seed(0)
        net = build("plain32", num_classes=10, init=init, normalize=False)
        return net.stages(torch.randn(4, 3, 16, 16))["stage3"].std().item()

    assert 1e-2 < signal("he_fan_in") < 1e2
    assert signal("normal_0.01") < 1e-10


def test_weights_depend_on_the_seed() -> None:
    nets = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        nets.append(build("resnet8", num_classes=10).head.fc.weight)
    assert torch.equal(nets[0], nets[1]) and not torch.equal(nets[0], nets[2])
