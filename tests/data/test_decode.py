"""Decoding: depth, transparency, orientation, formats, limits, and damaged files.

The first tests repeat public bug reports: pytorch/vision 2218 (16 bits as white), DIGITS 85 and
meerk40t 962 (colors under transparent pixels), fastai 3565 (orientation).
"""

import functools
import io
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from reslearn.data import DataError
from reslearn.data import pictures as module
from reslearn.data.pictures import MAX_PIXELS, open_picture, read_picture
from reslearn.data.walk import picture_formats, picture_suffixes

RAMP = np.arange(256, dtype=np.uint8).reshape(16, 16)


def encode(image: Image.Image, suffix: str, **options: Any) -> io.BytesIO:
    file = io.BytesIO()
    image.save(file, suffix, **options)
    file.seek(0)
    return file


def pixels(image: Image.Image, suffix: str = "png", **options: Any) -> np.ndarray:
    opened = open_picture(encode(image, suffix, **options))
    assert opened.mode == "RGB"
    return np.asarray(opened)


def gray(values: np.ndarray, suffix: str = "png", **options: Any) -> np.ndarray:
    rgb = pixels(Image.fromarray(values), suffix, **options)
    assert (rgb == rgb[:, :, :1]).all()
    return rgb[:, :, 0]


@pytest.mark.parametrize("suffix", ["png", "tiff"])
def test_sixteen_bits_show_the_same_as_eight(suffix: str) -> None:
    deep = RAMP.astype(np.uint16) * 257
    np.testing.assert_array_equal(gray(deep, suffix), RAMP)
    np.testing.assert_array_equal(gray(deep.astype(">u2"), suffix), RAMP)
    np.testing.assert_array_equal(gray(RAMP, suffix), RAMP)
    dark = np.full((4, 4), 300, np.uint16)  # a dark picture stays dark
    assert gray(dark, suffix).max() == 1


def test_other_depths_are_converted_by_their_range() -> None:
    pgm = b"P5 16 16 65535\n" + (RAMP.astype(">u2") * 257).tobytes()
    np.testing.assert_array_equal(np.asarray(open_picture(io.BytesIO(pgm)))[:, :, 0], RAMP)
    signed = (RAMP.astype(np.int16) - 128) * 256  # below 0 is black
    expected = np.clip(RAMP.astype(int) - 128, 0, None) * 2
    tiff = io.BytesIO()
    Image.fromarray(signed.view(np.uint16)).save(tiff, "tiff", tiffinfo={339: 2})
    tiff.seek(0)
    np.testing.assert_array_equal(np.asarray(open_picture(tiff))[:, :, 0], expected)
    inverted = io.BytesIO()
    Image.fromarray(RAMP.astype(np.uint16) * 257).save(inverted, "tiff", tiffinfo={262: 0})
    inverted.seek(0)
    np.testing.assert_array_equal(np.asarray(open_picture(inverted))[:, :, 0], 255 - RAMP)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (RAMP / np.float32(255), RAMP),
        (RAMP.astype(np.float32), RAMP),
        (RAMP.astype(np.float32) * 257, RAMP),
        (RAMP.astype(np.int32), RAMP),
        (RAMP.astype(np.int32) * 257, RAMP),
        (RAMP.astype(np.float32) * 1000, RAMP),
        (RAMP.astype(np.float32) - 100, RAMP),
        (np.full((4, 4), np.nan, np.float32), np.zeros((4, 4), np.uint8)),
    ],
)
def test_floats_and_long_integers_by_the_smallest_range(
    values: np.ndarray, expected: np.ndarray
) -> None:
    np.testing.assert_allclose(gray(values, "tiff").astype(int), expected, atol=0)


def with_hole(color: tuple[int, int, int]) -> Image.Image:
    """Return a red square on transparent ground with `color` under it."""
    image = Image.new("RGBA", (12, 12), (*color, 0))
    image.paste((200, 30, 30, 255), (3, 3, 9, 9))
    return image


