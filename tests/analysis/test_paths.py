"""The gradients of all paths sum up to the gradient, by path length (Veit et al. 2016)."""

import itertools
import math
from copy import deepcopy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from reslearn.analysis import paths
from reslearn.analysis.paths import BlockwiseBackward, summarize
from reslearn.models import Network, Residual, build


@pytest.fixture
def batch() -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(12, 1, 8, 8), torch.arange(12) % 10


def gradient_at_the_first_block(net: Network, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Return the gradient by plain autograd, in training mode."""
    twin = deepcopy(net).train()
    hidden = entry = twin.get_submodule("stem")(x).detach().requires_grad_()
    for _, block in twin.blocks():
        hidden = block(hidden)
    (gradient,) = torch.autograd.grad(functional.cross_entropy(twin.head(hidden), y), entry)
    return gradient


@pytest.mark.parametrize(
    "switches",
    [{"shortcut": "A"}, {"shortcut": "B"}, {"shortcut": "C"}, {"normalize": False}],
    ids=str,
)
def test_the_gradients_of_all_paths_add_up_to_the_gradient(
    switches: dict[str, object], batch: tuple[torch.Tensor, torch.Tensor]
) -> None:
    net = build("resnet8", num_classes=10, in_channels=1, **switches)
    backward = BlockwiseBackward(net, *batch)
    expected = gradient_at_the_first_block(net, *batch)
    torch.testing.assert_close(backward.gradient(["both"] * 3), expected)
    every = [through for length in range(4) for through in itertools.combinations(range(3), length)]
    torch.testing.assert_close(
        torch.stack([backward.path(through) for through in every]).sum(0), expected
    )
    assert paths(net, *batch).gradient_norm == pytest.approx(float(expected.norm()), rel=1e-4)


def test_paths_of_a_linear_chain_equal_products_of_matrices() -> None:
    """In blocks x + W x, the gradient of a path is a product of transposed matrices W."""
    torch.manual_seed(3)
    bodies = [nn.Conv2d(2, 2, 1, bias=False) for _ in range(4)]
    head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2, 3))
    chain = [Residual(body, nn.Identity(), nn.Identity()) for body in bodies]
    net = Network(
        stem=nn.Identity(),
        stages=[chain[:2], chain[2:]],
        head=head,
        spec={"name": "chain", "num_classes": 3},
    )
    x, y = torch.randn(5, 2, 1, 1), torch.arange(5) % 3
    weights = [body.weight[:, :, 0, 0].detach() for body in bodies]
    hidden = x[:, :, 0, 0].T
    for weight in weights:
        hidden = hidden + weight @ hidden
    scores = (head[2].weight @ hidden).T + head[2].bias
    at_end = head[2].weight.T @ (scores.softmax(1) - functional.one_hot(y, 3)).T / len(y)
    backward = BlockwiseBackward(net, x, y)
    total = torch.zeros(2, 5)
    for taken in itertools.product((False, True), repeat=4):
        expected = at_end
        for weight, through in reversed(list(zip(weights, taken, strict=True))):
            expected = weight.T @ expected if through else expected
        found = backward.path([index for index, through in enumerate(taken) if through])
        torch.testing.assert_close(found[:, :, 0, 0].T, expected.detach())
        total += expected.detach()
    torch.testing.assert_close(backward.gradient(["both"] * 4)[:, :, 0, 0].T, total)


def test_bodies_of_zero_pass_no_gradient(batch: tuple[torch.Tensor, torch.Tensor]) -> None:
    """If every F is zero, only the path of length 0 has a gradient."""
    found = paths(build("resnet14", num_classes=10, in_channels=1, zero_init=True), *batch)
    assert found.effective_length == 0
    assert (found.low, found.high) == (0, 0)
    assert [entry.mean_gradient_norm > 0 for entry in found.lengths] == [True, *[False] * 6]
    assert found.lengths[0].contribution_pct == pytest.approx(100)
    assert found.short_pct == pytest.approx(100)
    assert found.within_pct == pytest.approx(100 / 64)


def test_lengths_are_binomial_and_draws_follow_the_seed(
    batch: tuple[torch.Tensor, torch.Tensor],
) -> None:
    net = build("resnet14", num_classes=10, in_channels=1).eval()
    before = deepcopy(net.state_dict())
    found = paths(net, *batch, draws=4, seed=1)
    assert [round(entry.paths_pct * 64 / 100, 9) for entry in found.lengths] == [
        1,
        6,
        15,
        20,
        15,
        6,
        1,
    ]
    assert [entry.num_draws for entry in found.lengths] == [1, 4, 4, 4, 4, 4, 1]
    assert found.lengths[0].sd_gradient_norm is None
    assert found.mean_length == 3
    assert paths(net, *batch, draws=4, seed=1) == found
    assert paths(net, *batch, draws=4, seed=2) != found
    assert not net.training
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())
    assert all(parameter.requires_grad and parameter.grad is None for parameter in net.parameters())


@settings(max_examples=60)
@given(st.lists(st.floats(1e-6, 1e6), min_size=2, max_size=30))
def test_contributions_sum_to_100_and_weight_the_mean_length(norms: list[float]) -> None:
    found = summarize([[norm] for norm in norms], gradient_norm=1.0)
    n = len(norms) - 1
    assert found.num_blocks == n
    assert math.fsum(entry.paths_pct for entry in found.lengths) == pytest.approx(100)
    assert math.fsum(entry.contribution_pct for entry in found.lengths) == pytest.approx(100)
    assert 0 <= found.low <= found.high <= n
    assert 0 <= found.effective_length <= n
    inside = math.fsum(
        entry.contribution_pct for entry in found.lengths[found.low : found.high + 1]
    )
    assert inside >= 95 - 1e-9


@settings(max_examples=20)
@given(st.floats(0.05, 0.95), st.integers(2, 30))
def test_a_gradient_that_shrinks_by_a_factor_has_a_known_effective_length(
    factor: float, n: int
) -> None:
    """C(n, k) q^k is proportional to a binomial distribution with mean n q / (1 + q)."""
    found = summarize([[factor**length] for length in range(n + 1)], gradient_norm=1.0)
    assert found.effective_length == pytest.approx(n * factor / (1 + factor))


def test_impossible_arguments_are_refused(batch: tuple[torch.Tensor, torch.Tensor]) -> None:
    with pytest.raises(ValueError, match="plain8 has no shortcuts"):
        paths(build("plain8", num_classes=10, in_channels=1), *batch)
    with pytest.raises(ValueError, match="draws = 0"):
        paths(build("resnet8", num_classes=10, in_channels=1), *batch, draws=0)
    assert math.isnan(summarize([[0.0], [0.0]], gradient_norm=0.0).effective_length)
