"""Options A, B and C of Sec. 3.3: values, parameters and memory formats."""

import pytest
import torch
from torch import nn

from reslearn.models import ZeroPadShortcut, build


@pytest.mark.parametrize(("zero_pad", "before", "after"), [("append", 0, 3), ("split", 1, 2)])
@pytest.mark.parametrize("size_px", [1, 6, 7])
def test_option_a_takes_every_second_pixel_and_adds_zero_channels(
    zero_pad: str, before: int, after: int, size_px: int
) -> None:
    x = torch.randn(2, 3, size_px, size_px)
    y = ZeroPadShortcut(3, 6, stride=2, zero_pad=zero_pad, subsample="slice")(x)
    assert y.shape == nn.Conv2d(3, 6, 3, stride=2, padding=1)(x).shape
    assert not y[:, :before].any() and not y[:, 6 - after :].any()
    for row, column in [(0, 0), (-1, -1), (0, -1)]:
        source = tuple(index if index == 0 else (size_px - 1) // 2 * 2 for index in (row, column))
        assert torch.equal(y[:, before : before + 3, row, column], x[:, :, source[0], source[1]])


@pytest.mark.parametrize("size_px", [1, 6, 7])
def test_option_a_averages_the_pixels_inside_the_map(size_px: int) -> None:
    x = torch.randn(2, 3, size_px, size_px)
    y = ZeroPadShortcut(3, 3, stride=2, zero_pad="append", subsample="average")(x)
    assert y.shape == x[:, :, ::2, ::2].shape
    for row in range(y.shape[2]):
        torch.testing.assert_close(
            y[:, :, row, -1],
            x[:, :, 2 * row : 2 * row + 2, 2 * (y.shape[3] - 1) :].mean(dim=(2, 3)),
        )


@pytest.mark.parametrize("subsample", ["slice", "average"])
@pytest.mark.parametrize("memory_format", [torch.channels_last, torch.contiguous_format])
def test_option_a_preserves_the_memory_format(
    subsample: str, memory_format: torch.memory_format
) -> None:
    x = torch.randn(2, 4, 8, 8).to(memory_format=memory_format)
    y = ZeroPadShortcut(4, 8, stride=2, zero_pad="split", subsample=subsample)(x)
    assert y.is_contiguous(memory_format=memory_format)
    assert y.stride() == torch.empty(2, 8, 4, 4).to(memory_format=memory_format).stride()


def test_blocks_in_which_each_option_projects() -> None:
    def projections(option: str) -> list[str]:
        net = build("resnet14", num_classes=10, shortcut=option)
        return [name for name, block in net.blocks() if isinstance(block.shortcut, nn.Sequential)]

    assert projections("A") == []
    assert projections("B") == ["stage2.0", "stage3.0"]
    assert projections("C") == [
        "stage1.0",
        "stage1.1",
        "stage2.0",
        "stage2.1",
        "stage3.0",
        "stage3.1",
    ]


def test_the_switches_of_option_a_reach_the_network() -> None:
    net = build("resnet8", num_classes=10, zero_pad="split", subsample="average")
    shortcut = dict(net.blocks())["stage2.0"].shortcut
    assert isinstance(shortcut, ZeroPadShortcut)
    assert (shortcut.before, shortcut.after, shortcut.subsample) == (8, 8, "average")
