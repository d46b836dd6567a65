"""The quick way from a JPEG file to pixels: simplejpeg, if it is installed, else Pillow.

Both use libjpeg-turbo with the same settings, so pixels are equal bit for bit, and so are trainings
with and without simplejpeg. simplejpeg needs about half of Pillow's time, since it decodes from
memory straight into an array. Everything that is not a plain JPEG is left to Pillow.

Shapes: uint8 [H, W, 3], RGB.
"""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
from PIL import Image

from reslearn.data.pictures import Pixels, open_picture
from reslearn.data.pixel_modes import LARGE_PIXELS

try:
    import simplejpeg
except ImportError:
    simplejpeg = None

_decoder: ModuleType | None = simplejpeg
_ORIENTATION = 0x0112
_APP1, _START_OF_SCAN = 0xE1, 0xDA


def decode_picture(path: Path, half_shorter_px: int) -> Pixels:
    """Return an upright picture [H, W, 3] as `open_picture` decodes it.

    A large JPEG is decoded at a half, a quarter or an eighth of its size. Its shorter side still
    has at least 2 * `half_shorter_px` pixels.

    Raises:
        DataError: If the file cannot be read. The one-line message names it.
    """
    pixels = None
    if _decoder is not None:
        with contextlib.suppress(OSError, ValueError):  # Pillow says what is wrong with the file
            pixels = decode_bytes(path.read_bytes(), 2 * half_shorter_px)
    if pixels is None:
        pixels = np.array(open_picture(path, half_shorter_px))
    return pixels


def decode_bytes(content: bytes, shorter_px: int) -> Pixels | None:
    """Return the pixels of a plain JPEG file, or None for any other file.

    Raises:
        ValueError: If the file is damaged.
    """
    if _decoder is None or content[:2] != b"\xff\xd8":
        return None
    height, width, color_space, _ = _decoder.decode_jpeg_header(content)
    if color_space not in ("YCbCr", "Gray") or height * width > LARGE_PIXELS:
        return None
    orientation = _orientation(content)
    if orientation is None:
        return None
    shorter = min(height, width)
    fraction = next((number for number in (8, 4, 2) if shorter // shorter_px >= number), 1)
    pixels: Pixels = _decoder.decode_jpeg(
        content, "RGB", min_height=-(-height // fraction), min_width=-(-width // fraction)
    )
    return _turn_upright(pixels, orientation)


def decoder_name() -> str:
    """Return the name of the library that decodes JPEG files."""
    return "Pillow" if _decoder is None else "simplejpeg"


def _orientation(content: bytes) -> int | None:
    """Return the EXIF orientation, 1 to 8, or None if only Pillow can find it (XMP)."""
    orientation = 1
    for segment in _application_segments(content):
        if segment.startswith(b"Exif\0\0"):
            exif = Image.Exif()
            try:
                exif.load(segment)
                value = exif.get(_ORIENTATION, 1)
            except Exception:  # damaged metadata: Pillow decides
                return None
            orientation = value if value in range(1, 9) else 1
        elif b"tiff:Orientation" in segment:
            return None
    return orientation


def _application_segments(content: bytes) -> Iterator[bytes]:
    """Yield the content of each APP1 segment before the picture."""
    start = 2
    while start + 4 <= len(content) and content[start] == 0xFF:
        marker = content[start + 1]
        if marker == _START_OF_SCAN:
            return
        length = int.from_bytes(content[start + 2 : start + 4], "big")
        if marker == _APP1:
            yield content[start + 4 : start + 2 + length]
        start += 2 + length


def _turn_upright(pixels: Pixels, orientation: int) -> Pixels:
    """Undo an EXIF orientation: 5 to 8 exchange rows and columns."""
    if orientation == 1:
        return pixels
    if orientation >= 5:
        pixels = pixels.transpose(1, 0, 2)
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    return pixels
