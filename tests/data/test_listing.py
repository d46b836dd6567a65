"""Listings of image folders: layouts, junk, link circles, files left out, and CSV files."""

import os
from collections import Counter
from pathlib import Path

import pytest
from PIL import Image

from reslearn.data import DataError, walk
from reslearn.data.listing import Listing, list_images


def save(path: Path, color: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 6), (color, 90, 200)).save(path)
    return path


def names(listing: Listing) -> list[str]:
    return [str(record.path.relative_to(listing.folder)) for record in listing]


def test_class_folders(tmp_path: Path) -> None:
    for name in ("dog/b.png", "dog/a.png", "cat/2020/x.jpg", "cat/1.JPG"):
        save(tmp_path / name)
    listing = list_images(tmp_path)
    assert (listing.layout, listing.classes, listing.splits) == (
        "class folders",
        ("cat", "dog"),
        (),
    )
    assert names(listing) == ["cat/1.JPG", "cat/2020/x.jpg", "dog/a.png", "dog/b.png"]
    record = listing[3]
    assert (record.path, record.class_name, record.split) == (tmp_path / "dog/b.png", "dog", None)
    assert record.num_bytes == record.path.stat().st_size
    assert listing.counts() == {None: {"cat": 2, "dog": 2}}


@pytest.mark.parametrize("validation", ["val", "valid", "validation", "Val"])
def test_split_folders(tmp_path: Path, validation: str) -> None:
    for name in ("train/cat/1.png", "train/dog/1.png", f"{validation}/dog/1.png", "test/cat/1.png"):
        save(tmp_path / name)
    save(tmp_path / "extra" / "bird" / "1.png")
    listing = list_images(tmp_path)
    assert (listing.layout, listing.splits) == ("split folders", ("train", "validation", "test"))
    assert listing.split_folders["validation"] == validation
    assert listing.counts()["validation"] == {"cat": 0, "dog": 1}  # missing classes are seen
    assert listing.unused_folders == ("extra",)
    save(tmp_path / "valid_" / "x.png").parent.rename(tmp_path / "VALIDATION")
    with pytest.raises(DataError, match=r"both for validation images: keep one of them$"):
        list_images(tmp_path)


def test_junk_is_neither_class_nor_picture(tmp_path: Path) -> None:
    for name in ("cat/1.jpg", "dog/1.jpg"):
        save(tmp_path / name)
    expected = names(list_images(tmp_path))
    for place in (tmp_path, tmp_path / "cat"):
        for name in (".DS_Store", "Thumbs.db", "desktop.ini", "._1.jpg", ".hidden.jpg"):
            (place / name).write_bytes(b"\0\5\x16\7")
        for name in ("@eaDir", ".ipynb_checkpoints", "__MACOSX", "$RECYCLE.BIN"):
            save(place / name / "thumbnail.jpg")
    listing = list_images(tmp_path)
    assert names(listing) == expected
    assert (listing.left_out, listing.loose, listing.vanished) == ((), {}, ())
    assert listing.junk["@eaDir"] == listing.junk["._*"] == listing.junk["Thumbs.db"] == 2


def test_a_link_in_a_circle_is_named_and_not_followed(tmp_path: Path) -> None:
    for name in ("cat/1.png", "dog/1.png", "all/2.png"):
        save(tmp_path / "photos" / name)
    photos = tmp_path / "photos"
    (photos / "all").rename(tmp_path / "all")
    os.symlink("..", photos / "cat" / "again")
    os.symlink("itself", photos / "dog" / "itself")
    os.symlink(tmp_path / "all", photos / "dog" / "more")  # a link elsewhere is followed, once
    os.symlink(tmp_path / "all", photos / "dog" / "twice")
    listing = list_images(photos)
    assert names(listing) == ["cat/1.png", "dog/1.png", "dog/more/2.png"]
    circles = [str(link.relative_to(photos)) for link in listing.link_circles]
    assert circles == ["cat/again", "dog/itself", "dog/twice"]
    assert listing.left_out == ()


def test_content_decides_before_the_suffix(tmp_path: Path) -> None:
    save(tmp_path / "cat" / "1.png").rename(tmp_path / "cat" / "png_inside.jpg")
    save(tmp_path / "cat" / "2.jpg").rename(tmp_path / "cat" / "2.jpg_large")
    save(tmp_path / "cat" / "3.jpg").rename(tmp_path / "cat" / "no_suffix")
    for suffix in ("jfif", "jpe", "webp", "avif", "tiff", "bmp"):
        save(tmp_path / "dog" / f"1.{suffix}")
    (tmp_path / "dog" / "notes.txt").write_text("a dog")
    (tmp_path / "dog" / "film.mp4").write_bytes(b"\0\0\0\x18ftypisom" + b"\0" * 20)
    os.mkfifo(tmp_path / "dog" / "pipe")  # reading from it would never end
    listing = list_images(tmp_path)
    assert listing.counts() == {None: {"cat": 3, "dog": 6}}
    counts = {(left.class_name, left.suffix): left.count for left in listing.left_out}
    assert counts == {("dog", ".txt"): 1, ("dog", ".mp4"): 1, ("dog", ""): 1}


