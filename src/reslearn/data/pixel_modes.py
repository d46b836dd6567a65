"""Pixels of every mode that Pillow knows, as 8-bit RGB on white ground.

- 16 bits and 12 bits: the upper eight bits, v >> 8 and v >> 4. Nothing is clipped to white.
- Floats and 32-bit integers have no agreed range. The smallest of 0 to 1 (floats), 0 to 255 and
  0 to 65535 that holds all values of the picture becomes black to white. Without such a range, or
  with negative values, its minimum becomes black and its maximum white. Values that are not finite
  are black.
- Transparent pixels of every kind show white ground, not the color that is hidden in them.
- A picture of many megapixels is converted in strips, and reduced by a whole factor where only a
  smaller picture is needed, so memory is bounded.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

# Larger pictures are converted in strips of this many pixels.
LARGE_PIXELS = 2**25
_STRIP_PIXELS = 2**22
_TIFF_BITS, _TIFF_PHOTOMETRIC, _TIFF_SAMPLE_FORMAT = 258, 262, 339
_WHITE_IS_ZERO, _SIGNED = 0, 2
_WHITE = 255
# The factor from a gray value of few bits to its value in 8 bits.
_GRAY_FACTORS = {"1": 255, "1;I": 255, "L;2": 85, "L;4": 17}


@dataclass(frozen=True)
class Depth:
    """How the numbers of a picture become gray levels.

    Attributes:
        shift: Number of bits to shift integers of more than 8 bits. None: scale by their range.
        is_inverted: Whether 0 is white, as in some TIFF files.
        transparent: The gray value or color that is transparent, in the numbers of the pixels.
    """

    shift: int | None = None
    is_inverted: bool = False
    transparent: int | tuple[int, ...] | None = None

    @classmethod
    def of(cls, image: Image.Image) -> "Depth":
        """Return the depth of a picture that is opened, but not loaded yet."""
        raw_mode = _raw_mode(image)
        tags: Any = getattr(image, "tag_v2", {})
        shift = None
        if image.mode.startswith("I;16"):
            bits = tags.get(_TIFF_BITS, (16,))[0]
            shift = bits - 8
        elif image.mode == "I" and image.format == "PPM":
            shift = 8  # Pillow stretches all PGM files of more than 8 bits to 16
        elif image.mode == "I" and tags.get(_TIFF_BITS) == (16,):
            shift = 7 if tags.get(_TIFF_SAMPLE_FORMAT, (0,))[0] == _SIGNED else 8
        # Pillow itself inverts 8 bits.
        is_inverted = shift is not None and tags.get(_TIFF_PHOTOMETRIC) == _WHITE_IS_ZERO
        transparent = image.info.get("transparency")
        if isinstance(transparent, int):
            transparent *= _GRAY_FACTORS.get(raw_mode, 1)
        elif isinstance(transparent, tuple) and "16" in raw_mode:
            transparent = tuple(value >> 8 for value in transparent)
        elif not isinstance(transparent, tuple):
            transparent = None
        return cls(shift=shift, is_inverted=is_inverted, transparent=transparent)


def to_rgb(image: Image.Image, depth: Depth, shorter_px: int | None = None) -> Image.Image:
    """Return a loaded picture as RGB.

    Args:
        depth: Depth of the same picture, determined before it was loaded.
        shorter_px: A large picture may be reduced to a shorter side of at least twice this.
    """
    limits = _range(image) if depth.shift is None and image.mode in ("I", "F") else (0.0, 255.0)
    if image.width * image.height <= LARGE_PIXELS:
        return _convert(image, depth, limits)
    factor = 1 if shorter_px is None else max(1, min(image.size) // (2 * shorter_px))
    size = tuple(math.ceil(side / factor) for side in image.size)
    result = Image.new("RGB", (size[0], size[1]))
    for top, strip in _strips(image, factor):
        converted = _convert(strip, depth, limits)
        result.paste(converted.reduce(factor), (0, top // factor))
    return result


def _strips(image: Image.Image, factor: int) -> Iterator[tuple[int, Image.Image]]:
    """Yield strips of the whole width, each with its first row, a multiple of `factor`."""
    height = max(factor, _STRIP_PIXELS // image.width // factor * factor)
    for top in range(0, image.height, height):
        strip = image.crop((0, top, image.width, min(top + height, image.height)))
        strip.info = image.info  # a strip has the transparency of the whole
        yield top, strip


def _raw_mode(image: Image.Image) -> str:
    """Return the layout of the pixels in the file, as "L;2"; "" if Pillow does not report it."""
    tile: Any = getattr(image, "tile", None)
    arguments = tile[0][3] if tile and len(tile[0]) > 3 else ""
    first = arguments[0] if isinstance(arguments, tuple) and arguments else arguments
    return first if isinstance(first, str) else ""


def _convert(image: Image.Image, depth: Depth, limits: tuple[float, float]) -> Image.Image:
    mode = image.mode
    if mode == "F" or mode.startswith("I"):
        return _convert_deep(image, depth, limits)
    if mode in ("La", "RGBa"):
        image = image.convert("LA" if mode == "La" else "RGBA")
    if image.mode in ("LA", "PA", "RGBA") or (mode == "P" and image.has_transparency_data):
        colors = image.convert("RGBA")
        ground = Image.new("RGBA", colors.size, "white")
        return Image.alpha_composite(ground, colors).convert("RGB")
    if depth.transparent is None or mode not in ("1", "L", "RGB"):
        return image.convert("RGB")
    pixels = np.array(image.convert("RGB"))
    color = np.array(depth.transparent, np.int64)
    pixels[(pixels == color).all(axis=2)] = _WHITE
    return Image.fromarray(pixels)


def _convert_deep(image: Image.Image, depth: Depth, limits: tuple[float, float]) -> Image.Image:
    values = np.asarray(image)
    if depth.shift is not None:
        gray = (values.clip(0) >> depth.shift).clip(0, _WHITE).astype(np.uint8)
    else:
        low, high = limits
        scaled = (values.astype(np.float64) - low) * (_WHITE / (high - low))
        gray = np.nan_to_num(scaled, nan=0.0, posinf=0.0, neginf=0.0).round().astype(np.uint8)
    if depth.is_inverted:
        gray = _WHITE - gray
    if isinstance(depth.transparent, int):
        gray = np.where(values == depth.transparent, np.uint8(_WHITE), gray)
    return Image.fromarray(gray).convert("RGB")


def _range(image: Image.Image) -> tuple[float, float]:
    """Return the values of a picture of floats or 32-bit integers that become black and white."""
    values = np.asarray(image)
    low, high = _extrema(values)
    limits = (1.0, 255.0, 65535.0) if image.mode == "F" else (255.0, 65535.0)
    for limit in limits:
        if low >= 0 and high <= limit:
            return 0.0, limit
    return low, max(high, low + 1.0)


def _extrema(values: npt.NDArray[Any]) -> tuple[float, float]:
    """Return the finite minimum and maximum, or 0 and 0."""
    is_finite = np.isfinite(values)
    if not is_finite.any():
        return 0.0, 0.0
    info: Any = np.finfo(values.dtype) if values.dtype.kind == "f" else np.iinfo(values.dtype)
    low = np.min(values, where=is_finite, initial=info.max)
    high = np.max(values, where=is_finite, initial=info.min)
    return float(low), float(high)
