"""Image folders: class folders, split folders, what people's folders hold beside images."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from reslearn.data import DataError, load, read_picture, split

CLOTHING = Path(__file__).parents[3] / "shared" / "data" / "clothing"


def picture(
    path: Path,
    color: tuple[int, int, int] = (200, 30, 90),
    size: tuple[int, int] = (30, 20),
    mode: str = "RGB",
) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, color).convert(mode).save(path)


def class_folders(
    folder: Path, num_images: int = 10, classes: tuple[str, ...] = ("shoe", "coat")
) -> None:
    for name in classes:
        for number in range(num_images):
            picture(folder / name / f"{number}.png", (number, number, 0 if name == "coat" else 255))


def test_class_folders_hold_out_a_fixed_fifth(tmp_path: Path) -> None:
    class_folders(tmp_path)
    dataset = load(tmp_path, size_px=8)
    assert dataset.classes == ("coat", "shoe")
    assert (len(dataset.train), len(dataset.test), dataset.validation) == (16, 4, None)
    assert torch.bincount(dataset.test.labels).tolist() == [2, 2]
    assert dataset.train.pixels.shape == (16, 8, 8, 3)
    blue = torch.cat([dataset.train.pixels, dataset.test.pixels])[:, 0, 0, 2]
    assert torch.equal(
        blue, torch.cat([dataset.train.labels, dataset.test.labels]).mul(255).to(torch.uint8)
    )
    numbers = torch.cat([dataset.train.pixels, dataset.test.pixels])[:, 0, 0, 0]
    assert sorted(numbers.tolist()) == sorted(
        2 * list(range(10))
    )  # each once, train and test apart
    assert load(tmp_path, size_px=8).fingerprint == dataset.fingerprint
    assert (
        0 < int(dataset.train.labels[:8].sum()) < 8
    )  # not class by class, so that the last ones are a fair sample


def test_split_folders(tmp_path: Path) -> None:
    for part, num_images in (("train", 5), ("val", 2), ("test", 3)):
        class_folders(tmp_path / part, num_images)
    dataset = load(str(tmp_path))
    assert dataset.validation is not None
    assert (len(dataset.train), len(dataset.validation), len(dataset.test)) == (10, 4, 6)
    assert dataset.size_px == 64
    assert split(dataset, 0) is dataset
    with pytest.raises(DataError, match="already has 4 validation images"):
        split(dataset, 2)


def test_train_and_validation_alone_hold_out_a_test(tmp_path: Path) -> None:
    class_folders(tmp_path / "train", 10)
    class_folders(tmp_path / "validation", 2)
    dataset = load(tmp_path, size_px=4)
    assert dataset.validation is not None
    assert (len(dataset.train), len(dataset.validation), len(dataset.test)) == (16, 4, 4)


def test_pictures_of_all_kinds_become_upright_squares(tmp_path: Path) -> None:
    for mode, suffix in (
        ("RGB", "jpg"),
        ("L", "png"),
        ("RGBA", "png"),
        ("P", "gif"),
        ("CMYK", "jpg"),
        ("1", "bmp"),
    ):
        path = tmp_path / f"{mode}.{suffix}"
        picture(path, mode=mode)
        assert read_picture(path, 7).shape == (7, 7, 3)
    halves = np.zeros((40, 80, 3), np.uint8)
    halves[:, 30:50] = 255  # only a middle stripe survives the center square of 40 columns
    Image.fromarray(halves).save(tmp_path / "wide.png")
    np.testing.assert_array_equal(read_picture(tmp_path / "wide.png", 40), halves[:, 20:60])
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter: shown upright, left is up
    Image.fromarray(halves[:, 20:60]).save(tmp_path / "turned.png", exif=exif)
    np.testing.assert_array_equal(
        read_picture(tmp_path / "turned.png", 40), np.rot90(halves[:, 20:60], -1)
    )


def test_unreadable_images_are_counted_and_the_first_named(tmp_path: Path) -> None:
    class_folders(tmp_path)
    (tmp_path / "coat" / "broken.jpg").write_bytes(b"no picture")
    whole = (tmp_path / "coat" / "1.png").read_bytes()
    (tmp_path / "shoe" / "cut.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "shoe" / "notes.txt").write_text("not an image, not counted")
    (tmp_path / "shoe" / "._1.png").write_text("nor is this")
    (tmp_path / ".thumbnails").mkdir()
    (tmp_path / "empty").mkdir()
    with pytest.raises(
        DataError,
        match=r"^2 of 22 images cannot be read, the first: .*(broken.jpg|cut.png) cannot be read \(.*\): remove",
    ):
        load(tmp_path, size_px=4)


def test_folders_that_are_no_data_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="has none: two or more class folders"):
        load(tmp_path)
    class_folders(tmp_path / "one", classes=("coat",))
    with pytest.raises(DataError, match="has only 'coat'"):
        load(tmp_path / "one")
    class_folders(tmp_path / "splits" / "train")
    class_folders(tmp_path / "splits" / "test", classes=("coat", "dress"))
    with pytest.raises(
        DataError, match="has class 'dress', which is not among the training classes coat, shoe"
    ):
        load(tmp_path / "splits")
    class_folders(tmp_path / "classes")
    with pytest.raises(DataError, match="size_px = 0"):
        load(tmp_path / "classes", size_px=0)


def test_clothing(tmp_path: Path) -> None:
    if not CLOTHING.is_dir():
        pytest.skip(f"no folder {CLOTHING}")
    sample = tmp_path / "clothing"
    for part in ("train", "validation", "test"):
        for kind in ("hat", "t-shirt", "shoes"):
            (sample / part / kind).mkdir(parents=True)
            for path in sorted((CLOTHING / part / kind).iterdir())[:6]:
                (sample / part / kind / path.name).symlink_to(path)
    dataset = load(sample, size_px=32)
    assert dataset.validation is not None
    assert dataset.classes == ("hat", "shoes", "t-shirt")
    assert (len(dataset.train), len(dataset.validation), len(dataset.test)) == (18, 18, 18)
    assert 20 < float(dataset.train.pixels.float().std()) < 120
