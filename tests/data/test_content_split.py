"""Splits drawn by content: stable when photos are added, with copies on one side."""

import shutil
from pathlib import Path

import numpy as np
from PIL import Image

from reslearn.data.content_split import TEST_SHARE, VALIDATION_SHARE, assign_splits, content_hash
from reslearn.data.listing import list_images


def make_photos(folder: Path, names: range, classes: tuple[str, ...] = ("cat", "dog")) -> None:
    for label, class_name in enumerate(classes):
        (folder / class_name).mkdir(parents=True, exist_ok=True)
        for number in names:
            pixels = np.random.default_rng((label, number)).integers(0, 255, (5, 5, 3), np.uint8)
            Image.fromarray(pixels).save(folder / class_name / f"{number}.png")


def splits(folder: Path) -> dict[str, str | None]:
    listing = assign_splits(list_images(folder))
    return {str(record.path.relative_to(folder)): record.split for record in listing}


def test_shares_are_those_of_the_rule_in_each_class(tmp_path: Path) -> None:
    make_photos(tmp_path, range(400))
    counts = assign_splits(list_images(tmp_path)).counts()
    for split, share in (("test", TEST_SHARE), ("validation", VALIDATION_SHARE)):
        for class_name in ("cat", "dog"):
            deviation = (400 * share * (1 - share)) ** 0.5
            assert abs(counts[split][class_name] - 400 * share) < 3 * deviation


def test_more_photos_and_other_names_move_no_photo(tmp_path: Path) -> None:
    make_photos(tmp_path, range(0, 60, 2))
    before = splits(tmp_path)
    make_photos(tmp_path, range(60))
    make_photos(tmp_path, range(5), classes=("bird", "fish"))
    after = splits(tmp_path)
    assert {name: after[name] for name in before} == before
    (tmp_path / "cat").rename(tmp_path / "kitten")
    assert splits(tmp_path)["kitten/2.png"] == before["cat/2.png"]


def test_copies_stay_on_one_side_in_all_classes(tmp_path: Path) -> None:
    make_photos(tmp_path, range(20))
    for number in range(20):
        shutil.copy(tmp_path / "cat" / f"{number}.png", tmp_path / "cat" / f"copy_{number}.png")
        shutil.copy(tmp_path / "cat" / f"{number}.png", tmp_path / "dog" / f"copy_{number}.png")
    drawn = splits(tmp_path)
    assert len(set(drawn.values())) == 3
    for number in range(20):
        original = drawn[f"cat/{number}.png"]
        assert drawn[f"cat/copy_{number}.png"] == drawn[f"dog/copy_{number}.png"] == original


def test_a_small_class_is_in_every_split(tmp_path: Path) -> None:
    for num_photos in (3, 4, 5):
        folder = tmp_path / str(num_photos)
        make_photos(folder, range(num_photos), classes=("a", "b", "c", "d", "e"))
        counts = assign_splits(list_images(folder)).counts()
        for split in ("train", "validation", "test"):
            assert min(counts[split].values()) > 0


def test_every_tiny_class_has_a_training_image_and_other_splits_if_it_can(tmp_path: Path) -> None:
    classes = tuple(f"class{number:02d}" for number in range(60))
    for num_photos in (1, 2, 3):
        folder = tmp_path / str(num_photos)
        make_photos(folder, range(num_photos), classes)
        counts = assign_splits(list_images(folder)).counts()
        expected = {"train": 1, "test": int(num_photos > 1), "validation": int(num_photos > 2)}
        for split, number in expected.items():
            assert all(counts.get(split, {}).get(name, 0) == number for name in classes), split


def test_a_missing_test_set_is_held_out_of_the_training_images(tmp_path: Path) -> None:
    make_photos(tmp_path / "train", range(30))
    make_photos(tmp_path / "val", range(30, 35))
    drawn = splits(tmp_path)
    assert {split for name, split in drawn.items() if name.startswith("val/")} == {"validation"}
    assert {split for name, split in drawn.items() if name.startswith("train/")} == {
        "train",
        "test",
    }


def test_the_hash_covers_length_and_blocks_of_a_long_file(tmp_path: Path) -> None:
    content = bytearray(np.random.default_rng(0).bytes(600_000))
    path = tmp_path / "long"

    def hash_of(changed: bytes) -> int:
        path.write_bytes(changed)
        return content_hash(path)

    first = hash_of(content)
    assert hash_of(content) == first
    assert hash_of(content + b"\0") != first
    for place in (0, 280_000, len(content) - 1):
        changed = bytearray(content)
        changed[place] ^= 1
        assert hash_of(changed) != first
    short = content[:200_000]
    changed = bytearray(short)
    changed[100_000] ^= 1
    assert hash_of(short) != hash_of(changed)
    assert content_hash(tmp_path / "absent") == hash_of(b"")
