"""Recomputed batch-norm statistics equal the averages of the batches; nothing else changes."""

import pytest
import torch
from torch import Tensor, nn

from reslearn import models
from reslearn.evaluate import recompute_batch_norm


def batches_of(x: Tensor, size: int) -> list[tuple[Tensor, Tensor]]:
    return [(part, torch.zeros(len(part), dtype=torch.int64)) for part in x.split(size)]


def test_statistics_are_the_averages_of_the_batches() -> None:
    net = nn.Sequential(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.ReLU())
    x = torch.randn(12, 2, 6, 6) * 3 + 1
    recompute_batch_norm(net, batches_of(x, 4))
    with torch.no_grad():
        parts = [net[0](part).transpose(0, 1).flatten(1) for part in x.split(4)]
    norm = net[1]
    assert isinstance(norm, nn.BatchNorm2d)
    torch.testing.assert_close(
        norm.running_mean, torch.stack([part.mean(1) for part in parts]).mean(0)
    )
    torch.testing.assert_close(
        norm.running_var, torch.stack([part.var(1) for part in parts]).mean(0)
    )
    assert norm.momentum == 0.1


def test_short_batches_are_skipped() -> None:
    """A batch of one image with maps of 1 x 1 could not be normalized."""
    x = torch.randn(9, 3, 1, 1)
    nets = [nn.Sequential(nn.BatchNorm2d(3)) for _ in range(2)]
    recompute_batch_norm(nets[0], batches_of(x, 4))
    recompute_batch_norm(nets[1], batches_of(x[:8], 4))
    for first, second in zip(nets[0].buffers(), nets[1].buffers(), strict=True):
        torch.testing.assert_close(first, second)


def test_old_statistics_weights_and_modes_have_no_effect_and_no_change() -> None:
    net = models.build("resnet8", num_classes=10)
    net.stem.eval()
    x = torch.randn(8, 3, 8, 8)
    modes = [module.training for module in net.modules()]
    weights = {name: value.clone() for name, value in net.named_parameters()}
    recompute_batch_norm(net, batches_of(x, 4))
    first = {name: value.clone() for name, value in net.named_buffers()}
    net(torch.randn(8, 3, 8, 8) * 100)
    recompute_batch_norm(net, batches_of(x, 4))
    assert all(torch.equal(value, first[name]) for name, value in net.named_buffers())
    assert all(torch.equal(value, weights[name]) for name, value in net.named_parameters())
    assert [module.training for module in net.modules()] == modes
    assert all(value.grad is None for value in net.parameters())


def test_dropout_is_off_while_statistics_are_recomputed() -> None:
    net = nn.Sequential(nn.Dropout(0.5), nn.BatchNorm1d(4))
    x = torch.randn(8, 4)
    recompute_batch_norm(net, batches_of(x, 8))
    torch.testing.assert_close(net[1].running_mean, x.mean(0))


def test_without_batch_norm_no_batch_is_read() -> None:
    recompute_batch_norm(nn.Linear(2, 2), iter(()))
    with pytest.raises(ValueError, match="no batch"):
        recompute_batch_norm(nn.BatchNorm1d(2), [])
