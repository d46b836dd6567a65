"""With exact batch-norm statistics, the response of a layer is its gamma (Fig. 7)."""

import pytest
import torch
from torch import nn

from reslearn.analysis import responses
from reslearn.evaluate import recompute_batch_norm
from reslearn.models import build


@pytest.fixture
def batches() -> list[tuple[torch.Tensor, torch.Tensor]]:
    return [(torch.randn(40, 1, 16, 16), torch.zeros(40, dtype=torch.int64)) for _ in range(2)]


def test_with_exact_statistics_a_response_is_gamma(
    batches: list[tuple[torch.Tensor, torch.Tensor]],
) -> None:
    """With variance 1, the same gamma for all channels and beta 0, the deviation is |gamma|."""
    net = build("resnet8", num_classes=10, in_channels=1)
    gammas = {}
    for index, (name, module) in enumerate(net.response_layers()):
        gammas[name] = (-1) ** index * (0.25 + 0.5 * index)
        nn.init.constant_(module.get_parameter("weight"), gammas[name])
    recompute_batch_norm(net, [(torch.cat([x for x, _ in batches]), batches[0][1])])
    found = {layer.layer: layer for layer in responses(net.eval(), batches)}
    assert list(found) == list(gammas)
    for name, gamma in gammas.items():
        # The running variance is unbiased, and eps is added to it, so the variance of z is slightly
        # below 1.
        assert found[name].standard_deviation == pytest.approx(abs(gamma), rel=2e-3)
        assert found[name].gamma_rms == pytest.approx(abs(gamma))


def test_without_batch_norm_the_response_is_the_deviation_of_the_convolution(
    batches: list[tuple[torch.Tensor, torch.Tensor]],
) -> None:
    net = build("plain8", num_classes=10, in_channels=1, normalize=False).train()
    first = responses(net, batches)[0]
    with torch.no_grad():
        output = net.get_submodule("stem.conv")(torch.cat([x for x, _ in batches]))
    assert first.layer == "stem.conv"
    assert first.gamma_rms is None
    assert first.standard_deviation == pytest.approx(float(output.std(correction=0)), rel=1e-5)
    assert net.training


def test_only_3x3_layers_count() -> None:
    net = build("resnet50", num_classes=10)
    found = responses(net, [(torch.randn(2, 3, 32, 32), torch.zeros(2, dtype=torch.int64))])
    assert len(found) == 16
    assert all(layer.layer.endswith("body.conv2") for layer in found)


def test_empty_batches_are_refused() -> None:
    with pytest.raises(ValueError, match="no image"):
        responses(build("plain8", num_classes=10), [])
