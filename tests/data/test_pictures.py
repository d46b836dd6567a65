"""Crops of pictures against a slow reference: antialiased bilinear interpolation in numpy."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from reslearn.data import DataError, read_picture
from reslearn.data.pictures import (
    center_crop,
    crop,
    five_crop,
    largest_offsets,
    open_picture,
    resize_shorter_side,
    scale_length,
)

SIZES = ((40, 30), (30, 40), (33, 71), (64, 64), (97, 31))


def noise(width: int, height: int, seed: int = 0) -> Image.Image:
    return Image.fromarray(
        np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    )


def weights(length: int, step: float, start: float, num: int) -> np.ndarray:
    """Return [num, length]: the weight of each pixel of the file in each pixel of the result.

    The weights are triangles as wide as the larger of the two pixels.
    """
    width = max(step, 1.0)
    middle = start + (np.arange(num) + 0.5) * step
    distance = np.abs(np.arange(length) + 0.5 - middle[:, None])
    triangle = np.maximum(0, 1 - distance / width)
    return triangle / triangle.sum(axis=1, keepdims=True)


def reference_crop(
    image: Image.Image, step: float, top: float, left: float, height: int, width: int
) -> np.ndarray:
    """Return the crop at (`top`, `left`), which count pixels of the file."""
    pixels = np.asarray(image).astype(np.float64)
    across = np.einsum("xw,hwc->hxc", weights(image.width, step, left, width), pixels)
    return np.einsum("yh,hxc->yxc", weights(image.height, step, top, height), across)


def assert_near(actual: np.ndarray, expected: np.ndarray) -> None:
    assert actual.dtype == np.uint8
    assert actual.shape == expected.shape
    np.testing.assert_allclose(actual, expected, atol=1.2)  # Pillow rounds after each of two passes


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("shorter_px", "size_px"), [(24, 16), (16, 16), (50, 30)])
def test_a_crop_equals_resizing_everything_and_cutting(
    size: tuple[int, int], shorter_px: int, size_px: int
) -> None:
    image = noise(*size)
    step = min(size) / shorter_px
    bottom, right = largest_offsets(image, shorter_px=shorter_px, size_px=size_px)
    assert (bottom + size_px) * step <= image.height < (bottom + size_px + 1) * step
    assert (right + size_px) * step <= image.width < (right + size_px + 1) * step
    for top, left in ((0, 0), (bottom, right), (bottom // 2, right // 3)):
        actual = crop(image, shorter_px=shorter_px, size_px=size_px, top_px=top, left_px=left)
        assert_near(actual, reference_crop(image, step, top * step, left * step, size_px, size_px))


@pytest.mark.parametrize("size", SIZES)
def test_the_center_crop_lies_in_the_middle(size: tuple[int, int]) -> None:
    image, step = noise(*size), min(size) / 24
    top, left = (image.height - 16 * step) / 2, (image.width - 16 * step) / 2
    assert_near(
        center_crop(image, shorter_px=24, size_px=16),
        reference_crop(image, step, top, left, 16, 16),
    )


def test_at_whole_pixels_a_crop_is_exactly_a_part_of_the_resized_picture() -> None:
    image = noise(80, 60)
    resized = np.asarray(image.resize((40, 30), Image.Resampling.BILINEAR))
    np.testing.assert_array_equal(resize_shorter_side(image, shorter_px=30), resized)
    np.testing.assert_array_equal(
        crop(image, shorter_px=30, size_px=20, top_px=7, left_px=11), resized[7:27, 11:31]
    )
    np.testing.assert_array_equal(
        center_crop(image, shorter_px=30, size_px=20), resized[5:25, 10:30]
    )
    expected = [
        resized[:20, :20],
        resized[:20, 20:],
        resized[10:, :20],
        resized[10:, 20:],
        resized[5:25, 10:30],
    ]
    for actual, part in zip(five_crop(image, shorter_px=30, size_px=20), expected, strict=True):
        np.testing.assert_array_equal(actual, part)


def test_a_resized_picture_keeps_its_aspect_ratio_to_a_pixel() -> None:
    assert resize_shorter_side(noise(97, 31), shorter_px=20).shape == (20, 63, 3)  # 62.6
    assert resize_shorter_side(noise(31, 97), shorter_px=20).shape == (63, 20, 3)


def test_lengths_scale_in_proportion_to_the_crop() -> None:
    assert [scale_length(length, 224) for length in (224, 256, 384, 480, 640)] == [
        224,
        256,
        384,
        480,
        640,
    ]
    assert [scale_length(length, 64) for length in (224, 256, 384, 480, 640)] == [
        64,
        73,
        110,
        137,
        183,
    ]


def test_a_large_jpeg_is_decoded_at_a_fraction_of_its_size(tmp_path: Path) -> None:
    smooth = Image.fromarray(
        np.add.outer(np.arange(600), np.arange(800)).astype(np.float32) / 6
    ).convert("RGB")
    smooth.save(tmp_path / "large.jpg", quality=95)
    assert open_picture(tmp_path / "large.jpg", 30).size == (100, 75)  # an eighth: still twice 30
    assert open_picture(tmp_path / "large.jpg", 200).size == (800, 600)
    small, full = (
        read_picture(tmp_path / "large.jpg", 24, 30),
        center_crop(smooth, shorter_px=30, size_px=24),
    )
    np.testing.assert_allclose(small.astype(int), full.astype(int), atol=4)


def test_a_broken_file_is_refused_in_one_line_with_its_name(tmp_path: Path) -> None:
    noise(90, 60).save(tmp_path / "cut.jpg")
    content = (tmp_path / "cut.jpg").read_bytes()
    (tmp_path / "cut.jpg").write_bytes(content[: len(content) // 2])
    for name in ("cut.jpg", "absent.jpg"):
        with pytest.raises(
            DataError, match=rf"^\S*{name} cannot be read \(.+\): remove or replace it$"
        ):
            read_picture(tmp_path / name, 8)
