"""Changes of pixels by hand, and what they do to networks that are robust or not."""

import pytest
import torch
from torch import Tensor, nn

from reslearn.data import Preprocess
from reslearn.evaluate import robustness
from reslearn.evaluate.robustness import CHANGES, blur, scale_brightness, shift

RAMP = torch.arange(16, dtype=torch.uint8).view(1, 4, 4, 1)


def preprocess(size_px: int) -> Preprocess:
    return Preprocess(size_px=size_px, channels=1, mean=torch.zeros(1), scale=torch.ones(1))


def test_shifts_by_hand() -> None:
    """Images 0 to 3 move left, right, up and down; the edge is repeated."""
    shifted = shift(RAMP.expand(4, 4, 4, 1), 0, distance_px=1)[..., 0]
    assert shifted[0, 0].tolist() == [1, 2, 3, 3]
    assert shifted[1, 0].tolist() == [0, 0, 1, 2]
    assert shifted[2, :, 0].tolist() == [4, 8, 12, 12]
    assert shifted[3, :, 0].tolist() == [0, 0, 4, 8]
    assert (shift(RAMP, 0, distance_px=9)[0, :, :, 0] == RAMP[0, :, 3:, 0]).all()


@pytest.mark.parametrize("split", [1, 2, 3, 5])
def test_directions_do_not_depend_on_the_batches(split: int) -> None:
    pixels = torch.randint(0, 256, (7, 5, 5, 3), dtype=torch.uint8)
    parts = [shift(pixels[:split], 0, distance_px=2), shift(pixels[split:], split, distance_px=2)]
    assert torch.equal(torch.cat(parts), shift(pixels, 0, distance_px=2))


def test_brightness_and_blur_by_hand() -> None:
    pixels = torch.tensor([[[[10], [250]]]], dtype=torch.uint8)
    assert scale_brightness(pixels, 0, factor=1.2).flatten().tolist() == [12, 255]
    assert scale_brightness(pixels, 0, factor=0.8).flatten().tolist() == [8, 200]
    point = torch.zeros(1, 9, 9, 2, dtype=torch.uint8)
    point[0, 4, 4] = 255
    blurred = blur(point, 0, deviation_px=1.0)
    assert blurred[0, 4, 4].tolist() == [41, 41]  # 255 / (2 pi), the middle of the Gaussian
    assert blurred.transpose(1, 2).equal(blurred)
    flat = torch.full((1, 9, 9, 1), 77, dtype=torch.uint8)
    assert blur(flat, 0, deviation_px=0.5).equal(flat), "the edge is repeated, not darkened"


class OneColumn(nn.Module):
    """Class 1 if the first column is bright: a shift to the right by one pixel destroys it."""

    def forward(self, x: Tensor) -> Tensor:
        bright = x[:, 0, :, 0].mean(1) - 100
        return torch.stack([-bright, bright], dim=1)


class Mean(nn.Module):
    """Class 1 if the image is bright: no shift of a flat image matters, but darkness does."""

    def forward(self, x: Tensor) -> Tensor:
        bright = x.mean((1, 2, 3)) - 100
        return torch.stack([-bright, bright], dim=1)


def test_a_fragile_and_a_robust_network() -> None:
    flat = torch.full((8, 6, 6, 1), 110, dtype=torch.uint8)
    column = torch.zeros(8, 6, 6, 1, dtype=torch.uint8)
    column[:, :, 0] = 255
    labels = torch.ones(8, dtype=torch.int64)
    robust, fragile = (
        {
            result.change: result
            for result in robustness(
                net, [(pixels[:3], labels[:3]), (pixels[3:], labels[3:])], preprocess(6)
            )
        }
        for net, pixels in ((Mean(), flat), (OneColumn(), column))
    )
    assert set(robust) == set(CHANGES)
    assert all(
        result.consistency.pct == 100 for name, result in robust.items() if name != "20 % darker"
    )
    assert robust["20 % darker"].accuracy.pct == robust["20 % darker"].consistency.pct == 0
    assert fragile["none"].accuracy.pct == 100
    assert fragile["shift 1 px"].accuracy.pct == 75, "two of eight images move left"


def test_consistency_counts_wrong_predictions_too() -> None:
    flat, labels = torch.full((4, 6, 6, 1), 110, dtype=torch.uint8), torch.zeros(4).long()
    results = robustness(Mean(), [(flat, labels)], preprocess(6))
    assert results[0].accuracy.pct == 0 and results[1].consistency.pct == 100
    with pytest.raises(ValueError, match="no images"):
        robustness(Mean(), [], preprocess(6))
