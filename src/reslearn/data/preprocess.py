"""The one object that turns stored pixels into what a network sees: subtract a mean, divide by a scale (Sec. 4.2: per-pixel mean).

Fitted on training images, kept in the bundle, used by training, evaluation, prediction and export alike: y = (x - mean) / scale, mean and
scale in 8-bit pixel units (0 ... 255). Without a standard deviation the scale is 255. Deviates: the paper names no scale.
A picture file becomes such pixels by `read`: its shorter side resized to `shorter_px`, the center of `size_px` cut out (Sec. 3.4).
Shapes: uint8 [B, H, W, C] in, float32 [B, C, H, W] in channels_last memory out; mean [H, W, C] or [C], scale [C].
"""

import base64
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from jaxtyping import Float32, UInt8
from torch import Tensor

from reslearn.data.dataset import ImageSet
from reslearn.data.errors import DataError
from reslearn.data.files import Files, in_order
from reslearn.data.images import Images
from reslearn.data.pictures import Pixels, read_picture
from reslearn.progress import progress_bar

Mean = Literal["per-pixel", "per-channel", "imagenet", "none"]
Std = Literal["scalar", "per-channel", "imagenet", "none"]
Padding = Literal["after-mean", "black"]

IMAGENET_MEAN, IMAGENET_STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
"""Red, green, blue: 0.485, 0.456, 0.406 and 0.229, 0.224, 0.225 of 255, to which most published weights are used."""
_FITTED_ON = 10_000  # pictures on disk: the mean over them is off by half a gray level, and a million take an hour to decode
_CHUNK = 256  # images whose squares float32 still adds up without rounding


@dataclass(frozen=True, kw_only=True, eq=False)
class Preprocess:
    """Built by `fit` or `from_json`. `padding` says whether augmentation pads with zeros after the mean is subtracted (the paper's
    order: padding is then exactly 0) or with black pixels before."""

    size_px: int
    channels: int
    mean: Float32[Tensor, "*h_w c"]
    scale: Float32[Tensor, "c"]
    padding: Padding = "after-mean"
    shorter_px: int | None = (
        None  # of a picture file, before the center is cut out; None: size_px, all of the center square
    )

    def __post_init__(self) -> None:
        allowed = ((self.size_px, self.size_px, self.channels), (self.channels,))
        if tuple(self.mean.shape) not in allowed or tuple(self.scale.shape) != allowed[1]:
            found = f"mean {tuple(self.mean.shape)}, scale {tuple(self.scale.shape)}"
            raise DataError(
                f"preprocess: {found}; allowed are mean {allowed[0]} or {allowed[1]}, scale {allowed[1]}"
            )
        if not (
            self.mean.isfinite().all() and self.scale.isfinite().all() and (self.scale > 0).all()
        ):
            raise DataError("preprocess: mean and scale must be finite, scale above 0")
        if self.shorter_px is not None and self.shorter_px < self.size_px:
            raise DataError(
                f"preprocess: shorter_px = {self.shorter_px}: allowed are {self.size_px} (size_px) and more"
            )
        _check_choice("padding", self.padding, Padding)

    @classmethod
    def fit(
        cls,
        images: ImageSet,
        *,
        mean: Mean = "per-pixel",
        std: Std = "scalar",
        padding: Padding = "after-mean",
        shorter_px: int | None = None,
    ) -> "Preprocess":
        """Mean and standard deviation of training images (hand in no others), summed without rounding: the same on every machine.

        The standard deviation is that of the images about their mean per pixel, or for another `mean` than that about their mean per
        channel; per channel or pooled. "imagenet" is not fitted: DataError for images that are not of three colors.
        Of picture files the centers count, resized as `read` does, of at most 10,000, evenly spread.
        """
        size_px, channels = images.size_px, images.channels
        cls.check(mean, std, channels)
        if mean == std == "imagenet":  # nothing to fit, and no picture to decode
            center, scale = torch.tensor(IMAGENET_MEAN), torch.tensor(IMAGENET_STD)
            return cls(
                size_px=size_px,
                channels=channels,
                mean=center,
                scale=scale,
                padding=padding,
                shorter_px=shorter_px,
            )
        pixel_mean, pixel_square = _moments(_chunks(images, shorter_px))
        channel_mean = pixel_mean.mean(dim=(0, 1))
        center = pixel_mean if mean == "per-pixel" else channel_mean.expand_as(pixel_mean)
        scale = torch.full((channels,), 255.0, dtype=torch.float64)
        if std == "imagenet":
            scale = torch.tensor(IMAGENET_STD)
        elif std != "none":
            variance = (pixel_square - center.square()).mean(dim=(0, 1))
            pooled = variance if std == "per-channel" else variance.mean().expand(channels)
            scale = pooled.clamp(
                min=1.0
            ).sqrt()  # one gray level at least: images without contrast must not divide by zero
        given = {"imagenet": torch.tensor(IMAGENET_MEAN), "none": torch.zeros(channels)}
        subtracted = {"per-pixel": pixel_mean, "per-channel": channel_mean, **given}[mean]
        return cls(
            size_px=size_px,
            channels=channels,
            mean=subtracted.float(),
            scale=scale.float(),
            padding=padding,
            shorter_px=shorter_px,
        )

    @staticmethod
    def check(mean: str, std: str, channels: int) -> None:
        """DataError for what `fit` would refuse of images with so many channels, without looking at one."""
        _check_choice("mean", mean, Mean)
        _check_choice("std", std, Std)
        if "imagenet" in (mean, std) and channels != 3:
            raise DataError(
                f"ImageNet's mean and deviation are of three colors, and these images have {channels}: take per-channel"
            )

    def read(self, path: Path) -> Pixels:
        """A picture file as uint8 [size_px, size_px, 3], ready for `normalize`; DataError, naming the file, where it cannot be read."""
        return read_picture(path, self.size_px, self.shorter_px)

    def normalize(self, pixels: UInt8[Tensor, "*batch h w c"]) -> Float32[Tensor, "*batch h w c"]:
        """(pixels - mean) / scale, on the device of the pixels, channels last in shape as in memory."""
        expected = (self.size_px, self.size_px, self.channels)
        if tuple(pixels.shape[-3:]) != expected or pixels.dtype != torch.uint8:
            raise DataError(
                f"images are {tuple(pixels.shape[-3:])} {pixels.dtype}; this preprocessing takes {expected} torch.uint8"
            )
        return self._normalize(pixels)

    def normalise_whole(
        self, pixels: UInt8[Tensor, "*batch h w c"]
    ) -> Float32[Tensor, "*batch h w c"]:
        """The same for pictures of any size; of a mean per pixel, which has the size of the crop, the mean per channel is subtracted."""
        if self.mean.ndim == 3:
            return replace(self, mean=self.mean.mean(dim=(0, 1)))._normalize(pixels)
        return self._normalize(pixels)

    def _normalize(self, pixels: Tensor) -> Tensor:
        # scale is a vector even where it is one number: some devices turn a division by a scalar into a product, rounded otherwise
        return (
            pixels.to(torch.float32)
            .sub_(self.mean.to(pixels.device))
            .div_(self.scale.to(pixels.device))
        )

    def __call__(self, pixels: UInt8[Tensor, "b h w c"]) -> Float32[Tensor, "b c h w"]:
        """A batch as the network takes it: float32 [B, C, H, W], channels_last."""
        return self.normalize(pixels).permute(0, 3, 1, 2)

    def to(self, device: torch.device | str) -> "Preprocess":
        return replace(self, mean=self.mean.to(device), scale=self.scale.to(device))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Preprocess) and self.to_json() == other.to_json()

    def __hash__(self) -> int:
        return hash(json.dumps(self.to_json()))

    def to_json(self) -> dict[str, Any]:
        """A JSON value that gives back every bit; a per-pixel mean as base64 of little-endian float32."""
        mean: list[float] | str = self.mean.tolist()
        if self.mean.ndim == 3:
            mean = base64.b64encode(self.mean.cpu().numpy().astype("<f4").tobytes()).decode()
        value = {
            "size_px": self.size_px,
            "channels": self.channels,
            "mean": mean,
            "scale": self.scale.tolist(),
            "padding": self.padding,
        }
        return value if self.shorter_px is None else {**value, "shorter_px": self.shorter_px}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "Preprocess":
        """The inverse of `to_json`.

        Raises:
            DataError: where the value is no preprocessing.
        """
        try:
            size_px, channels, mean = int(value["size_px"]), int(value["channels"]), value["mean"]
            if isinstance(mean, str):
                array = np.frombuffer(base64.b64decode(mean, validate=True), dtype="<f4").astype(
                    np.float32
                )
                mean = array.reshape(size_px, size_px, channels)
            mean, scale = (
                torch.as_tensor(mean, dtype=torch.float32),
                torch.as_tensor(value["scale"], dtype=torch.float32),
            )
            shorter_px = int(value["shorter_px"]) if "shorter_px" in value else None
            return cls(
                size_px=size_px,
                channels=channels,
                mean=mean,
                scale=scale,
                padding=value["padding"],
                shorter_px=shorter_px,
            )
        except DataError:
            raise
        except (ValueError, KeyError, TypeError, RuntimeError) as error:
            raise DataError(
                f"not a preprocessing: {type(error).__name__}: {str(error).splitlines()[0]}"
            ) from None


