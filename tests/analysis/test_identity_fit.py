"""Chains of blocks can be fitted to y = x (claim C11)."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from reslearn.analysis import chain, identity_loss, inputs
from reslearn.train import fit


def test_both_kinds_start_from_the_same_weights() -> None:
    with_shortcuts = chain(num_blocks=3, width=8, with_shortcuts=True, seed=1).state_dict()
    without = chain(num_blocks=3, width=8, with_shortcuts=False, seed=1).state_dict()
    assert all(torch.equal(with_shortcuts[key], without[key]) for key in without)


def test_the_loss_is_in_units_of_the_variance() -> None:
    x = inputs(num_inputs=500, width=8, seed=0)
    assert bool((x >= 0).all())
    assert torch.equal(x, inputs(num_inputs=500, width=8, seed=0))
    assert identity_loss(nn.Identity(), x) == 0
    zeroed = chain(num_blocks=2, width=8, with_shortcuts=True, seed=0)
    for block in zeroed:
        nn.init.zeros_(block.body[4].weight)
    assert identity_loss(zeroed, x) == 0
    constant = chain(num_blocks=1, width=8, with_shortcuts=False, seed=0)
    nn.init.zeros_(constant[0].body[4].weight)
    with torch.no_grad():
        constant[0].body[4].bias.copy_(x.mean(0))
    assert identity_loss(constant, x) == pytest.approx(1)


def test_a_chain_can_be_fitted() -> None:
    net, x = (
        chain(num_blocks=2, width=8, with_shortcuts=True, seed=0),
        inputs(num_inputs=64, width=8, seed=0),
    )
    before = identity_loss(net, x)
    fit(
        net,
        [(x, x)],
        functional.mse_loss,
        torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9),
        steps=30,
    )
    assert identity_loss(net, x) < 0.5 * before
