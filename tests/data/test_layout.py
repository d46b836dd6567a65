"""Layouts that cannot be trained on are refused in one line, which says what is expected."""

from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from reslearn.data import DataError, load

Run = Callable[..., tuple[int, str, str]]
EXPECTED = "use class folders (cat/1.jpg, dog/2.jpg), split folders (train/cat/1.jpg, "


def save(folder: Path, *names: str) -> Path:
    for number, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 6), (number, 90, 200)).save(path)
    return folder


def refusal(folder: Path) -> str:
    with pytest.raises(DataError) as error:
        load(folder, size_px=4)
    message = str(error.value)
    assert "\n" not in message
    return message


def test_a_folder_around_the_classes_names_the_folder_to_pass(tmp_path: Path) -> None:
    save(tmp_path, "photos/cat/1.png", "photos/dog/1.png", "photos/dog/2.png")
    message = refusal(tmp_path)
    assert message.startswith(f"{tmp_path} has only the folder photos, whose pictures lie in the ")
    assert f"folders cat, dog: pass {tmp_path / 'photos'} instead" in message


def test_unknown_splits_are_not_taken_for_classes(tmp_path: Path) -> None:
    """Kaggle's training_set and test_set would train a network that distinguishes the two sets."""
    for part in ("training_set", "test_set"):
        save(tmp_path, f"{part}/cat/1.png", f"{part}/dog/1.png")
    message = refusal(tmp_path)
    assert message.startswith("the folders test_set, training_set of")
    assert "all hold the same folders cat, dog, so they are no classes: rename them" in message
    assert EXPECTED in message


def test_classes_may_have_folders_of_their_own(tmp_path: Path) -> None:
    """As in Tiny ImageNet, where each class has a folder images."""
    for name in ("n1", "n2"):
        for number in range(6):
            path = tmp_path / name / "images" / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (8, 6), (number, len(name), 40 * int(name[1]))).save(path)
    assert load(tmp_path, size_px=4).classes == ("n1", "n2")


def test_foreign_classes_are_named(tmp_path: Path) -> None:
    save(tmp_path, "train/cat/1.png", "train/dog/1.png", "val/dog/1.png", "val/cow/1.png")
    message = refusal(tmp_path)
    assert message.startswith(
        f"{tmp_path / 'val'} has class 'cow', which is not among the training"
    )
    assert "classes cat, dog: add training images, or remove or rename the folder" in message


def test_splits_without_training_images(tmp_path: Path) -> None:
    (tmp_path / "train").mkdir()
    save(tmp_path, "test/cat/1.png", "test/dog/1.png")
    assert "has no training images, only test images" in refusal(tmp_path)


def test_a_class_of_other_files_is_named(tmp_path: Path) -> None:
    save(tmp_path, "cat/1.png", "cat/2.png")
    (tmp_path / "dog").mkdir()
    for number in range(3):
        (tmp_path / "dog" / f"{number}.svg").write_text("<svg/>")
    message = refusal(tmp_path)
    assert f"{tmp_path} has only the class 'cat', and two or more are needed: {EXPECTED}" in message
    assert message.endswith("left out 3 files: .svg 3 (class dog has no picture left)")


def test_files_left_out_are_one_line(tmp_path: Path) -> None:
    for name in ("cat", "dog"):
        save(tmp_path, *(f"{name}/{number}{name}.png" for number in range(6)))
    (tmp_path / "cat" / "notes.txt").write_text("text is no warning")
    for number in range(20):
        (tmp_path / "dog" / f"{number}.cr2").write_bytes(b"II*\0raw")
    (tmp_path / "cat" / "1.mov").write_bytes(b"film")
    with pytest.warns(UserWarning, match=r"left out 21 files: \.cr2 20, \.mov 1$"):
        load(tmp_path, size_px=4)


@pytest.mark.filterwarnings("default")
def test_loose_pictures_and_circles_are_warnings_of_the_command(
    tmp_path: Path, reslearn: Run
) -> None:
    folder = tmp_path / "photos"
    for name in ("cat", "dog"):
        save(folder, *(f"{name}/{number}{name}.png" for number in range(8)))
    save(folder, "loose.png")
    (folder / "cat" / "again").symlink_to("..")
    status, _, errors = reslearn(
        "train", folder, "--dry-run", "--epochs", 2, "--batch-size", 2, "--out", tmp_path / "run"
    )
    lines = errors.splitlines()
    assert status == 0
    assert f"reslearn: warning: left out 1 picture directly in {folder}: " in errors
    circle = next(line for line in lines if "again links to a folder that contains it" in line)
    assert circle.count("again") == 1


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ((), "has no pictures: use class folders"),
        (("1.png", "2.png"), "has 2 pictures, but no class folder with pictures: use"),
        (("cat/1.png",), "has only the class 'cat', and two or more are needed: use"),
    ],
)
def test_the_command_refuses_in_one_line(
    tmp_path: Path, reslearn: Run, names: tuple[str, ...], message: str
) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    save(folder, *names)
    status, output, errors = reslearn("train", folder, "--out", tmp_path / "run")
    assert (status, output) == (2, "")
    assert len(errors.splitlines()) == 1
    assert f"{folder} {message}" in errors


def test_a_csv_file_is_a_data_set(tmp_path: Path, reslearn: Run) -> None:
    save(tmp_path, *(f"pictures/{number}.png" for number in range(24)))
    rows = [f"pictures/{number}.png,{'cat' if number % 2 else 'dog'}" for number in range(24)]
    table = tmp_path / "mine.csv"
    table.write_text("\n".join(["path,label", *rows]))
    dataset = load(table, size_px=4)
    assert dataset.classes == ("cat", "dog")
    streamed = load(table, size_px=4, stream=True)
    assert streamed.train.labels.tolist() == dataset.train.labels.tolist()
    first = streamed.fingerprint
    table.write_text(table.read_text().replace("0.png,dog", "0.png,cat"))
    assert load(table, size_px=4, stream=True).fingerprint != first
    table.write_text("path,label\nabsent.png,cat\npictures/1.png,dog\nmissing.png,dog\n")
    status, _, errors = reslearn("train", table, "--out", tmp_path / "run")
    assert status == 2
    assert errors.startswith(f"reslearn: 2 of 3 paths of {table} lead nowhere, the first is absent")
