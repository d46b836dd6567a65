"""The plain loop has our networks and the paper's crops and mirrors, and it learns."""

import itertools

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from benchmarks.plain_loop import PAD_PX, Pictures, network, plain_loop

from reslearn import models


@pytest.mark.parametrize(
    ("name", "num_classes", "size_px"),
    [("resnet8", 10, 32), ("resnet20", 10, 32), ("resnet50", 1000, 64)],
)
def test_the_networks_are_the_same(name: str, num_classes: int, size_px: int) -> None:
    ours, plain = models.build(name, num_classes=num_classes), network(name)
    # The same tensors in the same order.
    plain.load_state_dict(dict(zip(plain.state_dict(), ours.state_dict().values(), strict=True)))
    x = torch.randn(2, 3, size_px, size_px)
    for training in (True, False):
        torch.testing.assert_close(
            plain.train(training)(x), ours.train(training)(x), rtol=1e-4, atol=1e-4
        )


@pytest.mark.parametrize("name", ["resnet21", "resnet2", "plain20", "vgg16"])
def test_an_unknown_network_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=f"--models {name}: .*resnet50"):
        network(name)


def test_pictures_are_crops_of_the_padded_image_and_half_are_mirrored() -> None:
    pixels = np.random.default_rng(0).integers(1, 256, (1, 6, 6, 3), dtype=np.uint8)
    pictures = Pictures(pixels, np.array([7]))
    padded = F.pad(torch.from_numpy(pixels[0]).permute(2, 0, 1).float() / 255, (PAD_PX,) * 4)
    crops = []
    for top, left in itertools.product(range(2 * PAD_PX + 1), repeat=2):
        crop = (padded[:, top : top + 6, left : left + 6] - pictures.mean) / pictures.std
        crops += [crop, crop.flip(2)]
    views = torch.stack(crops)
    indices = set()
    for _ in range(60):
        x, label = pictures[0]
        distances = (views - x).abs().amax(dim=(1, 2, 3))
        assert label == 7
        assert float(distances.min()) < 1e-5
        indices.add(int(distances.argmin()))
    assert len(indices) > 20
    assert {index % 2 for index in indices} == {0, 1}


def test_the_plain_loop_learns() -> None:
    pixels = np.zeros((64, 8, 8, 3), dtype=np.uint8)
    labels = np.arange(64) % 2
    pixels[labels == 1] = 255
    losses = list(
        itertools.islice(plain_loop("resnet8", pixels, labels, batch_size=16, device="cpu"), 16)
    )
    assert losses[-1] < 0.1 * losses[0]
