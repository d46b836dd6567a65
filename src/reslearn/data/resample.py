"""Crop, mirror, resize, rotate and shear pictures: one resampling per shown image.

Two ways lead to the same view. On the CPU an upright crop is resized by torch's uint8 kernel with
antialiasing, image by image, and only rotated or sheared images go through `affine`. On a GPU a
whole batch goes through `affine`, which is bilinear.

Shapes: pixels uint8 [H, W, C]; S = size_px; matrices [B, 2, 3] map output to input, both -1 to 1.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from jaxtyping import Float32, UInt8
from torch import Tensor

from reslearn.data.photo_views import PhotoView, Rectangle

Pixels = npt.NDArray[np.uint8]

# The largest strength of each geometric change, as in the authors' code of TrivialAugment (wide).
_MAX_SHEAR = 0.99
_MAX_DEGREES = 135.0
# Deviates: the authors move by up to 32 pixels for any size. This is 32 of 224.
_MAX_TRANSLATION = 32 / 224
# A picture with more pixels than this per pixel of the image is reduced before it is rotated.
_MAX_REDUCTION = 2


def render(
    pixels: Pixels, view: PhotoView, size_px: int, *, fill: Sequence[float], shape: float = 0.0
) -> UInt8[Tensor, "s s c"]:
    """Return the view of one picture on the CPU.

    Args:
        pixels: The picture [H, W, C].
        fill: Color of what lies outside of the picture, in gray levels.
        shape: Width by height of the picture before `pixels` were stretched. 0: as they are.
    """
    height, width = pixels.shape[:2]
    box = crop_box(view, width, height, shape)
    if not view.is_geometric:
        return _resize(_cut(pixels, box), size_px, size_px, flip=view.flip)
    # Nothing outside of this region is needed.
    corners = _corners(matrix(view, box, width, height))
    region = Rectangle(
        max(0.0, corners.x * width),
        max(0.0, corners.y * height),
        min(1.0, corners.x + corners.width) * width - max(0.0, corners.x * width),
        min(1.0, corners.y + corners.height) * height - max(0.0, corners.y * height),
    )
    left_px, top_px = math.floor(region.x), math.floor(region.y)
    right_px = min(width, math.ceil(region.x + region.width) + 1)
    bottom_px = min(height, math.ceil(region.y + region.height) + 1)
    part = np.array(pixels[top_px:bottom_px, left_px:right_px], order="C")
    inner = Rectangle(box.x - left_px, box.y - top_px, box.width, box.height)
    reduction = min(box.width, box.height) / size_px
    canvas = torch.from_numpy(part)
    if reduction > _MAX_REDUCTION:
        sides = (max(1, round(side / reduction)) for side in part.shape[:2])
        canvas = _resize(part, *sides)
    transform = matrix(view, inner, part.shape[1], part.shape[0])
    colors = torch.tensor(fill, dtype=torch.float32)
    return affine(canvas[None], torch.tensor([transform]), size_px, fill=colors)[0]


def affine(
    pixels: UInt8[Tensor, "b h w c"],
    matrices: Float32[Tensor, "b 2 3"],
    size_px: int,
    *,
    fill: Float32[Tensor, c],
) -> UInt8[Tensor, "b s s c"]:
    """Return each picture under its matrix, bilinear, on the device of `pixels`."""
    device = pixels.device
    position = (torch.arange(size_px, device=device, dtype=torch.float32) * 2 + 1) / size_px - 1
    row = matrices.to(device)[:, None, None]  # [B, 1, 1, 2, 3]
    grid = row[..., 0] * position[None, None, :, None] + row[..., 1] * position[None, :, None, None]
    grid = grid + row[..., 2]
    colors = fill.to(device)[:, None, None]
    # Outside of a picture grid_sample reads zeros, so the color of the outside is made zero.
    centered = pixels.permute(0, 3, 1, 2).float() - colors
    sampled = F.grid_sample(centered, grid, padding_mode="zeros", align_corners=False) + colors
    return sampled.round_().clamp_(0, 255).to(torch.uint8).permute(0, 2, 3, 1).contiguous()


def crop_box(view: PhotoView, width: int, height: int, shape: float = 0.0) -> Rectangle:
    """Return the crop in pixels of a picture that was stretched to `width` x `height`.

    Args:
        shape: Width by height of the picture before. 0: it was not stretched.
    """
    if view.area is None:
        rows, columns = view.shift_px
        return Rectangle(columns, rows, width, height)
    true_width = shape * height if shape else float(width)
    box = view.crop_box(true_width, height)
    stretch = width / true_width
    return Rectangle(box.x * stretch, box.y, box.width * stretch, box.height)


def matrix(view: PhotoView, box: Rectangle, width: int, height: int) -> list[list[float]]:
    """Return the 2 x 3 matrix from places in the output to places in the picture, both -1 to 1.

    It joins the geometric change, the mirror image and the crop `box` in pixels.
    """
    (a, b, c), (d, e, f) = change_matrix(view)
    mirror = -1 if view.flip else 1
    scale_x, scale_y = mirror * box.width / width, box.height / height
    center_x = (2 * box.x + box.width) / width - 1
    center_y = (2 * box.y + box.height) / height - 1
    return [
        [scale_x * a, scale_x * b, scale_x * c + center_x],
        [scale_y * d, scale_y * e, scale_y * f + center_y],
    ]


def change_matrix(view: PhotoView) -> tuple[tuple[float, float, float], ...]:
    """Return the geometric change of TrivialAugment in coordinates of the image, -1 to 1."""
    strength = view.strength
    match view.change:
        case "shear_x":
            return (1.0, _MAX_SHEAR * strength, 0.0), (0.0, 1.0, 0.0)
        case "shear_y":
            return (1.0, 0.0, 0.0), (_MAX_SHEAR * strength, 1.0, 0.0)
        case "translate_x":
            return (1.0, 0.0, 2 * _MAX_TRANSLATION * strength), (0.0, 1.0, 0.0)
        case "translate_y":
            return (1.0, 0.0, 0.0), (0.0, 1.0, 2 * _MAX_TRANSLATION * strength)
        case "rotate":
            angle = math.radians(_MAX_DEGREES * strength)
            sine, cosine = math.sin(angle), math.cos(angle)
            return (cosine, -sine, 0.0), (sine, cosine, 0.0)
    return (1.0, 0.0, 0.0), (0.0, 1.0, 0.0)


def _corners(transform: list[list[float]]) -> Rectangle:
    """Return the smallest upright box around the output, in shares of the picture."""
    half_width, half_height = (abs(row[0]) + abs(row[1]) for row in transform)
    center_x, center_y = transform[0][2], transform[1][2]
    return Rectangle(
        (center_x - half_width + 1) / 2, (center_y - half_height + 1) / 2, half_width, half_height
    )


def _cut(pixels: Pixels, box: Rectangle) -> Pixels:
    """Return the box rounded to whole pixels, at least one."""
    height, width = pixels.shape[:2]
    left_px, top_px = min(round(box.x), width - 1), min(round(box.y), height - 1)
    right_px = min(max(round(box.x + box.width), left_px + 1), width)
    bottom_px = min(max(round(box.y + box.height), top_px + 1), height)
    # A copy: torch is fast for contiguous pixels, and arrays from Pillow are read-only.
    return np.array(pixels[top_px:bottom_px, left_px:right_px], order="C")


def _resize(
    pixels: Pixels, height: int, width: int, *, flip: bool = False
) -> UInt8[Tensor, "h w c"]:
    """Resize with antialiasing. torch is fast for contiguous uint8 with channels last."""
    batch = torch.from_numpy(pixels)[None].permute(0, 3, 1, 2)
    if batch.shape[2:] != (height, width):
        batch = F.interpolate(
            batch, size=(height, width), mode="bilinear", antialias=True, align_corners=False
        )
    if flip:
        batch = batch.flip(3)
    return batch[0].permute(1, 2, 0)
