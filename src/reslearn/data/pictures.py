"""Picture files to pixels: decode, turn upright, resize, crop. This is all geometry of Sec. 3.4.

`open_picture` is the one function that decodes. docs/photo-folders.md has its rules.

Training, evaluation and prediction use the same functions. A picture is scaled by one factor in
both directions, so that its shorter side becomes `shorter_px`. A crop of it is computed directly
from the picture: the result equals resizing everything and cutting, at the cost of the crop alone.

The paper gives its lengths for crops of 224 pixels. For other crops they scale in proportion.

Shapes: uint8 [H, W, 3], RGB; S = size_px, the side of the crop.
"""

import errno
import logging
import math
import struct
import threading
from contextlib import nullcontext
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt
from PIL import Image

from reslearn.data.errors import DataError, PictureError
from reslearn.data.pixel_modes import LARGE_PIXELS, Depth, to_rgb
from reslearn.data.walk import has_heif, is_heif, picture_formats

Pixels = npt.NDArray[np.uint8]
CROP_PX = 224  # Paper: the crop to which its other lengths belong
# Paper: 10-crop testing as in AlexNet, whose pictures have a shorter side of 256.
TEST_SHORTER_PX = 256
# Twice the size at which Pillow warns, and the size that it refuses: 0.7 GB in memory.
MAX_PIXELS = 178_956_970
_EXIF_ORIENTATION = 0x0112
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# These say nothing about a picture: too many open files, no memory, a lost network drive.
_MACHINE_ERRORS = frozenset(
    (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ESTALE, errno.ENOTCONN)
)
_large_picture = threading.Lock()
# Python prints what Pillow logs of damaged files, unless its logger has a handler.
logging.getLogger("PIL").addHandler(logging.NullHandler())


def read_picture(source: Path | BinaryIO, size_px: int, shorter_px: int | None = None) -> Pixels:
    """Read a picture as [S, S, 3]: upright, resized, and cropped to its center.

    Args:
        source: A path, or a binary file open for reading.
        shorter_px: Length of the shorter side before the crop. None takes `size_px`.

    Raises:
        DataError: If the file cannot be read. The one-line message names it.
    """
    shorter = size_px if shorter_px is None else shorter_px
    return center_crop(open_picture(source, shorter), shorter_px=shorter, size_px=size_px)


def open_picture(
    source: Path | BinaryIO,
    shorter_px: int | None = None,
    *,
    max_pixels: int | None = None,
    formats: frozenset[str] | None = None,
) -> Image.Image:
    """Decode a picture as upright 8-bit RGB, on white ground where it is transparent.

    All raster formats of Pillow are read, by their content and not by their suffix; of an animation
    the first frame. `pixel_modes.py` has the rules for depth and transparency.

    Args:
        source: A path, or a binary file open for reading.
        shorter_px: A large JPEG is decoded at a fraction of its size. Its shorter side is then
            still at least twice `shorter_px`.
        max_pixels: Larger pictures are refused before they are decoded. None: `MAX_PIXELS`.
        formats: Names of Pillow's formats that are read. None: all raster formats.

    Raises:
        PictureError: If it cannot be read or has too many pixels. The message is one line.
        DataError: If the machine is at fault, and not the picture, as when it has no memory left.
    """
    max_pixels = MAX_PIXELS if max_pixels is None else max_pixels
    try:
        if isinstance(source, Path):
            with source.open("rb") as file:
                return _decode(file, shorter_px, max_pixels, formats)
        return _decode(source, shorter_px, max_pixels, formats)
    except Exception as error:  # decoders raise errors of any type for a broken file
        if isinstance(error, MemoryError) or getattr(error, "errno", None) in _MACHINE_ERRORS:
            raise DataError(f"{source} cannot be read now ({_reason(error)})") from None
        raise PictureError(source, _reason(error)) from None


class _UnknownFormatError(Exception):
    pass


def _decode(
    file: BinaryIO, shorter_px: int | None, max_pixels: int, formats: frozenset[str] | None
) -> Image.Image:
    image = _open_known_format(file, formats)
    num_pixels = image.width * image.height
    if num_pixels > max_pixels:
        side = round(math.sqrt(max_pixels), -3)
        raise ValueError(
            f"{image.width:,} x {image.height:,} are {num_pixels / 1e6:,.0f} million pixels, and "
            f"the limit is {max_pixels / 1e6:,.0f} million, as {side:,.0f} x {side:,.0f}; "
            "save a smaller copy"
        )
    if shorter_px is not None:
        image.draft("RGB", (2 * shorter_px, 2 * shorter_px))
    # One large picture at a time, so that threads do not add up their memory.
    with _large_picture if num_pixels > LARGE_PIXELS else nullcontext():
        depth = Depth.of(image)
        image.load()
        return _turn_upright(to_rgb(image, depth, shorter_px), _orientation(image))


