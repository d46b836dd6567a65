"""The examination of files: properties, upright sizes, and files that cannot be read."""

import numpy as np
import pytest
from PIL import Image

from reslearn.survey.examine import Flag, examine_files, fingerprint
from reslearn.survey.near import MAX_DISTANCE, MIN_CORRELATION, NearSearch


def examine(path):
    examination = examine_files([str(path)])
    return examination.records[0], examination.reasons.get(0)


def flags_of(path):
    record, reason = examine(path)
    assert reason is None
    return Flag(int(record["flags"]))


def save(path, image, **options):
    image.save(path, **options)
    return path


def test_a_plain_photo_has_no_flag(tmp_path, photo) -> None:
    record, _ = examine(save(tmp_path / "a.jpg", photo(1, (200, 100))))
    assert (record["flags"], record["format"], record["mode"]) == (0, b"JPEG", b"RGB")
    assert (record["width"], record["height"]) == (200, 100)


def test_a_rotated_photo_has_its_upright_size(tmp_path, photo) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    path = save(tmp_path / "a.jpg", photo(1, (200, 100)), exif=exif)
    assert flags_of(path) == Flag.ROTATED
    assert (examine(path)[0]["width"], examine(path)[0]["height"]) == (100, 200)


def test_each_odd_property_is_seen(tmp_path, photo) -> None:
    picture = photo(1)
    gray = np.asarray(picture.convert("L")).astype(np.uint16) * 257
    clear = picture.convert("RGBA")
    clear.putpixel((0, 0), (0, 0, 0, 0))
    palette = picture.quantize(8)
    cases = {
        Flag.SIXTEEN_BIT: save(tmp_path / "deep.png", Image.fromarray(gray)),
        Flag.CMYK: save(tmp_path / "print.jpg", picture.convert("CMYK")),
        Flag.TRANSPARENT: save(tmp_path / "clear.png", clear),
        Flag.WRONG_SUFFIX: save(tmp_path / "png.jpg", picture, format="png"),
        Flag.FLAT: save(tmp_path / "flat.png", Image.new("RGB", (40, 40), "orange")),
        Flag.ANIMATED: save(
            tmp_path / "film.gif", picture, save_all=True, append_images=[photo(2)]
        ),
    }
    for flag, path in cases.items():
        assert flags_of(path) == flag
    index = palette.getpixel((0, 0))
    assert flags_of(save(tmp_path / "p.png", palette, transparency=index)) == Flag.TRANSPARENT


def test_what_looks_odd_and_is_not(tmp_path, photo) -> None:
    """An alpha channel without transparency; a photo with a preview; .jfif; capital letters."""
    for path in (
        save(tmp_path / "opaque.png", photo(1).convert("RGBA")),
        save(tmp_path / "a.jpg", photo(1), format="MPO", save_all=True, append_images=[photo(1)]),
        save(tmp_path / "a.jfif", photo(1), format="jpeg"),
        save(tmp_path / "A.JPG", photo(1), format="jpeg"),
    ):
        assert flags_of(path) == 0


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp"])
def test_a_truncated_file_is_found(tmp_path, photo, suffix: str) -> None:
    path = save(tmp_path / f"a{suffix}", photo(1, (600, 400)))
    path.write_bytes(path.read_bytes()[:-40])
    record, reason = examine(path)
    assert record["flags"] == Flag.UNREADABLE
    assert reason and "\n" not in reason and str(tmp_path) not in reason


def test_other_kinds_of_files_have_a_reason(tmp_path) -> None:
    (tmp_path / "empty.jpg").write_bytes(b"")
    (tmp_path / "page.jpg").write_text("<!DOCTYPE html>")
    paths = [str(tmp_path / name) for name in ("empty.jpg", "page.jpg", "absent.jpg")]
    reasons = examine_files(paths).reasons
    assert reasons[0] == "the file is empty"
    assert "not a picture" in reasons[1]
    assert "No such file" in reasons[2]


def test_copies_of_a_photo_are_near_and_other_photos_are_not(photo) -> None:
    original = photo(1, (320, 240))
    copies = [
        original.resize((160, 120)),
        original.point(lambda value: value * 0.8),
        original.crop((1, 1, 319, 239)),
    ]
    others = [photo(2, (320, 240)), original.transpose(Image.Transpose.FLIP_LEFT_RIGHT)]
    prints = [fingerprint(picture) for picture in (original, *copies, *others)]
    hashes = np.array([print_[0] for print_ in prints], np.uint64)
    tiny, nothing = np.stack([print_[1] for print_ in prints]), np.zeros(len(prints), bool)
    search = NearSearch(hashes, tiny, np.arange(len(prints)), skip=nothing, is_small=nothing)
    assert (MAX_DISTANCE, MIN_CORRELATION) == (6, 0.95)
    near_original = set()
    for first, second in search.pairs():
        for pair in zip(first.tolist(), second.tolist(), strict=True):
            near_original |= set(pair)
    assert near_original == {0, 1, 2, 3}
