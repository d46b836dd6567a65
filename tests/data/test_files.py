"""Image folders left on disk: their listing, and the same batches as from memory."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from reslearn import data
from reslearn.data import DataError, Files, Preprocess, eval_batches
from reslearn.data.files import map_in_order

Make = Callable[..., Path]
WNIDS = ("n01440764", "n01443537", "n02102040")


def paths(files: data.ImageSet) -> list[Path]:
    assert isinstance(files, Files)
    return [files.path(index) for index in range(len(files))]


def test_files_equal_images_in_memory(make_pictures: Make, tmp_path: Path) -> None:
    """Order, labels and the pixels that a network sees are the same."""
    make_pictures(tmp_path, train=7, validation=3, test=4)
    memory, disk = data.load(tmp_path, size_px=16), data.load(tmp_path, size_px=16, stream=True)
    assert (disk.classes, disk.name, disk.size_px, disk.channels) == (
        memory.classes,
        memory.name,
        16,
        3,
    )
    preprocess = Preprocess.fit(memory.train)
    assert Preprocess.fit(disk.train) == preprocess
    for part in ("train", "validation", "test"):
        in_memory, on_disk = getattr(memory, part), getattr(disk, part)
        assert torch.equal(on_disk.labels, in_memory.labels)
        assert [path.parent.name for path in paths(on_disk)] == [
            memory.classes[label] for label in on_disk.labels.tolist()
        ]
        batches = [
            list(eval_batches(images, preprocess, batch_size=5)) for images in (in_memory, on_disk)
        ]
        for (x, y), (x_disk, y_disk) in zip(*batches, strict=True):
            assert torch.equal(x, x_disk)
            assert torch.equal(y, y_disk)
            assert x_disk.is_contiguous(memory_format=torch.channels_last)


def test_subsets_of_files(make_pictures: Make, tmp_path: Path) -> None:
    files = data.load(make_pictures(tmp_path, train=7, test=1), size_px=8, stream=True).train
    assert isinstance(files, Files)
    everything = paths(files)
    assert len(set(everything)) == 21
    assert paths(files.subset(3, 9)) == everything[3:9]
    assert paths(files.evenly_spaced(3)) == [everything[0], everything[7], everything[14]]
    assert paths(files.subset(3, 9).evenly_spaced(2)) == [everything[3], everything[6]]
    assert files.evenly_spaced(50) is files
    assert files.subset(0, 4).names is files.names  # a subset shares the names
    with pytest.raises(DataError, match="images 0 to 22 are out of range: there are 21"):
        files.subset(0, 22)
    pixels, label = files[2]
    with Image.open(everything[2]) as image:
        assert sorted(pixels.shape[:2]) == sorted(image.size)  # not cropped, and upright
    assert pixels.shape[2] == 3
    assert files.labels[2] == label


def test_pictures_are_turned_upright(tmp_path: Path) -> None:
    halves = np.zeros((20, 40, 3), np.uint8)
    halves[:, 20:] = 255
    exif = Image.Exif()
    exif[0x0112] = 6
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        Image.fromarray(halves).save(tmp_path / name / "a.png", exif=exif)
        Image.fromarray(halves).save(tmp_path / name / "b.png", exif=exif, compress_level=0)
    pixels, _ = data.load(tmp_path, size_px=8, stream=True).train[0]  # type: ignore[index]
    np.testing.assert_array_equal(pixels, np.rot90(halves, -1))


def test_the_validation_images_of_ilsvrc_are_the_test_set(
    make_pictures: Make, tmp_path: Path
) -> None:
    """Its test labels were never published. Validation images are held out of train."""
    make_pictures(tmp_path, classes=WNIDS, train=8, val=3)
    (tmp_path / "test").mkdir()
    Image.new("RGB", (30, 30)).save(tmp_path / "test" / "ILSVRC2012_test_00000001.jpg")
    dataset = data.load(tmp_path, size_px=8, stream=True)
    assert (len(dataset.train), len(dataset.test), dataset.validation) == (24, 9, None)
    assert {path.parts[-3] for path in paths(dataset.test)} == {"val"}
    parts = data.split(dataset, 6)
    assert parts.validation is not None
    assert (len(parts.train), len(parts.validation), len(parts.test)) == (18, 6, 9)
    assert {path.parts[-3] for path in paths(parts.validation)} == {"train"}
    assert not set(paths(parts.train)) & set(paths(parts.validation))
    assert (
        data.load(tmp_path, size_px=8).test.labels.tolist() == dataset.test.labels.tolist()
    )  # in memory too

    make_pictures(tmp_path / "own", classes=WNIDS, train=8, val=3, test=2)
    own = data.load(tmp_path / "own", size_px=8, stream=True)
    assert own.validation is not None  # a test/ with classes is one
    assert (len(own.validation), len(own.test)) == (9, 6)


def test_the_fingerprint_covers_names_and_sizes(make_pictures: Make, tmp_path: Path) -> None:
    make_pictures(tmp_path, train=4, test=2)

    def fingerprint() -> str:
        return data.load(tmp_path, size_px=8, stream=True).fingerprint

    first = fingerprint()
    assert first.startswith("names+sizes:")
    assert fingerprint() == first
    picture = tmp_path / "test" / "red" / "0.jpg"
    content = picture.read_bytes()
    picture.write_bytes(content + b"\0")
    assert fingerprint() != first
    picture.write_bytes(content)
    assert fingerprint() == first
    picture.rename(picture.with_name("7.jpg"))
    renamed = fingerprint()
    assert renamed != first
    (tmp_path / "test" / "red" / "7.jpg").rename(tmp_path / "test" / "blue" / "7.jpg")
    assert fingerprint() not in (first, renamed)


def test_empty_files_are_left_out_at_once_and_broken_files_when_read(
    make_pictures: Make, tmp_path: Path
) -> None:
    make_pictures(tmp_path, train=4, test=2)
    broken = tmp_path / "test" / "red" / "0.jpg"
    content = broken.read_bytes()
    broken.write_bytes(content[: len(content) // 2])
    dataset = data.load(tmp_path, size_px=8, stream=True)
    preprocess = Preprocess.fit(dataset.train)
    assert dataset.skipped == ()
    with pytest.warns(
        UserWarning, match=rf"^1 of 6 images of \S+ cannot be read .* is {broken} \("
    ):
        batches = list(eval_batches(dataset.test, preprocess, batch_size=2))
    assert sum(len(labels) for _, labels in batches) == 5
    assert [image.path for image in dataset.skipped] == [broken]
    broken.write_bytes(b"")
    with pytest.warns(UserWarning, match=rf"^1 of 6 test images .* {broken} \(the file is empty\)"):
        assert len(data.load(tmp_path, size_px=8, stream=True).test) == 5


def test_a_bare_name_is_searched_for_in_the_data_folders(
    make_pictures: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_pictures(tmp_path / "folder" / "photos", train=2, test=1)
    assert (
        data.load("photos", data_dir=tmp_path / "folder", size_px=8, stream=True).name == "photos"
    )
    monkeypatch.setenv("RESLEARN_DATA", str(tmp_path / "folder"))
    assert len(data.load("photos", size_px=8).train) == 6
    monkeypatch.setenv("RESLEARN_DATA", str(tmp_path))
    with pytest.raises(data.UnknownDataError, match="no data called 'photos'"):
        data.load("photos")


def test_map_in_order_keeps_order_and_limits_reading_ahead(make_pictures: Make) -> None:
    consumed = []

    def numbers() -> object:
        for number in range(100):
            consumed.append(number)
            yield number

    squares = map_in_order(lambda number: number * number, numbers(), num_ahead=4)
    assert [next(squares) for _ in range(10)] == [number * number for number in range(10)]
    assert len(consumed) <= 15
    assert list(squares) == [number * number for number in range(10, 100)]