def test_a_class_without_readable_files_vanishes_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without pillow-heif, the photos of a phone are left out and counted."""
    for function in (walk.has_heif, walk.picture_formats, walk.picture_suffixes):
        function.cache_clear()
    monkeypatch.setattr(walk.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(Image, "OPEN", {**Image.OPEN})
    Image.OPEN.pop("HEIF", None)
    try:
        for name in ("cat/1.png", "dog/1.png"):
            save(tmp_path / name)
        (tmp_path / "disk").mkdir()
        for number in range(3):
            (tmp_path / "disk" / f"{number}.HEIC").write_bytes(b"\0\0\0\x18ftypheic" + b"\0" * 9)
        listing = list_images(tmp_path)
        assert (listing.classes, listing.vanished) == (("cat", "dog"), ("disk",))
        left = listing.left_out[0]
        assert (left.class_name, left.suffix, left.count) == ("disk", ".heic", 3)
    finally:
        for function in (walk.has_heif, walk.picture_formats, walk.picture_suffixes):
            function.cache_clear()


def write_table(folder: Path, text: str, name: str = "labels.csv") -> Path:
    for number in range(4):
        save(folder / "images" / f"{number}.png", number)
    (folder / name).write_text(text, encoding="utf-8")
    return folder / name


def test_a_csv_file_of_path_and_label(tmp_path: Path) -> None:
    table = write_table(
        tmp_path,
        "id,filename,Label,split\n"
        "7,images/0.png,dog,train\n"
        '8,"images\\1.png",cat,val\n'
        "9,images/2.png,cat,train\n"
        f"9,{tmp_path}/images/3.png,dog,Test\n",
    )
    for listing in (list_images(tmp_path), list_images(table)):
        assert (listing.layout, listing.classes) == ("csv", ("cat", "dog"))
        assert listing.label_file == table
        assert [record.path.name for record in listing] == ["0.png", "1.png", "2.png", "3.png"]
        assert [record.class_name for record in listing] == ["dog", "cat", "cat", "dog"]
        assert [record.split for record in listing] == ["train", "validation", "train", "test"]
        assert all(record.num_bytes == record.path.stat().st_size for record in listing)


def test_a_csv_file_without_titles_or_splits(tmp_path: Path) -> None:
    table = write_table(tmp_path, "images/0.png;dog\nimages/1.png;cat\n\n", "my.csv")
    listing = list_images(table)
    assert [record.class_name for record in listing] == ["dog", "cat"]
    assert listing.splits == ()


def test_class_folders_come_before_a_csv_file(tmp_path: Path) -> None:
    save(tmp_path / "cat" / "1.png")
    save(tmp_path / "dog" / "1.png")
    (tmp_path / "labels.csv").write_text("path,label\ncat/1.png,x\n")
    assert list_images(tmp_path).layout == "class folders"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("path,label\na.png,cat\nb.png,dog\n", r"2 of 2 paths of \S* lead nowhere.*a.png \(line 2"),
        (
            "name,kind\nimages/0.png,cat\n",
            r"has the columns 'name', 'kind': name them path, label and",
        ),
        ("path,label\nimages/0.png,\n", "line 2 of .* has no label"),
        ("path,label,split\nimages/0.png,cat,dev\n", "has split 'dev': allowed are train"),
        ("path,label,split\nimages/0.png,cat,\n", "has no split: write train"),
        ("path,label\n", "has no rows"),
        ("", "has no rows"),
        ("path,label\n\0\0\n", "has no label|NUL"),
    ],
)
def test_wrong_csv_files_are_refused_in_one_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(DataError, match=message) as error:
        list_images(write_table(tmp_path, text))
    assert "\n" not in str(error.value)


def test_folders_without_classes_say_what_is_expected(tmp_path: Path) -> None:
    expected = r"use class folders \(cat/1.jpg, dog/2.jpg\), split folders \(train/"
    with pytest.raises(DataError, match=f"has no pictures: {expected}"):
        list_images(tmp_path)
    save(tmp_path / "1.png")
    with pytest.raises(DataError, match=f"has 1 pictures, but no class folder.*: {expected}"):
        list_images(tmp_path)
    with pytest.raises(DataError, match="cannot read the folder"):
        list_images(tmp_path / "absent")


def test_a_listing_of_many_images_is_small(tmp_path: Path) -> None:
    picture = save(tmp_path / "cat" / "0.png")
    save(tmp_path / "dog" / "0.png")
    for number in range(1, 500):
        os.link(picture, tmp_path / "cat" / f"{number}.png")
    listing = list_images(tmp_path)
    arrays = (listing.ends, listing.labels, listing.split_codes, listing.num_bytes)
    assert sum(array.nbytes for array in arrays) + len(listing.names) < 45 * len(listing)
    assert Counter(record.class_name for record in listing) == {"cat": 500, "dog": 1}