EXPECTED = np.full((12, 12, 3), 255, np.uint8)
EXPECTED[3:9, 3:9] = (200, 30, 30)


@pytest.mark.parametrize("hidden", [(0, 0, 0), (0, 255, 0), (90, 17, 60)])
def test_transparent_pixels_are_white(hidden: tuple[int, int, int]) -> None:
    image = with_hole(hidden)
    np.testing.assert_array_equal(pixels(image), EXPECTED)
    np.testing.assert_array_equal(pixels(image, "webp", lossless=True, exact=True), EXPECTED)
    np.testing.assert_array_equal(pixels(image, "tiff"), EXPECTED)
    opaque = Image.composite(image, Image.new("RGBA", image.size, (*hidden, 255)), image)
    flat = opaque.convert("RGB")
    np.testing.assert_array_equal(pixels(flat, transparency=hidden), EXPECTED)
    palette = flat.quantize(4)
    index = palette.getpixel((0, 0))
    np.testing.assert_allclose(pixels(palette, transparency=index), EXPECTED, atol=3)
    np.testing.assert_allclose(pixels(palette, "gif", transparency=index), EXPECTED, atol=3)


def test_gray_pictures_with_transparency() -> None:
    la = Image.merge(
        "LA", (Image.fromarray(RAMP), Image.fromarray(255 * (RAMP < 100).astype("u1")))
    )
    expected = np.where(RAMP < 100, RAMP, 255)
    np.testing.assert_array_equal(pixels(la)[:, :, 0], expected)
    expected = np.where(RAMP == 7, 255, RAMP)
    np.testing.assert_array_equal(gray(RAMP, transparency=7), expected)
    deep = RAMP.astype(np.uint16) * 257
    np.testing.assert_array_equal(gray(deep, transparency=7 * 257), expected)
    bilevel = Image.fromarray(RAMP).point(lambda value: 255 * (value > 127), "1")
    np.testing.assert_array_equal(pixels(bilevel, transparency=0), 255)
    half = Image.new("LA", (2, 2), (0, 128))
    np.testing.assert_allclose(pixels(half), 127, atol=1)


def test_four_inks() -> None:
    inks = Image.new("CMYK", (8, 8), (0, 255, 255, 0))
    for suffix in ("jpeg", "tiff"):
        red = pixels(inks, suffix)[4, 4].astype(int)
        np.testing.assert_allclose(red, (255, 0, 0), atol=3)


