"""Image folders: class folders, split folders, and other files among the images."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from reslearn.data import DataError, load, read_picture, split

CLOTHING = Path(__file__).parents[3] / "shared" / "data" / "clothing"


def save_picture(
    path: Path,
    color: tuple[int, int, int] = (200, 30, 90),
    size: tuple[int, int] = (30, 20),
    mode: str = "RGB",
) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, color).convert(mode).save(path)


def make_class_folders(
    folder: Path, num_images: int = 10, classes: tuple[str, ...] = ("shoe", "coat")
) -> None:
    for name in classes:
        for number in range(num_images):
            save_picture(
                folder / name / f"{number}.png", (number, number, 0 if name == "coat" else 255)
            )


def test_class_folders_are_divided_by_content(tmp_path: Path) -> None:
    make_class_folders(tmp_path, 40)
    dataset = load(tmp_path, size_px=8)
    assert dataset.classes == ("coat", "shoe")
    assert dataset.validation is not None
    parts = (dataset.train, dataset.validation, dataset.test)
    assert sum(map(len, parts)) == 80
    assert len(dataset.train) > 40
    assert all(int(torch.bincount(part.labels, minlength=2).min()) > 0 for part in parts)
    assert dataset.train.pixels.shape[1:] == (8, 8, 3)
    pixels = torch.cat([part.pixels for part in parts])[:, 0, 0]
    labels = torch.cat([part.labels for part in parts])
    assert torch.equal(pixels[:, 2], labels.mul(255).to(torch.uint8))
    assert sorted(pixels[:, 0].tolist()) == sorted(2 * list(range(40)))  # each in one part only
    assert load(tmp_path, size_px=8).fingerprint == dataset.fingerprint
    assert 0 < int(dataset.train.labels[:8].sum()) < 8  # not ordered by class


@pytest.mark.parametrize("stream", [False, True])
def test_another_number_of_validation_images_replaces_the_drawn_ones(
    tmp_path: Path, stream: bool
) -> None:
    make_class_folders(tmp_path, 20)
    drawn = load(tmp_path, size_px=8, stream=stream)
    assert drawn.validation is not None
    number = len(drawn.validation)
    parts = split(drawn, number)
    assert parts.validation is not None
    assert torch.equal(parts.validation.labels, drawn.validation.labels)
    more = split(drawn, number + 3)
    assert (len(more.validation or ()), len(more.train)) == (number + 3, len(drawn.train) - 3)
    assert torch.equal(more.test.labels, drawn.test.labels)


def test_split_folders(tmp_path: Path) -> None:
    for part, num_images in (("train", 5), ("val", 2), ("test", 3)):
        make_class_folders(tmp_path / part, num_images)
    dataset = load(str(tmp_path))
    assert dataset.validation is not None
    assert (len(dataset.train), len(dataset.validation), len(dataset.test)) == (10, 4, 6)
    assert dataset.size_px == 64
    assert split(dataset, 0) is dataset
    with pytest.raises(DataError, match="already has 4 validation images"):
        split(dataset, 2)


def test_without_test_folder_a_test_set_is_held_out(tmp_path: Path) -> None:
    make_class_folders(tmp_path / "train", 10)
    make_class_folders(tmp_path / "validation", 2)
    dataset = load(tmp_path, size_px=4)
    assert dataset.validation is not None
    assert len(dataset.validation) == 4
    assert len(dataset.train) + len(dataset.test) == 20
    assert torch.bincount(dataset.test.labels, minlength=2).min() > 0


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
        save_picture(path, mode=mode)
        assert read_picture(path, 7).shape == (7, 7, 3)
    halves = np.zeros((40, 80, 3), np.uint8)
    halves[:, 30:50] = 255  # a stripe within the center square
    Image.fromarray(halves).save(tmp_path / "wide.png")
    np.testing.assert_array_equal(read_picture(tmp_path / "wide.png", 40), halves[:, 20:60])
    exif = Image.Exif()
    exif[0x0112] = 6  # rotated by a quarter turn
    Image.fromarray(halves[:, 20:60]).save(tmp_path / "turned.png", exif=exif)
    np.testing.assert_array_equal(
        read_picture(tmp_path / "turned.png", 40), np.rot90(halves[:, 20:60], -1)
    )


def test_unreadable_images_are_left_out_and_named(tmp_path: Path) -> None:
    make_class_folders(tmp_path)
    (tmp_path / "coat" / "broken.jpg").write_bytes(b"no picture")
    content = (tmp_path / "coat" / "1.png").read_bytes()
    (tmp_path / "shoe" / "cut.png").write_bytes(content[: len(content) // 2])
    (tmp_path / "shoe" / "notes.txt").write_text("not an image, not counted")
    (tmp_path / "shoe" / "._1.png").write_text("nor is this")
    (tmp_path / ".thumbnails").mkdir()
    (tmp_path / "empty").mkdir()
    with pytest.warns(UserWarning, match=r"images cannot be read and are left out; the first is"):
        dataset = load(tmp_path, size_px=4)
    assert [image.path.name for image in dataset.skipped] == ["broken.jpg", "cut.png"]
    assert len(dataset.train) + len(dataset.test) + len(dataset.validation or ()) == 20


def test_folders_without_data_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="has no pictures: use class folders"):
        load(tmp_path)
    make_class_folders(tmp_path / "one", classes=("coat",))
    with pytest.raises(
        DataError, match="has only the class 'coat', and two or more are needed: use"
    ):
        load(tmp_path / "one")
    make_class_folders(tmp_path / "splits" / "train")
    make_class_folders(tmp_path / "splits" / "test", classes=("coat", "dress"))
    with pytest.raises(
        DataError, match="has class 'dress', which is not among the training classes coat, shoe"
    ):
        load(tmp_path / "splits")
    make_class_folders(tmp_path / "classes")
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
