"""The object that turns stored pixels into the input of a network (Sec. 4.2: per-pixel mean).

It computes y = (x - mean) / scale, with mean and scale in 8-bit units (0 to 255). It is fitted on
training images and stored in the bundle. Training, evaluation, prediction and export all use it.
Without a standard deviation the scale is 255. Deviates: the paper names no scale.

`read` turns a picture file into such pixels: it resizes the shorter side to `shorter_px` and cuts
out the center of `size_px` (Sec. 3.4).

Shapes: uint8 [B, H, W, C] in, float32 [B, C, H, W] in channels_last memory out; mean [H, W, C] or
[C], scale [C].
"""

from __future__ import annotations

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

from reslearn.data.errors import DataError
from reslearn.data.files import Files
from reslearn.data.images import Images, ImageSet
from reslearn.data.pictures import Pixels, read_picture
from reslearn.progress import progress_bar

Mean = Literal["per-pixel", "per-channel", "imagenet", "none"]
Std = Literal["scalar", "per-channel", "imagenet", "none"]
Padding = Literal["after-mean", "black"]

# Red, green, blue: 0.485, 0.456, 0.406 and 0.229, 0.224, 0.225 of 255, as most published weights
# expect.
IMAGENET_MEAN = (123.675, 116.28, 103.53)
IMAGENET_STD = (58.395, 57.12, 57.375)
# The mean over 10,000 pictures is off by half a gray level; decoding a million takes an hour.
_MAX_FITTED_FILES = 10_000
# float32 still adds up the squares of this many images without rounding.
_CHUNK = 256