@pytest.mark.parametrize("suffix", ["png", "jpeg", "webp", "tiff", "avif"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_all_orientations_in_all_formats(suffix: str, orientation: int) -> None:
    """The expected pictures come from Pillow's exif_transpose."""
    upright = np.zeros((24, 32, 3), np.uint8)
    upright[:12] = (250, 0, 0)
    upright[:, :16, 2] = 250
    inverse = {
        1: lambda a: a,
        2: lambda a: a[:, ::-1],
        3: lambda a: a[::-1, ::-1],
        4: lambda a: a[::-1],
        5: lambda a: a.transpose(1, 0, 2),
        6: lambda a: np.rot90(a, 1),
        7: lambda a: np.rot90(a, 2).transpose(1, 0, 2),
        8: lambda a: np.rot90(a, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = Image.fromarray(np.ascontiguousarray(inverse(upright)))
    decoded = pixels(stored, suffix, exif=exif).astype(int)
    assert decoded.shape == upright.shape
    for row, column in ((3, 3), (3, 28), (20, 3), (20, 28)):
        np.testing.assert_allclose(decoded[row, column], upright[row, column], atol=40)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_damaged_metadata_do_not_hide_a_sound_picture() -> None:
    content = encode(
        Image.fromarray(RAMP), "jpeg", exif=b"Exif\0\0MM\0*\xff\xff\xff\xff"
    ).getvalue()
    assert open_picture(io.BytesIO(content)).size == (16, 16)


def test_the_first_frame_of_an_animation() -> None:
    frames = [Image.new("RGB", (8, 8), color) for color in ("red", "blue", "green")]
    for suffix in ("gif", "webp", "png", "tiff", "avif"):
        options = {"lossless": True} if suffix == "webp" else {}
        file = encode(frames[0], suffix, save_all=True, append_images=frames[1:], **options)
        red = np.asarray(open_picture(file))[4, 4].astype(int)
        np.testing.assert_allclose(red, (255, 0, 0), atol=12)


def test_photos_of_newer_phones_are_read_with_the_extra(tmp_path: Path) -> None:
    pytest.importorskip("pillow_heif")
    assert {".heic", ".heif"} <= picture_suffixes()
    red = Image.new("RGB", (32, 24), (250, 10, 10))
    decoded = pixels(red, "HEIF", quality=90)
    np.testing.assert_allclose(decoded.astype(int), np.asarray(red).astype(int), atol=12)
    # Phones also write such photos with the suffix of JPEG.
    (tmp_path / "photo.jpg").write_bytes(encode(red, "HEIF").getvalue())
    assert open_picture(tmp_path / "photo.jpg").size == (32, 24)


def test_bytes_and_paths_give_the_same(tmp_path: Path) -> None:
    path = tmp_path / "wrong_suffix.jpg"
    path.write_bytes(encode(Image.fromarray(RAMP), "png").getvalue())
    with path.open("rb") as file:
        np.testing.assert_array_equal(read_picture(path, 8), read_picture(file, 8))


def test_plain_pictures_keep_their_pixels(tmp_path: Path) -> None:
    """Fingerprints of data sets depend on them."""
    colors = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)
    for mode in ("RGB", "L", "P", "1"):
        for suffix in ("png", "jpeg") if mode in ("RGB", "L") else ("png",):
            path = tmp_path / f"{mode}.{suffix}"
            Image.fromarray(colors).convert(mode).save(path)
            with Image.open(path) as image:
                expected = np.asarray(image.convert("RGB"))
            np.testing.assert_array_equal(np.asarray(open_picture(path)), expected)


def test_large_pictures_in_strips_equal_whole_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    from reslearn.data import pixel_modes

    noise = np.random.default_rng(0).integers(0, 256, (70, 50, 4), np.uint8)
    colors, deep = Image.fromarray(noise), noise[:, :, 0].astype(np.uint16) * 256
    palette = colors.convert("RGB").quantize(16)
    files = [encode(colors, "png"), encode(Image.fromarray(deep), "png")]
    files += [encode(Image.fromarray(deep.astype(np.float32)), "tiff")]
    files += [encode(palette, "png", transparency=3)]
    for file in files:
        whole = np.asarray(open_picture(file))
        with monkeypatch.context() as patch:
            for target in (pixel_modes, module):
                patch.setattr(target, "LARGE_PIXELS", 100)
            patch.setattr(pixel_modes, "_STRIP_PIXELS", 50 * 9)
            file.seek(0)
            np.testing.assert_array_equal(np.asarray(open_picture(file)), whole)
            file.seek(0)
            reduced = np.asarray(open_picture(file, 8))
        assert reduced.shape == (24, 17, 3)  # a third: still twice 8
        expected = Image.fromarray(whole).reduce(3)
        np.testing.assert_array_equal(reduced, np.asarray(expected))
        file.seek(0)


BOMBS = """
import io, resource, struct, sys, zlib
from reslearn.data import DataError
from reslearn.data.pictures import open_picture, read_picture

def png(side):
    def chunk(kind, content):
        checksum = struct.pack(">I", zlib.crc32(kind + content))
        return struct.pack(">I", len(content)) + kind + content + checksum
    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    rows = zlib.compress(bytes((1 + -(-side // 8)) * side))
    chunks = (b"IHDR", header), (b"IDAT", rows), (b"IEND", b"")
    return io.BytesIO(b"\\x89PNG\\r\\n\\x1a\\n" + b"".join(chunk(*each) for each in chunks))

wide = b"\\xff\\xff\\xff\\xff"
bombs = [png(20_000), io.BytesIO(b"P6 1000000 1000000 255 ")]
bombs.append(io.BytesIO(b"GIF89a" + wide + bytes(3) + b"," + bytes(4) + wide + b"\\0\\x08"))
scan = png(13_000)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for bomb in bombs:
    try:
        open_picture(bomb)
    except DataError as error:
        print(error)
print(read_picture(scan, 64).shape)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


def test_bombs_are_refused_and_an_honest_scan_is_read_in_bounded_memory() -> None:
    command = [sys.executable, "-W", "error", "-c", BOMBS]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    *refusals, shape, megabytes = result.stdout.splitlines()
    assert len(refusals) == 3
    assert all("million pixels, and the limit is 179 million" in line for line in refusals)
    assert shape == "(64, 64, 3)"
    assert int(megabytes) < 300  # 169 million pixels of one byte, and a strip


def test_a_broken_picture_has_one_line_with_a_reason(tmp_path: Path) -> None:
    reasons = {
        "empty.jpg": (b"", "the file is empty"),
        "page.jpg": (b"<!DOCTYPE html>\n<title>404</title>", "its content is not a picture"),
        "cut.png": (encode(Image.fromarray(RAMP), "png").getvalue()[:-60], "[Tt]runcated"),
        "vector.eps": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not a picture"),
    }
    for name, (content, reason) in reasons.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(DataError, match=rf"{name} cannot be read \(.*{reason}.*\): rem"):
            open_picture(tmp_path / name)
        with pytest.raises(DataError, match=r"^the picture cannot be read"):
            open_picture(io.BytesIO(content))
    with pytest.raises(DataError, match="No such file"):
        open_picture(tmp_path / "absent.png")


@functools.cache
def seeds() -> list[bytes]:
    """Return small pictures of every format that Pillow can write, in several modes."""
    contents = []
    colors = Image.fromarray(np.random.default_rng(0).integers(0, 256, (9, 11, 3), np.uint8))
    for name in picture_formats():
        if name not in Image.SAVE:
            continue
        # An ICNS file holds PNG files of up to 1024 pixels, which take long to write.
        modes = ("RGB", "L", "P", "1", "RGBA", "LA", "CMYK", "I;16", "F")
        for mode in modes if name != "ICNS" else ("RGB",):
            file = io.BytesIO()
            try:
                image = (
                    colors.convert("L").convert("I;16") if mode == "I;16" else colors.convert(mode)
                )
                with warnings.catch_warnings(action="ignore"):
                    image.save(file, name)
            except (OSError, ValueError, KeyError, SystemError, AttributeError):
                continue
            contents.append(file.getvalue())
    return contents


CHANGES = st.lists(
    st.tuples(
        st.floats(0, 1), st.sampled_from(["set", "cut", "insert", "copy"]), st.binary(max_size=9)
    ),
    min_size=1,
    max_size=6,
)


@settings(max_examples=300)
@given(st.deferred(lambda: st.sampled_from(seeds())), CHANGES)
def test_damaged_files_raise_data_errors_only(
    content: bytes, changes: list[tuple[float, str, bytes]]
) -> None:
    damaged = bytearray(content)
    for share, kind, new in changes:
        place = int(share * len(damaged))
        if kind == "set":
            damaged[place : place + len(new)] = new
        elif kind == "cut":
            del damaged[place : place + 200 * len(new)]
        elif kind == "insert":
            damaged[place:place] = new
        else:
            damaged[place:place] = damaged[: 40 * len(new)]
    check(bytes(damaged))


@settings(max_examples=200)
@given(
    st.deferred(lambda: st.sampled_from([content[:12] for content in seeds()])),
    st.binary(max_size=300),
)
def test_arbitrary_bytes_raise_data_errors_only(start: bytes, rest: bytes) -> None:
    check(rest)
    check(start + rest)


def check(content: bytes) -> None:
    message = ""
    try:
        image = open_picture(io.BytesIO(content), 4)
    except DataError as error:
        message = str(error)
        image = Image.new("RGB", (1, 1))
    assert "\n" not in message
    assert image.mode == "RGB"
    assert 0 < image.width * image.height <= MAX_PIXELS