def _check_choice(name: str, value: str, choices: object) -> None:
    if value not in get_args(choices):
        raise DataError(f"{name} = {value!r}: allowed are {', '.join(get_args(choices))}")


def _chunks(images: ImageSet, shorter_px: int | None) -> Iterable[Pixels]:
    """All images, or the centers of some of the files, a few at a time."""
    if isinstance(images, Images):
        yield from (
            images.pixels[start : start + _CHUNK].numpy() for start in range(0, len(images), _CHUNK)
        )
        return
    yield from chunks_of_centers(images.spread(_FITTED_ON), shorter_px, about="the mean image of")


def chunks_of_centers(files: Files, shorter_px: int | None, *, about: str) -> Iterable[Pixels]:
    """The centers of picture files, uint8 [n, S, S, 3], in order."""
    chunk: list[Pixels] = []
    with progress_bar(f"{about} {files.folder}", len(files), after_seconds=2.0) as advance:
        for pixels in in_order(
            lambda index: read_picture(files.path(index), files.size_px, shorter_px),
            range(len(files)),
            ahead=64,
        ):
            advance(1)
            chunk.append(pixels)
            if len(chunk) == _CHUNK:
                yield np.stack(chunk)
                chunk = []
    if chunk:
        yield np.stack(chunk)


def _moments(chunks: Iterable[Pixels]) -> tuple[Tensor, Tensor]:
    """Mean and mean square of each pixel over the images, float64 [H, W, C], exact: at most 256 squares of 255 stay below 2^24, so
    float32 sums a chunk without rounding, in any order, and float64 the chunks."""
    num_images, sums = 0, np.zeros(())
    for pixels in chunks:
        chunk = pixels.astype(np.float32)
        num_images += len(chunk)
        sums = sums + np.stack([chunk.sum(axis=0), np.square(chunk, out=chunk).sum(axis=0)])
    mean, mean_square = torch.from_numpy(sums / num_images)
    return mean, mean_square
