"""The examination of one picture file: form, size, content hash, perceptual hash, tiny thumbnail.

A picture is decoded by `reslearn.data.pictures.open_picture`, as training decodes it. A truncated
file is therefore found here, and the hash belongs to the picture that a network sees. Large JPEG
files are decoded at a fraction of their size, which still reads every byte.

Worker processes run `examine_files`. It returns arrays, so that a million pictures never become a
million Python objects.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntFlag
from pathlib import Path
from typing import cast

import numpy as np
import numpy.typing as npt
from PIL import Image

TINY_PX = 12
"""Side of the thumbnail that confirms a near copy."""
_DECODED_PX = 64  # the shorter side of a decoded JPEG is at least twice this
_SQUARE_PX = 96  # divisible by TINY_PX and by the 32 pixels of pHash
_FLAT_RANGE = 6  # of 255: with less in every channel, a picture shows a single color
_EXIF_ORIENTATION = 0x0112
_OPAQUE = 255
_LARGE_PIXELS = 2**25

RECORD = np.dtype(
    [
        ("flags", "<u2"),
        ("format", "S8"),
        ("mode", "S8"),
        ("width", "<u4"),
        ("height", "<u4"),
        ("bytes", "<u8"),
        ("content", "<u8"),
        ("hash", "<u8"),
    ]
)
"""One file: upright width and height in pixels, digest of the content, perceptual hash."""


class Flag(IntFlag):
    """Properties of a file that the user should know."""

    UNREADABLE = 1
    WRONG_SUFFIX = 2
    ANIMATED = 4
    SIXTEEN_BIT = 8
    CMYK = 16
    TRANSPARENT = 32
    ROTATED = 64
    FLAT = 128


@dataclass(frozen=True)
class Examination:
    """The result for N files.

    Attributes:
        records: N values of `RECORD`.
        tiny: uint8 [N, TINY_PX, TINY_PX, 3].
        reasons: Why a file cannot be read, by its position.
    """

    records: npt.NDArray[np.void]
    tiny: npt.NDArray[np.uint8]
    reasons: dict[int, str]


def examine_files(paths: Sequence[str]) -> Examination:
    """Examine files one after another. A file that cannot be read never raises an error."""
    records = np.zeros(len(paths), RECORD)
    tiny = np.zeros((len(paths), TINY_PX, TINY_PX, 3), np.uint8)
    reasons = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow warns about odd metadata, once per file
        for index, path in enumerate(paths):
            reason = _examine(path, records[index : index + 1], tiny[index])
            if reason is not None:
                records["flags"][index] |= np.uint16(Flag.UNREADABLE)
                reasons[index] = reason
    return Examination(records, tiny, reasons)


def _examine(path: str, record: npt.NDArray[np.void], tiny: npt.NDArray[np.uint8]) -> str | None:
    """Fill one record and thumbnail in; return why the file cannot be read."""
    from reslearn.data.errors import PictureError
    from reslearn.data.pictures import open_picture

    try:
        picture = open_picture(Path(path), _DECODED_PX)
        with open(path, "rb") as file:
            record["content"] = int.from_bytes(hashlib.file_digest(file, _digest).digest())
            record["bytes"] = file.tell()
            file.seek(0)
            with Image.open(file) as image:
                _read_header(image, suffix=Path(path).suffix.lower(), record=record)
    except PictureError as error:
        return error.reason
    except OSError as error:  # the file was removed between the two reads
        return error.strerror or str(error)
    record["hash"], tiny[:], is_flat = fingerprint(picture)
    if is_flat:
        record["flags"] |= np.uint16(Flag.FLAT)
    return None


def fingerprint(picture: Image.Image) -> tuple[int, npt.NDArray[np.uint8], bool]:
    """Return the pHash of an RGB picture, its thumbnail, and whether it shows a single color.

    Returns:
        64 bits; uint8 [TINY_PX, TINY_PX, 3]; whether no channel has a range of `_FLAT_RANGE`.
    """
    import imagehash

    square = picture.resize((_SQUARE_PX, _SQUARE_PX), Image.Resampling.BOX)
    bits = imagehash.phash(square).hash
    tiny = np.asarray(square.resize((TINY_PX, TINY_PX), Image.Resampling.BOX))
    ranges = cast("tuple[tuple[int, int], ...]", square.getextrema())  # one for each channel
    is_flat = all(highest - lowest < _FLAT_RANGE for lowest, highest in ranges)
    return int(np.packbits(bits.ravel()).view(">u8")[0]), tiny, is_flat


def _digest() -> hashlib.blake2b:
    return hashlib.blake2b(digest_size=8)


def _read_header(image: Image.Image, *, suffix: str, record: npt.NDArray[np.void]) -> None:
    """Fill in what the header of the file says."""
    width, height = image.size
    orientation = image.getexif().get(_EXIF_ORIENTATION, 1)
    if orientation in (5, 6, 7, 8):
        width, height = height, width
    record["width"], record["height"] = width, height
    record["format"], record["mode"] = image.format or "", image.mode
    flags = Flag(0)
    if _format_of(suffix) != _plain_format(image.format):
        flags |= Flag.WRONG_SUFFIX
    # Cameras write JPEG files with a second, smaller picture (MPO). They are not animated.
    if getattr(image, "n_frames", 1) > 1 and image.format != "MPO":
        flags |= Flag.ANIMATED
    if image.mode[:1] in ("I", "F") or any(
        ";16" in str(tile) for tile in getattr(image, "tile", [])
    ):
        flags |= Flag.SIXTEEN_BIT
    if image.mode == "CMYK":
        flags |= Flag.CMYK
    if orientation in range(2, 9):
        flags |= Flag.ROTATED
    if _is_transparent(image):
        flags |= Flag.TRANSPARENT
    record["flags"] = flags


def _format_of(suffix: str) -> str | None:
    return _plain_format(Image.registered_extensions().get(suffix))


def _plain_format(name: str | None) -> str | None:
    return "JPEG" if name == "MPO" else name


def _is_transparent(image: Image.Image) -> bool:
    """Return whether a pixel is not opaque. For formats that are rare or large, trust the file."""
    if not image.has_transparency_data:
        return False
    if "A" in image.getbands():
        lowest, _ = image.getchannel("A").getextrema()
        return int(lowest) < _OPAQUE  # type: ignore[arg-type]
    if image.mode in ("P", "L", "RGB") and image.width * image.height < _LARGE_PIXELS:
        lowest, _ = image.convert("RGBA").getchannel("A").getextrema()
        return int(lowest) < _OPAQUE  # type: ignore[arg-type]
    return True
