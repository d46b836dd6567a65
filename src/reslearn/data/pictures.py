"""Picture files to pixels: decode, turn upright, resize, crop. This is all geometry of Sec. 3.4.

Training, evaluation and prediction use the same functions. A picture is scaled by one factor in
both directions, so that its shorter side becomes `shorter_px`. A crop of it is computed directly
from the picture: the result equals resizing everything and cutting, at the cost of the crop alone.

The paper gives its lengths for crops of 224 pixels. For other crops they scale in proportion.

Shapes: uint8 [H, W, 3], RGB; S = size_px, the side of the crop.
"""

from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from reslearn.data.images import DataError

Pixels = npt.NDArray[np.uint8]
CROP_PX = 224  # Paper: the crop to which its other lengths belong
# Paper: 10-crop testing as in AlexNet, whose pictures have a shorter side of 256.
TEST_SHORTER_PX = 256


def read_picture(path: Path, size_px: int, shorter_px: int | None = None) -> Pixels:
    """Read a picture file as [S, S, 3]: upright, resized, and cropped to its center.

    Args:
        shorter_px: Length of the shorter side before the crop. None takes `size_px`.

    Raises:
        DataError: If the file cannot be read. The one-line message names it.
    """
    shorter = size_px if shorter_px is None else shorter_px
    return center_crop(open_picture(path, shorter), shorter_px=shorter, size_px=size_px)


def open_picture(path: Path, shorter_px: int | None = None) -> Image.Image:
    """Decode a picture file as upright RGB.

    With `shorter_px`, a large JPEG is decoded at a fraction of its size. Its shorter side is then
    still at least twice `shorter_px`.

    Raises:
        DataError: If the file cannot be read. The one-line message names it.
    """
    try:
        with Image.open(path) as image:
            if shorter_px is not None:
                image.draft("RGB", (2 * shorter_px, 2 * shorter_px))
            return ImageOps.exif_transpose(image).convert("RGB")
    except Exception as error:  # decoders raise errors of any type for a broken file
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(f"{path} cannot be read ({reason}): remove or replace it") from None


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
