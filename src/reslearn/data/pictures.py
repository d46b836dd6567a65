"""Picture files to pixels: decoded, turned upright, resized, cut. All geometry of Sec. 3.4 is here, for training, tests and prediction.

A picture whose shorter side is to be `shorter_px` is scaled by the same factor in both directions, and a window of it is computed
straight from the picture: what resizing all of it and cutting out the window would give, at the cost of the window.
Every length of the paper is one for crops of 224 px; for other crops all of them shrink or grow in proportion.
Shapes: uint8 [H, W, 3], RGB; S = size_px, the side of the crop.
"""

from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from reslearn.data.errors import DataError

Pixels = npt.NDArray[np.uint8]
CROP_PX = 224  # Paper: the crop, for which its other lengths are given
TEST_SHORTER = (
    256  # Paper: 10-crop testing as in AlexNet, whose pictures have a shorter side of 256
)


def in_proportion(paper_px: int, size_px: int) -> int:
    """A length that the paper gives for crops of 224 px, for crops of `size_px`: 256 becomes 73 for 64."""
    return round(paper_px * size_px / CROP_PX)


def open_picture(path: Path, shorter_px: int | None = None) -> Image.Image:
    """A picture file, decoded, upright, RGB. A large JPEG is decoded at a fraction, still twice `shorter_px` where that is given.

    Raises:
        DataError: in one line that names the file, whatever is wrong with it.
    """
    try:
        with Image.open(path) as image:
            if shorter_px is not None:
                image.draft("RGB", (2 * shorter_px, 2 * shorter_px))
            return ImageOps.exif_transpose(image).convert("RGB")
    except Exception as error:  # what a broken file makes a decoder raise is anybody's guess
        told = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(f"{path} cannot be read ({told}): remove or replace it") from None


def window(image: Image.Image, *, shorter_px: int, size_px: int, top: float, left: float) -> Pixels:
    """[S, S, 3]: the square of `size_px` whose corner is at (top, left) of the picture resized to `shorter_px`; both in its pixels."""
    step = min(image.size) / shorter_px  # pixels of the file to one that is seen
    box = (
        left * step,
        top * step,
        min((left + size_px) * step, image.width),
        min((top + size_px) * step, image.height),
    )
    return np.asarray(image.resize((size_px, size_px), Image.Resampling.BILINEAR, box=box))


def center(image: Image.Image, *, shorter_px: int, size_px: int) -> Pixels:
    """[S, S, 3]: the window in the middle, to a fraction of a pixel."""
    height, width = (side * shorter_px / min(image.size) for side in (image.height, image.width))
    return window(
        image,
        shorter_px=shorter_px,
        size_px=size_px,
        top=(height - size_px) / 2,
        left=(width - size_px) / 2,
    )


def offsets(image: Image.Image, *, shorter_px: int, size_px: int) -> tuple[int, int]:
    """The largest whole (top, left) at which a window still lies in the resized picture."""
    shorter = min(image.size)
    return (
        image.height * shorter_px // shorter - size_px,
        image.width * shorter_px // shorter - size_px,
    )


def corners(image: Image.Image, *, shorter_px: int, size_px: int) -> list[Pixels]:
    """Five of [S, S, 3]: top left, top right, bottom left, bottom right of the whole resized picture, and its center."""
    bottom, right = offsets(image, shorter_px=shorter_px, size_px=size_px)
    places = [(top, left) for top in (0, bottom) for left in (0, right)]
    cut = [
        window(image, shorter_px=shorter_px, size_px=size_px, top=top, left=left)
        for top, left in places
    ]
    return [*cut, center(image, shorter_px=shorter_px, size_px=size_px)]


def whole(image: Image.Image, *, shorter_px: int) -> Pixels:
    """[H, W, 3]: all of the picture, its shorter side `shorter_px`, the longer one rounded to whole pixels."""
    width, height = (round(side * shorter_px / min(image.size)) for side in image.size)
    return np.asarray(image.resize((width, height), Image.Resampling.BILINEAR))


def read_picture(path: Path, size_px: int, shorter_px: int | None = None) -> Pixels:
    """A picture file as [S, S, 3]: upright, its shorter side made `shorter_px` (`size_px` if None), the center cut out.

    Raises:
        DataError: in one line that names the file.
    """
    shorter = size_px if shorter_px is None else shorter_px
    return center(open_picture(path, shorter), shorter_px=shorter, size_px=size_px)
