"""The changes of color are Pillow's."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance, ImageOps

from reslearn.data.photo_views import PhotoView
from reslearn.data.trivial_augment import COLOR_CHANGES, change_colors

PILLOW: dict[str, Callable[[Image.Image, float], Image.Image]] = {
    "brightness": lambda image, strength: ImageEnhance.Brightness(image).enhance(1 + strength),
    "color": lambda image, strength: ImageEnhance.Color(image).enhance(1 + strength),
    "contrast": lambda image, strength: ImageEnhance.Contrast(image).enhance(1 + strength),
    "sharpness": lambda image, strength: ImageEnhance.Sharpness(image).enhance(1 + strength),
    "posterize": lambda image, strength: ImageOps.posterize(image, 8 - round(6 * abs(strength))),
    "solarize": lambda image, strength: ImageOps.solarize(image, 255 * (1 - abs(strength))),
    "auto_contrast": lambda image, strength: ImageOps.autocontrast(image),
    "equalize": lambda image, strength: ImageOps.equalize(image),
}


def picture(number: int) -> np.ndarray:
    """Return a picture whose channels have different ranges; the first has a constant channel."""
    pixels = np.random.default_rng(number).integers(30, 150, (24, 24, 3), dtype=np.uint8)
    pixels[:, :, 1] //= 2
    if number == 0:
        pixels[:, :, 2] = 77
    return pixels


@pytest.mark.parametrize("strength", [-1.0, -0.4, 0.0, 0.3, 1.0])
@pytest.mark.parametrize("change", COLOR_CHANGES)
def test_a_change_of_color_equals_pillow(change: str, strength: float) -> None:
    pictures = [picture(number) for number in range(3)]
    views = [PhotoView(index=0, change=change, strength=strength) for _ in pictures]
    changed = change_colors(torch.from_numpy(np.stack(pictures)), views).numpy()
    factor = 1.0 if change in ("posterize", "solarize") else 0.99
    for pixels, result in zip(pictures, changed, strict=True):
        expected = np.asarray(PILLOW[change](Image.fromarray(pixels), factor * strength))
        difference = np.abs(expected.astype(int) - result)
        # Pillow rounds means and blends down.
        assert difference.max() <= (2 if change in ("contrast", "sharpness", "color") else 1)


def test_every_image_of_a_batch_gets_its_own_change() -> None:
    pixels = torch.from_numpy(np.stack([picture(1)] * 4))
    changes = ["identity", "rotate", "equalize", "brightness"]
    views = [PhotoView(index=0, change=change, strength=0.5) for change in changes]
    changed = change_colors(pixels.clone(), views)
    assert torch.equal(changed[:2], pixels[:2])  # geometry is changed elsewhere
    assert not torch.equal(changed[2], pixels[2])
    assert not torch.equal(changed[3], changed[2])


def test_gray_images_have_one_channel() -> None:
    gray = torch.from_numpy(picture(1)[:, :, :1].copy())
    for change in COLOR_CHANGES:
        view = PhotoView(index=0, change=change, strength=0.7)
        assert change_colors(gray[None].clone(), [view]).shape == (1, 24, 24, 1)
