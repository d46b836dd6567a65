"""Pictures and arrays to the input of a model: one `ModelInput` for each model.

Pictures are decoded, resized and cropped by the functions of training (`data.pictures`, Pillow). A
model whose input is "image" takes the whole picture, because its file contains the resize.

The range of an array is never guessed. uint8 is 0 to 255. For floats the caller says whether white
is 1 or 255.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from reslearn.data import DataError
from reslearn.data.pictures import Pixels, center_crop, open_picture
from reslearn.deploy.engines import InputArray
from reslearn.deploy.model_card import ModelCard

# The resize in an exported file has one weight for each pixel of a side and of the result.
_MAX_SIDE_PX = 2**15

Picture: TypeAlias = "Path | str | bytes | BinaryIO | Image.Image | npt.NDArray[Any] | torch.Tensor"


class ModelInput:
    """Turn pictures into the input of one model.

    Args:
        card: The card of the model.
        decodes_fully: Decode large JPEG files at full size, as other programs do. By default they
            are decoded at a fraction of it, as in training: quicker, with slightly other pixels.
    """

    def __init__(self, card: ModelCard, *, decodes_fully: bool = False) -> None:
        self._preprocess = card.preprocess
        self._kind = card.input_kind
        self._size_px = card.preprocess.size_px
        self._shorter_px = card.preprocess.shorter_px or card.preprocess.size_px
        self.draft_px = None if decodes_fully else self._shorter_px

    def pixels(self, picture: Picture, *, white: float | None = None) -> Pixels:
        """Return one picture as uint8 pixels [H, W, C] for `batch`.

        Args:
            picture: A path, the bytes of a file, a binary file, a Pillow image, or an array
                [H, W, C] or [H, W], red first.
            white: The value of white in an array of floats: 1 or 255.

        Raises:
            DataError: If the picture cannot be read, or an array is no picture.
        """
        if isinstance(picture, np.ndarray | torch.Tensor):
            array = as_uint8(picture, white=white)
            if array.ndim not in (2, 3):
                raise DataError(f"an array of shape {array.shape} is not one picture [H, W, C]")
            return self._of_array(array)
        if isinstance(picture, Image.Image):
            return self.pixels_of(_reopened(picture))
        return self.pixels_of(open_picture(_file_of(picture), self.draft_px))

    def batch(self, pixels: list[Pixels]) -> InputArray:
        """Stack pictures of equal size into one batch of the input of the model."""
        stacked = np.stack(pixels)
        if self._kind != "tensor":
            return stacked
        return self._preprocess(torch.from_numpy(stacked)).contiguous().numpy()

    def _of_array(self, array: Pixels) -> Pixels:
        channels = self._preprocess.channels
        if array.ndim == 2:
            array = array[:, :, None]
        if array.shape[2] == 1 and channels == 3:
            array = np.repeat(array, 3, axis=2)
        if array.shape[2] != channels:
            raise DataError(
                f"an array of shape {array.shape}: allowed are [height, width, {channels}], with "
                "the channels last"
            )
        if 0 in array.shape:
            raise DataError(f"an array of shape {array.shape} has no pixels")
        if channels in (1, 3):
            plane = array[:, :, 0] if channels == 1 else array
            return self.pixels_of(Image.fromarray(np.ascontiguousarray(plane)))
        if array.shape[:2] != (self._size_px, self._size_px):
            raise DataError(
                f"images of {channels} channels are not resized: give [{self._size_px}, "
                f"{self._size_px}, {channels}], not {array.shape}"
            )
        return array

    def pixels_of(self, image: Image.Image) -> Pixels:
        """Return an upright 8-bit picture as uint8 pixels for `batch`.

        Raises:
            DataError: If the model does not take pictures, or not of this size.
        """
        channels = self._preprocess.channels
        if channels not in (1, 3):
            raise DataError(f"the model takes arrays of {channels} channels, not pictures")
        image = image.convert("L" if channels == 1 else "RGB")
        if self._kind == "image":
            if max(image.size) > _MAX_SIDE_PX:
                raise DataError(
                    f"a picture of {image.width:,} x {image.height:,} pixels: this model takes "
                    f"sides of up to {_MAX_SIDE_PX:,}"
                )
            pixels = np.asarray(image)
        else:
            pixels = center_crop(image, shorter_px=self._shorter_px, size_px=self._size_px)
        return pixels[:, :, None] if pixels.ndim == 2 else pixels


def as_uint8(array: npt.NDArray[Any] | torch.Tensor, *, white: float | None = None) -> Pixels:
    """Return an array of gray levels as uint8, without guessing its range.

    Args:
        array: uint8, or floats from 0 to `white`.
        white: 1 or 255; None for uint8.

    Raises:
        DataError: If the dtype or `white` is missing or wrong, or a value is out of range.
    """
    values = array.detach().cpu().numpy() if isinstance(array, torch.Tensor) else array
    if values.dtype == np.uint8:
        if white not in (None, 255):
            raise DataError(f"white = {white:g}: white is 255 in an array of uint8")
        return values
    if values.dtype.kind != "f":
        raise DataError(f"an array of {values.dtype}: allowed are uint8 and floats")
    if white not in (1, 255):
        raise DataError(
            "an array of floats: pass white=1 for values from 0 to 1, or white=255 for values from "
            "0 to 255"
        )
    low, high = (float(values.min()), float(values.max())) if values.size else (0.0, 0.0)
    if not (low >= 0 and high <= white):  # NaN fails too
        raise DataError(
            f"an array with values from {low:g} to {high:g}: with white={white:g} they must lie "
            f"between 0 and {white:g}"
        )
    return np.floor(values.astype(np.float64) * (255 / white) + 0.5).astype(np.uint8)


def _file_of(picture: Path | str | bytes | BinaryIO) -> Path | BinaryIO:
    """Return a path or an open file with the bytes of a picture.

    Raises:
        DataError: If it is something else.
    """
    if isinstance(picture, bytes | bytearray):
        return io.BytesIO(picture)
    if isinstance(picture, str):
        if picture.startswith(("http://", "https://")):
            raise DataError(
                f"{picture} is an address: download it and pass its bytes (`reslearn predict` "
                "downloads by itself)"
            )
        return Path(picture)
    if isinstance(picture, Path) or hasattr(picture, "read"):
        return picture
    raise DataError(
        f"a picture of the type {type(picture).__name__}: allowed are a path, the bytes of a file, "
        "a binary file, a Pillow image, an array, or a list of these"
    )


def _reopened(image: Image.Image) -> Image.Image:
    """Send an image of the user through the decoder of files, for its depth and transparency."""
    if image.mode == "RGB" and not image.getexif():
        return image
    with io.BytesIO() as file:
        image.save(
            file, "TIFF" if image.mode in ("F", "I", "I;16") else "PNG", exif=image.getexif()
        )
        file.seek(0)
        return open_picture(file)
