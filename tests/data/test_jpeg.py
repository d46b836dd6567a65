"""The quick decoder gives the pixels of Pillow, and leaves other files to Pillow."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from reslearn.data import DataError, jpeg, pictures
from reslearn.data.pictures import open_picture

pytest.importorskip("simplejpeg")


def write(path: Path, mode: str = "RGB", orientation: int | None = None, **options: object) -> Path:
    size = (90, 61)
    if orientation is not None:
        options["exif"] = exif(orientation)
    pixels = np.random.default_rng(0).integers(0, 256, (8, 12, 3), dtype=np.uint8)
    picture = Image.fromarray(pixels).resize(size).convert(mode)
    picture.save(path, **options)  # type: ignore[arg-type]
    return path


def exif(orientation: int) -> Image.Exif:
    value = Image.Exif()
    value[0x0112] = orientation
    return value


@pytest.mark.parametrize("half_shorter_px", [1, 4, 7, 8, 15, 16, 30, 31, 500])
def test_pixels_equal_pillow_at_every_scale(half_shorter_px: int, tmp_path: Path) -> None:
    path = write(tmp_path / "picture.jpg")
    expected = np.asarray(open_picture(path, half_shorter_px))
    assert np.array_equal(jpeg.decode_picture(path, half_shorter_px), expected)


@pytest.mark.parametrize(
    "options",
    [
        *({"orientation": number} for number in range(10)),
        {"mode": "L"},
        {"mode": "CMYK"},
        {"progressive": True},
        {"quality": 30, "subsampling": 0},
        {"keep_rgb": True},
        {"xmp": b'<x:xmpmeta tiff:Orientation="6"></x:xmpmeta>'},
        {"icc_profile": b"profile" * 100, "comment": b"a comment"},
    ],
    ids=str,
)
def test_kinds_of_jpeg_equal_pillow(options: dict[str, object], tmp_path: Path) -> None:
    path = write(tmp_path / "picture.jpg", **options)  # type: ignore[arg-type]
    for half_shorter_px in (8, 40):
        expected = np.asarray(open_picture(path, half_shorter_px))
        assert np.array_equal(jpeg.decode_picture(path, half_shorter_px), expected)


def test_the_name_of_a_file_does_not_matter(tmp_path: Path) -> None:
    png = write(tmp_path / "picture.png").rename(tmp_path / "picture.jpg")
    assert np.array_equal(jpeg.decode_picture(png, 4), np.asarray(open_picture(png)))


def test_without_simplejpeg_pixels_are_equal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "picture.jpg", orientation=6)
    expected = jpeg.decode_picture(path, 8)
    assert jpeg.decoder_name() == "simplejpeg"
    monkeypatch.setattr(jpeg, "_decoder", None)
    assert np.array_equal(jpeg.decode_picture(path, 8), expected)
    assert jpeg.decoder_name() == "Pillow"


def test_damaged_and_huge_files_are_left_to_pillow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "picture.jpg")
    content = path.read_bytes()
    for damaged in (b"", b"\xff\xd8", content[:40], content[: len(content) // 2]):
        path.write_bytes(damaged)
        with pytest.raises(DataError, match=r"picture\.jpg cannot be read"):
            jpeg.decode_picture(path, 8)
    bomb = io.BytesIO()
    Image.new("RGB", (90, 61)).save(bomb, "JPEG")
    path.write_bytes(bomb.getvalue())
    monkeypatch.setattr(jpeg, "LARGE_PIXELS", 1000)
    monkeypatch.setattr(pictures, "MAX_PIXELS", 1000)
    with pytest.raises(DataError, match=r"picture\.jpg cannot be read"):
        jpeg.decode_picture(path, 8)