@dataclass(frozen=True, kw_only=True, eq=False)
class Preprocess:
    """Normalize pixels for a network. Build it with `fit` or `from_json`.

    Attributes:
        padding: "after-mean" pads with zeros after the mean is subtracted, as in the paper, so the
            padding is exactly 0. "black" pads with black pixels before.
        shorter_px: Shorter side to which a picture file is resized before its center is cut out.
            None takes `size_px`: the whole center square.
    """

    size_px: int
    channels: int
    mean: Float32[Tensor, "*h_w c"]
    scale: Float32[Tensor, c]
    padding: Padding = "after-mean"
    shorter_px: int | None = None

    def __post_init__(self) -> None:
        per_pixel, per_channel = (self.size_px, self.size_px, self.channels), (self.channels,)
        mean_shape, scale_shape = tuple(self.mean.shape), tuple(self.scale.shape)
        if mean_shape not in (per_pixel, per_channel) or scale_shape != per_channel:
            raise DataError(
                f"preprocess: mean {mean_shape}, scale {scale_shape}; "
                f"allowed are mean {per_pixel} or {per_channel}, scale {per_channel}"
            )
        is_finite = self.mean.isfinite().all() and self.scale.isfinite().all()
        if not (is_finite and (self.scale > 0).all()):
            raise DataError("preprocess: mean and scale must be finite, scale above 0")
        if self.shorter_px is not None and self.shorter_px < self.size_px:
            raise DataError(
                f"preprocess: shorter_px = {self.shorter_px}: "
                f"allowed are {self.size_px} (size_px) and more"
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
    ) -> Preprocess:
        """Fit mean and standard deviation on training images, identically on every machine.

        Sums are exact. Of picture files at most 10,000, evenly spaced, are used: their centers,
        resized as in `read`.

        Args:
            images: Training images only.
            mean: "per-pixel" (the paper's), "per-channel", "imagenet" (a constant) or "none".
            std: "scalar" pools all channels; "per-channel", "imagenet" (a constant) or "none".
                It is the deviation from the per-pixel mean if `mean` is "per-pixel", else from the
                per-channel mean.
            shorter_px: See the attribute.

        Raises:
            DataError: If a choice is unknown, or "imagenet" meets images without three channels.
        """
        size_px, channels = images.size_px, images.channels
        cls.check(mean, std, channels)
        if mean == std == "imagenet":  # nothing to fit, so no picture is decoded
            offset, scale = torch.tensor(IMAGENET_MEAN), torch.tensor(IMAGENET_STD)
        else:
            offset, scale = _fit_mean_and_scale(images, mean, std, shorter_px)
        return cls(
            size_px=size_px,
            channels=channels,
            mean=offset.float(),
            scale=scale.float(),
            padding=padding,
            shorter_px=shorter_px,
        )

    @staticmethod
    def check(mean: str, std: str, channels: int) -> None:
        """Raise the DataError that `fit` would raise, without reading an image."""
        _check_choice("mean", mean, Mean)
        _check_choice("std", std, Std)
        if "imagenet" in (mean, std) and channels != 3:
            raise DataError(
                "ImageNet's mean and standard deviation are of three colors, "
                f"and these images have {channels} channels: use per-channel"
            )

    def read(self, path: Path) -> Pixels:
        """Read a picture file as uint8 [size_px, size_px, 3], ready for `normalize`.

        Raises:
            DataError: If the file cannot be read. The message names it.
        """
        return read_picture(path, self.size_px, self.shorter_px)

    def normalize(
        self, pixels: UInt8[Tensor, "*batch h w c"], out: Tensor | None = None
    ) -> Float32[Tensor, "*batch h w c"]:
        """Return (pixels - mean) / scale on the device of the pixels, with channels last.

        Args:
            out: Contiguous float32 tensor of the same shape and device, to hold the result.
        """
        expected = (self.size_px, self.size_px, self.channels)
        if tuple(pixels.shape[-3:]) != expected or pixels.dtype != torch.uint8:
            raise DataError(
                f"images are {tuple(pixels.shape[-3:])} {pixels.dtype}; "
                f"this preprocessing takes {expected} torch.uint8"
            )
        return self._normalize(pixels, out)

    def normalize_any_size(
        self, pixels: UInt8[Tensor, "*batch h w c"]
    ) -> Float32[Tensor, "*batch h w c"]:
        """Normalize pictures of any size.

        A per-pixel mean has the size of the crop, so its per-channel mean is subtracted instead.
        """
        if self.mean.ndim == 3:
            return replace(self, mean=self.mean.mean(dim=(0, 1)))._normalize(pixels)
        return self._normalize(pixels)

    def _normalize(self, pixels: Tensor, out: Tensor | None = None) -> Tensor:
        # Whole rows at a time: torch is four times slower with the three colors as inner loop. The
        # scale is a vector even if it is one number: some devices turn a division by a scalar into
        # a multiplication, which rounds differently.
        width = pixels.shape[-2]
        mean = self.mean if self.mean.ndim == 3 else self.mean.repeat(width, 1)
        scale = self.scale.repeat(width, 1)
        if out is None:
            out = pixels.to(torch.float32, memory_format=torch.contiguous_format)
        else:
            out.copy_(pixels)
        rows = out.flatten(-2).sub_(mean.flatten(-2).to(pixels.device))
        rows.div_(scale.flatten().to(pixels.device))
        return out

    def __call__(self, pixels: UInt8[Tensor, "b h w c"]) -> Float32[Tensor, "b c h w"]:
        """Return a batch as the network takes it: float32 [B, C, H, W] in channels_last memory."""
        return self.normalize(pixels).permute(0, 3, 1, 2)

    @property
    def device(self) -> torch.device:
        return self.mean.device

    def to(self, device: torch.device | str) -> Preprocess:
        return replace(self, mean=self.mean.to(device), scale=self.scale.to(device))

    def __eq__(self, value: object) -> bool:
        return isinstance(value, Preprocess) and self.to_json() == value.to_json()

    def __hash__(self) -> int:
        return hash(json.dumps(self.to_json()))

    def to_json(self) -> dict[str, Any]:
        """Return a JSON value from which `from_json` restores every bit.

        A per-pixel mean is stored as base64 of little-endian float32.
        """
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
    def from_json(cls, value: Mapping[str, Any]) -> Preprocess:
        """Invert `to_json`.

        Raises:
            DataError: If the value does not describe a preprocessing.
        """
        try:
            size_px, channels, mean = int(value["size_px"]), int(value["channels"]), value["mean"]
            if isinstance(mean, str):
                raw = base64.b64decode(mean, validate=True)
                array = np.frombuffer(raw, dtype="<f4").astype(np.float32)
                mean = array.reshape(size_px, size_px, channels)
            return cls(
                size_px=size_px,
                channels=channels,
                mean=torch.as_tensor(mean, dtype=torch.float32),
                scale=torch.as_tensor(value["scale"], dtype=torch.float32),
                padding=value["padding"],
                shorter_px=int(value["shorter_px"]) if "shorter_px" in value else None,
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


def _fit_mean_and_scale(
    images: ImageSet, mean: Mean, std: Std, shorter_px: int | None
) -> tuple[Tensor, Tensor]:
    """Return the mean [H, W, C] or [C] to subtract and the scale [C] to divide by."""
    pixel_mean, pixel_square = _moments(_chunks(images, shorter_px))
    channel_mean = pixel_mean.mean(dim=(0, 1))
    channels = len(channel_mean)
    means = {
        "per-pixel": pixel_mean,
        "per-channel": channel_mean,
        "imagenet": torch.tensor(IMAGENET_MEAN),
        "none": torch.zeros(channels),
    }
    if std == "imagenet":
        return means[mean], torch.tensor(IMAGENET_STD)
    if std == "none":
        return means[mean], torch.full((channels,), 255.0, dtype=torch.float64)
    center = pixel_mean if mean == "per-pixel" else channel_mean.expand_as(pixel_mean)
    variance = (pixel_square - center.square()).mean(dim=(0, 1))
    if std == "scalar":
        variance = variance.mean().expand(channels)
    # At least one gray level, so that images without contrast do not divide by zero.
    return means[mean], variance.clamp(min=1.0).sqrt()


def _chunks(images: ImageSet, shorter_px: int | None) -> Iterable[Pixels]:
    """Yield all images in memory, or the centers of some of the files, a few at a time."""
    if isinstance(images, Images):
        for start in range(0, len(images), _CHUNK):
            yield images.pixels[start : start + _CHUNK].numpy()
        return
    files = images.evenly_spaced(_MAX_FITTED_FILES)
    yield from center_chunks(files, shorter_px, description="the mean image of")


def center_chunks(files: Files, shorter_px: int | None, *, description: str) -> Iterable[Pixels]:
    """Yield the centers of picture files, in order, as uint8 [n, S, S, 3] with n up to 256.

    Files that cannot be read are left out.
    """

    def read(path: Path) -> Pixels:
        return read_picture(path, files.size_px, shorter_px)

    with progress_bar(f"{description} {files.folder}", len(files), after_seconds=2.0) as advance:
        for group in files.read_groups(read, group_size=_CHUNK):
            advance(len(group))
            yield np.stack([pixels for _, pixels in group])


def _moments(chunks: Iterable[Pixels]) -> tuple[Tensor, Tensor]:
    """Return the exact mean and mean square of each pixel over the images, float64 [H, W, C].

    The sum of 256 squares of 255 stays below 2^24, so float32 sums a chunk without rounding in any
    order. float64 sums the chunks.
    """
    num_images, sums = 0, np.zeros(())
    for pixels in chunks:
        chunk = pixels.astype(np.float32)
        num_images += len(chunk)
        sums = sums + np.stack([chunk.sum(axis=0), np.square(chunk, out=chunk).sum(axis=0)])
    mean, mean_square = torch.from_numpy(sums / num_images)
    return mean, mean_square
