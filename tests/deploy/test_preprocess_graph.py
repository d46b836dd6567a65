"""The resize as two matrix products equals Pillow, from thumbnails to photos of a camera."""

import numpy as np
import pytest
import torch
from PIL import Image

from reslearn.data import Images, Preprocess
from reslearn.data.pictures import center_crop
from reslearn.deploy import PixelsToProbabilities
from reslearn.deploy.preprocess_graph import INPUT_KINDS, resize_pixels

CASES = [
    # height, width, shorter side, size
    (224, 224, 224, 224),
    (64, 64, 64, 56),
    (480, 640, 256, 224),
    (333, 251, 73, 64),
    (448, 448, 224, 224),
    (20, 31, 64, 64),
    (1, 7, 9, 8),
    (1000, 2000, 128, 112),
]


def photo(height: int, width: int) -> np.ndarray:
    """Return smooth shapes with sharp edges and noise: noise alone would hide a wrong filter."""
    y, x = np.mgrid[:height, :width] / min(height, width)
    waves = np.sin(40 * x * y) + np.cos(17 * x)
    edges = ((5 * x).astype(int) + (7 * y).astype(int)) % 2
    random = np.random.default_rng(height).integers(-20, 20, (height, width, 3))
    levels = 110 + 35 * waves[:, :, None] + 50 * edges[:, :, None] * [1, 0.5, -1] + random
    return levels.clip(0, 255).astype(np.uint8)


@pytest.mark.parametrize(("height", "width", "shorter_px", "size_px"), CASES)
def test_the_resize_equals_pillow(height: int, width: int, shorter_px: int, size_px: int) -> None:
    pixels = photo(height, width)
    expected = center_crop(Image.fromarray(pixels), shorter_px=shorter_px, size_px=size_px)
    resized = resize_pixels(torch.from_numpy(pixels)[None], shorter_px=shorter_px, size_px=size_px)
    differences = np.abs(resized[0].numpy().astype(int) - expected)
    assert differences.max() <= 1
    assert (differences > 0).mean() < 0.02, "ties of rounding are rare"


def test_a_picture_of_the_right_size_is_not_changed() -> None:
    pixels = torch.from_numpy(photo(40, 40))[None]
    assert torch.equal(resize_pixels(pixels, shorter_px=40, size_px=40), pixels)


@pytest.mark.parametrize("mean", ["per-pixel", "per-channel"])
def test_all_kinds_of_input_give_the_same_probabilities(mean: str) -> None:
    pixels = torch.from_numpy(np.stack([photo(16, 16), photo(16, 16)[::-1]]))
    images = Images(pixels, torch.zeros(2, dtype=torch.int64))
    preprocess = Preprocess.fit(images, mean=mean, std="per-channel")  # type: ignore[arg-type]
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 16 * 16, 4))
    expected = (network(preprocess(pixels)) / 2).softmax(1)
    inputs = {"image": pixels, "crop": pixels, "tensor": preprocess(pixels)}
    for kind in INPUT_KINDS:
        module = PixelsToProbabilities(network, preprocess, temperature=2, input_kind=kind)
        torch.testing.assert_close(module(inputs[kind]), expected, rtol=0, atol=1e-6)