def _open_known_format(file: BinaryIO, format_names: frozenset[str] | None) -> Image.Image:
    """Open a picture of any format in `picture_formats` without decoding it.

    `Image.open` does the same, but warns of sizes that are allowed here, and may start Ghostscript.
    """
    formats = [name for name in picture_formats() if format_names is None or name in format_names]
    start = file.read(16)
    if not start:
        raise _UnknownFormatError("the file is empty")
    for name in formats:
        factory, accept = Image.OPEN[name]
        try:
            if accept is not None and accept(start) is not True:
                continue
            file.seek(0)
            return factory(file, "")
        except (SyntaxError, IndexError, TypeError, struct.error):
            continue  # another format, as Image.open decides
    if is_heif(start) and not has_heif():
        raise _UnknownFormatError("it is a HEIF photo: install reslearn[photos] to read it")
    readable = "a known format"
    if format_names is not None:
        readable = f"these formats: {', '.join(sorted(format_names))}"
    raise _UnknownFormatError(f"its content is not a picture of {readable}")


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(_EXIF_ORIENTATION, 1))
    except Exception:  # damaged metadata of a sound picture
        return 1


def _turn_upright(image: Image.Image, orientation: int) -> Image.Image:
    method = _TURNS.get(orientation)
    return image if method is None else image.transpose(method)


def _reason(error: Exception) -> str:
    """Return the first line of an error without the address of an object."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__


def crop(
    image: Image.Image, *, shorter_px: int, size_px: int, top_px: float, left_px: float
) -> Pixels:
    """Return the square [S, S, 3] at (top_px, left_px) of the picture resized to `shorter_px`.

    `top_px` and `left_px` count pixels of the resized picture.
    """
    scale = min(image.size) / shorter_px  # pixels of the file per pixel of the resized picture
    box = (
        left_px * scale,
        top_px * scale,
        min((left_px + size_px) * scale, image.width),
        min((top_px + size_px) * scale, image.height),
    )
    return np.asarray(image.resize((size_px, size_px), Image.Resampling.BILINEAR, box=box))


def center_crop(image: Image.Image, *, shorter_px: int, size_px: int) -> Pixels:
    """Return the crop [S, S, 3] in the middle, exact to a fraction of a pixel."""
    height, width = (side * shorter_px / min(image.size) for side in (image.height, image.width))
    return crop(
        image,
        shorter_px=shorter_px,
        size_px=size_px,
        top_px=(height - size_px) / 2,
        left_px=(width - size_px) / 2,
    )


def five_crop(image: Image.Image, *, shorter_px: int, size_px: int) -> list[Pixels]:
    """Return five crops [S, S, 3] of the whole resized picture.

    Their order is top left, top right, bottom left, bottom right, center.
    """
    bottom, right = largest_offsets(image, shorter_px=shorter_px, size_px=size_px)
    crops = []
    for top_px, left_px in ((0, 0), (0, right), (bottom, 0), (bottom, right)):
        crops.append(
            crop(image, shorter_px=shorter_px, size_px=size_px, top_px=top_px, left_px=left_px)
        )
    return [*crops, center_crop(image, shorter_px=shorter_px, size_px=size_px)]


def largest_offsets(image: Image.Image, *, shorter_px: int, size_px: int) -> tuple[int, int]:
    """Return the largest whole (top_px, left_px) of a crop within the resized picture."""
    shorter = min(image.size)
    return (
        image.height * shorter_px // shorter - size_px,
        image.width * shorter_px // shorter - size_px,
    )


def resize_shorter_side(image: Image.Image, *, shorter_px: int) -> Pixels:
    """Return the whole picture [H, W, 3] with its shorter side resized to `shorter_px`.

    The longer side is rounded to whole pixels.
    """
    width, height = (round(side * shorter_px / min(image.size)) for side in image.size)
    return np.asarray(image.resize((width, height), Image.Resampling.BILINEAR))


def scale_length(paper_px: int, size_px: int) -> int:
    """Convert a length that the paper gives for crops of 224 pixels: 256 becomes 73 for 64."""
    return round(paper_px * size_px / CROP_PX)
