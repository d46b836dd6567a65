"""Blocks compute Eq. 1 bit for bit, and a different block is detected (claim C3)."""

import torch
from torch import Tensor, nn

from reslearn.analysis import check_blocks
from reslearn.models import build


def test_blocks_are_sums_and_with_zero_bodies_identities() -> None:
    checks = check_blocks(build("resnet14", num_classes=10, in_channels=1), torch.randn(8, 1, 8, 8))
    assert len(checks) == 6
    assert all(check.is_sum for check in checks)
    assert [check.is_identity for check in checks] == [True, True, None, True, None, True]
    assert (
        check_blocks(build("plain8", num_classes=10, in_channels=1), torch.randn(8, 1, 8, 8)) == []
    )


def test_a_block_that_is_not_a_sum_is_detected() -> None:
    class Halved(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.relu() / 2

    net = build("resnet8", num_classes=10, in_channels=1)
    net.blocks()[0][1].activation = Halved()
    first, second, _ = check_blocks(net, torch.randn(8, 1, 8, 8))
    assert not first.is_sum
    assert first.is_identity is False
    assert second.is_sum
