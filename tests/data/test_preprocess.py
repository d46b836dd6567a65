"""`Preprocess`: its statistics equal numpy, and JSON restores every bit."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from reslearn.data import DataError, Images, Preprocess, read_picture
from reslearn.data.preprocess import Mean, Padding, Std


def images_of(pixels: np.ndarray) -> Images:
    return Images(torch.from_numpy(pixels), torch.zeros(len(pixels), dtype=torch.int64))


@pytest.fixture(scope="module")
def images() -> Images:
    levels = np.random.default_rng(0).integers(0, 256, (600, 5, 5, 3))
    return images_of((levels * [0.3, 0.6, 1.0]).astype(np.uint8))


@pytest.mark.parametrize("mean", ["per-pixel", "per-channel", "none"])
@pytest.mark.parametrize("std", ["scalar", "per-channel", "none"])
def test_mean_and_scale_equal_numpy(images: Images, mean: Mean, std: Std) -> None:
    pixels = images.pixels.numpy().astype(np.float64)
    expected_mean = {
        "per-pixel": pixels.mean(0),
        "per-channel": pixels.mean((0, 1, 2)),
        "none": np.zeros(3),
    }[mean]
    centered = pixels - (pixels.mean(0) if mean == "per-pixel" else pixels.mean((0, 1, 2)))
    deviation = {
        "scalar": np.full(3, centered.std()),
        "per-channel": centered.std((0, 1, 2)),
        "none": np.full(3, 255.0),
    }[std]
    preprocess = Preprocess.fit(images, mean=mean, std=std)
    np.testing.assert_allclose(preprocess.mean, expected_mean, rtol=1e-6)
    np.testing.assert_allclose(preprocess.scale, deviation, rtol=1e-6)
    x = preprocess(images.pixels)
    np.testing.assert_allclose(
        x.permute(0, 2, 3, 1), (pixels - expected_mean) / deviation, atol=1e-5
    )


def test_imagenets_mean_and_deviation_equal_torchvision(images: Images) -> None:
    """docs.pytorch.org/vision gives these constants for pixels between 0 and 1."""
    x = Preprocess.fit(images, mean="imagenet", std="imagenet")(images.pixels)
    expected = (images.pixels.numpy() / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    np.testing.assert_allclose(x.permute(0, 2, 3, 1), expected, atol=1e-5)
    with pytest.raises(DataError, match="three colors, and these images have 1 channels"):
        Preprocess.fit(images_of(np.zeros((3, 2, 2, 1), np.uint8)), std="imagenet")


def test_sums_are_exact_over_many_white_images() -> None:
    preprocess = Preprocess.fit(images_of(np.full((3000, 2, 2, 1), 255, np.uint8)), std="none")
    assert preprocess.mean.flatten().tolist() == [255.0] * 4


def test_images_without_contrast_do_not_divide_by_zero() -> None:
    preprocess = Preprocess.fit(images_of(np.full((3, 2, 2, 1), 9, np.uint8)))
    assert preprocess(torch.full((1, 2, 2, 1), 9, dtype=torch.uint8)).tolist() == [
        [[[0.0, 0.0], [0.0, 0.0]]]
    ]


@given(
    seed=st.integers(0, 1000),
    mean=st.sampled_from(["per-pixel", "per-channel", "imagenet", "none"]),
    std=st.sampled_from(["scalar", "per-channel", "imagenet", "none"]),
    padding=st.sampled_from(["after-mean", "black"]),
)
def test_json_restores_every_bit(seed: int, mean: Mean, std: Std, padding: Padding) -> None:
    pixels = np.random.default_rng(seed).integers(0, 256, (7, 3, 3, 3), dtype=np.uint8)
    preprocess = Preprocess.fit(images_of(pixels), mean=mean, std=std, padding=padding)
    restored = Preprocess.from_json(json.loads(json.dumps(preprocess.to_json())))
    assert restored == preprocess
    assert hash(restored) == hash(preprocess)
    assert restored.padding == padding
    assert torch.equal(restored.mean.view(torch.int32), preprocess.mean.view(torch.int32))
    assert torch.equal(restored.scale.view(torch.int32), preprocess.scale.view(torch.int32))


@pytest.mark.parametrize(
    "change",
    [
        {"mean": "not base64"},
        {"mean": "AAAA"},
        {"mean": [1.0, float("nan"), 0.0]},
        {"scale": [0.0, 1.0, 1.0]},
        {"scale": [1.0]},
        {"scale": None},
        {"padding": "white"},
        {"size_px": "five"},
    ],
)
def test_damaged_json_is_refused_in_one_line(images: Images, change: dict[str, object]) -> None:
    value = Preprocess.fit(images).to_json() | change
    with pytest.raises(DataError) as caught:
        Preprocess.from_json(value)
    assert "\n" not in str(caught.value)


def test_missing_keys_and_unknown_choices_are_refused(images: Images) -> None:
    with pytest.raises(DataError, match="KeyError"):
        Preprocess.from_json({})
    wrong = (DataError, TypeError)  # TypeError if types are checked at run time
    with pytest.raises(
        wrong, match=r"mean = 'pixel': allowed are per-pixel, per-channel, imagenet, none|Literal"
    ):
        Preprocess.fit(images, mean="pixel")  # type: ignore[arg-type]
    with pytest.raises(wrong, match=r"std = 'pixel': allowed|Literal"):
        Preprocess.fit(images, std="pixel")  # type: ignore[arg-type]


def test_other_shapes_are_refused(images: Images) -> None:
    with pytest.raises(DataError, match=r"\(4, 4, 3\).*takes \(5, 5, 3\)"):
        Preprocess.fit(images)(torch.zeros(1, 4, 4, 3, dtype=torch.uint8))


def test_pictures_are_read_at_the_stored_sizes(tmp_path: Path) -> None:
    levels = np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8)
    Image.fromarray(levels).save(tmp_path / "picture.png")
    square = Preprocess(size_px=20, channels=3, mean=torch.zeros(20, 20, 3), scale=torch.ones(3))
    assert "shorter_px" not in square.to_json()  # so old bundles keep their meaning
    np.testing.assert_array_equal(
        square.read(tmp_path / "picture.png"), read_picture(tmp_path / "picture.png", 20)
    )
    cut = Preprocess.from_json({**square.to_json(), "shorter_px": 30})
    assert Preprocess.from_json(json.loads(json.dumps(cut.to_json()))) == cut != square
    resized = np.asarray(Image.fromarray(levels).resize((40, 30), Image.Resampling.BILINEAR))
    np.testing.assert_array_equal(cut.read(tmp_path / "picture.png"), resized[5:25, 10:30])
    with pytest.raises(DataError, match=r"shorter_px = 19: allowed are 20"):
        Preprocess.from_json({**square.to_json(), "shorter_px": 19})


def test_pictures_of_any_size_lose_the_per_channel_mean(images: Images) -> None:
    preprocess = Preprocess.fit(images)
    larger = torch.randint(0, 256, (7, 9, 3), dtype=torch.uint8)
    expected = (larger - preprocess.mean.mean(dim=(0, 1))) / preprocess.scale
    torch.testing.assert_close(preprocess.normalize_any_size(larger), expected)
    per_channel = Preprocess.fit(images, mean="per-channel")
    assert torch.equal(
        per_channel.normalize_any_size(images.pixels), per_channel.normalize(images.pixels)
    )
