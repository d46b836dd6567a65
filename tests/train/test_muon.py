"""Muon: orthogonalized momentum, and filter banks of constant norm."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from reslearn import models
from reslearn.train.optimizer import Muon, orthogonalize


@given(
    out=st.sampled_from([16, 32, 64]),
    into=st.sampled_from([3, 16, 64]),
    seed=st.integers(0, 20),
    scale=st.sampled_from([1e-6, 1.0, 1e6]),
)
def test_singular_values_become_about_one(out: int, into: int, seed: int, scale: float) -> None:
    update = torch.randn(out, into, 3, 3, generator=torch.Generator().manual_seed(seed)) * scale
    result = orthogonalize(update)
    assert result.shape == update.shape
    values = torch.linalg.svdvals(result.reshape(out, -1))
    assert float(values.min()) > 0.5
    assert float(values.max()) < 1.3


def test_singular_vectors_stay_the_same() -> None:
    left, _ = torch.linalg.qr(torch.randn(8, 8))
    right, _ = torch.linalg.qr(torch.randn(18, 18))
    spectrum = torch.linspace(1.0, 0.4, 8)
    update = (left * spectrum) @ right[:8]
    result = orthogonalize(update.reshape(8, 2, 3, 3)).reshape(8, 18)
    rotated = left.T @ result @ right[:8].T
    torch.testing.assert_close(rotated, torch.diag(rotated.diagonal()), atol=1e-4, rtol=0)
    assert bool((rotated.diagonal() > 0.5).all())


def test_filters_keep_their_norm_and_other_parameters_follow_nesterov() -> None:
    torch.manual_seed(0)
    net = models.build("resnet8", num_classes=10)
    net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    twin = models.build("resnet8", num_classes=10)
    twin.load_state_dict(net.state_dict())
    muon = Muon(net, lr=0.1, filter_lr=0.05, momentum=0.9, weight_decay=0.01)
    decayed = (
        [twin.head.fc.weight]
        if isinstance(twin.head.fc, nn.Linear)
        else pytest.fail("the head has no fc")
    )
    others = [parameter for parameter in twin.parameters() if parameter.ndim == 1]
    sgd = torch.optim.SGD(
        [{"params": decayed, "weight_decay": 0.01}, {"params": others}],
        lr=0.1,
        momentum=0.9,
        nesterov=True,
    )
    for _ in range(4):
        for (name, parameter), copy in zip(net.named_parameters(), twin.parameters(), strict=True):
            parameter.grad = torch.randn_like(parameter)
            copy.grad = parameter.grad.clone()
            assert parameter.shape == copy.shape, name
        muon.step()
        sgd.step()
        for parameter, copy in zip(net.parameters(), twin.parameters(), strict=True):
            if parameter.ndim > 2:
                assert float(parameter.detach().norm()) == pytest.approx(
                    math.sqrt(len(parameter)), rel=0.08
                )
            else:
                torch.testing.assert_close(parameter, copy)
    for parameter in net.parameters():
        if parameter.ndim > 2:
            parameter.grad = None
    before = [parameter.clone() for parameter in net.parameters() if parameter.ndim > 2]
    muon.step()
    assert all(
        torch.equal(one, other)
        for one, other in zip(before, (p for p in net.parameters() if p.ndim > 2), strict=True)
    )
