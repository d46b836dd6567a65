"""Loss and errors of a network: values by hand, independence of batches, unchanged modes."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from reslearn import models
from reslearn.evaluate import Metrics, evaluate


def in_batches(x: Tensor, y: Tensor, size: int) -> list[tuple[Tensor, Tensor]]:
    return list(zip(x.split(size), y.split(size), strict=True))


def test_loss_and_errors_by_hand() -> None:
    """The right classes have probabilities 1/2, 1/4 and 1/8; only the first is the largest."""
    logits = torch.tensor([[4, 2, 1, 1], [4, 1, 2, 1], [4, 2, 1, 1]]).double().log().float()
    metrics = evaluate(nn.Identity(), in_batches(logits, torch.tensor([0, 2, 3]), 2))
    assert metrics == Metrics(
        loss=pytest.approx((math.log(2) + math.log(4) + math.log(8)) / 3, rel=1e-6),
        top1_error_pct=200 / 3,
        top5_error_pct=None,
        num_images=3,
        num_classes=4,
    )


def test_errors_are_exact() -> None:
    """The right class is at rank 1 (three images), 3 (five images) and 6 (two images)."""
    ranks = [1, 3, 6, 1, 3, 3, 1, 3, 6, 3]
    labels = torch.arange(10) % 7
    logits = torch.stack(
        [
            torch.arange(6, -1, -1).float().roll(int(label) - (rank - 1))
            for label, rank in zip(labels, ranks, strict=True)
        ]
    )
    for size in (1, 3, 10):
        metrics = evaluate(nn.Identity(), in_batches(logits, labels, size))
        assert (metrics.top1_error_pct, metrics.top5_error_pct) == (70.0, 20.0)


@given(size=st.integers(1, 12), seed=st.integers(0, 100))
def test_metrics_do_not_depend_on_order_and_batch_size(size: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits, labels = (
        torch.randn(11, 6, generator=generator),
        torch.randint(0, 6, (11,), generator=generator),
    )
    order = torch.randperm(11, generator=generator)
    first, second = (
        evaluate(nn.Identity(), in_batches(x, y, batch))
        for x, y, batch in ((logits, labels, 11), (logits[order], labels[order], size))
    )
    assert second == Metrics(
        loss=pytest.approx(first.loss, rel=1e-12),
        top1_error_pct=first.top1_error_pct,
        top5_error_pct=first.top5_error_pct,
        num_images=11,
        num_classes=6,
    )


def test_modes_are_restored_and_the_state_is_unchanged() -> None:
    net = models.build("resnet8", num_classes=10).train()
    net.blocks()[1][1].eval()  # one block is frozen
    modes = [module.training for module in net.modules()]
    state = {name: value.clone() for name, value in net.state_dict().items()}
    x, y = torch.randn(5, 3, 8, 8), torch.arange(5)
    first = evaluate(net, in_batches(x, y, 2))
    with pytest.raises(RuntimeError, match="broken"):
        evaluate(net, broken_batches())
    assert [module.training for module in net.modules()] == modes
    assert all(torch.equal(value, state[name]) for name, value in net.state_dict().items())
    assert evaluate(net.eval(), in_batches(x, y, 2)) == first


def broken_batches():  # type: ignore[no-untyped-def]
    yield torch.randn(2, 3, 8, 8), torch.arange(2)
    raise RuntimeError("broken")


def test_no_images_is_an_error() -> None:
    with pytest.raises(ValueError, match="no image"):
        evaluate(nn.Identity(), [])


def test_autocast_is_entered_for_every_batch() -> None:
    net, x, y = nn.Linear(4, 3), torch.randn(6, 4), torch.arange(6) % 3
    plain, cast = (
        evaluate(net, in_batches(x, y, 2), autocast=context)
        for context in (None, torch.autocast("cpu", dtype=torch.bfloat16))
    )
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        expected = nn.functional.cross_entropy(net(x).float(), y).item()
    assert cast.loss == pytest.approx(expected, rel=1e-6)
    assert cast.loss != plain.loss
