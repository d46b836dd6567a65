"""From pixels to probabilities in one module: the resize of Pillow, the preprocessing, the network.

The module is what `reslearn export` writes, so an exported file and `reslearn predict` compute the
same. Its resize is two matrix products with the coefficients of Pillow's antialiased bilinear
filter: a triangle that is as wide as the scale (Pillow, src/libImaging/Resample.c,
`precompute_coeffs`). Pillow rounds to 8 bits after each of its two passes, the horizontal one
first, and so does the module. The operators for resizing of ONNX, OpenVINO and PyTorch differ
from each other where a picture shrinks; matrix products do not.

Where a sum lies halfway between two gray levels, Pillow may round to the other one: its
coefficients have 22 bits. This happens to 1 % of the pixels at simple scales such as 15 / 8.
"""

from __future__ import annotations

from typing import Literal, get_args

import torch
from jaxtyping import Float32, Shaped, UInt8
from torch import Tensor, nn

from reslearn.data import Preprocess

InputKind = Literal["image", "crop", "tensor"]
INPUT_KINDS: tuple[InputKind, ...] = get_args(InputKind)


class PixelsToProbabilities(nn.Module):
    """A network with its preprocessing in front and a softmax behind it, in evaluation mode.

    Args:
        network: Logits [B, K] of images [B, C, S, S].
        preprocess: The preprocessing of the network; S is its `size_px`.
        temperature: The logits are divided by it.
        input_kind: "image" takes uint8 [B, H, W, C] of any size, upright, red first. "crop" takes
            uint8 [B, S, S, C] that `Preprocess.read` cut out. "tensor" takes float32 [B, C, S, S],
            preprocessed.
    """

    mean: Tensor
    scale: Tensor

    def __init__(
        self,
        network: nn.Module,
        preprocess: Preprocess,
        *,
        temperature: float = 1.0,
        input_kind: InputKind = "image",
    ) -> None:
        super().__init__()
        self.network = network
        self.temperature = temperature
        self.input_kind = input_kind
        self.size_px = preprocess.size_px
        self.shorter_px = preprocess.shorter_px or preprocess.size_px
        mean = preprocess.mean
        is_per_pixel = mean.ndim == 3
        mean = mean.permute(2, 0, 1) if is_per_pixel else mean[:, None, None]
        self.register_buffer("mean", mean.clone())
        self.register_buffer("scale", preprocess.scale[:, None, None].clone())
        self.eval()

    def forward(self, x: Shaped[Tensor, "b _ _ _"]) -> Float32[Tensor, "b k"]:
        if self.input_kind != "tensor":
            x = x.permute(0, 3, 1, 2).to(torch.float32)
            if self.input_kind == "image":
                x = resize_and_crop(x, shorter_px=self.shorter_px, size_px=self.size_px)
            x = (x - self.mean) / self.scale
        logits: Tensor = self.network(x)
        return (logits / self.temperature).softmax(dim=1)


def resize_and_crop(
    x: Float32[Tensor, "b c h w"], *, shorter_px: int, size_px: int
) -> Float32[Tensor, "b c s s"]:
    """Resize the shorter side to `shorter_px`, cut out the center, and round to gray levels.

    The result equals `data.pictures.center_crop`. Height and width may be unknown while the
    function is exported.

    Args:
        x: Gray levels from 0 to 255.
    """
    height = torch.scalar_tensor(x.shape[2], dtype=torch.float32, device=x.device)
    width = torch.scalar_tensor(x.shape[3], dtype=torch.float32, device=x.device)
    shorter_side = torch.minimum(height, width)
    row_index = torch.arange(x.shape[2], device=x.device)
    column_index = torch.arange(x.shape[3], device=x.device)
    rows = _resize_matrix(height, row_index, shorter_side, shorter_px, size_px)
    columns = _resize_matrix(width, column_index, shorter_side, shorter_px, size_px)
    x = torch.floor(torch.matmul(x, columns.T) + 0.5)
    return torch.floor(torch.matmul(rows, x) + 0.5)


def resize_pixels(
    pixels: UInt8[Tensor, "b h w c"], *, shorter_px: int, size_px: int
) -> UInt8[Tensor, "b s s c"]:
    """Return what `resize_and_crop` makes of pixels."""
    x = pixels.permute(0, 3, 1, 2).to(torch.float32)
    resized = resize_and_crop(x, shorter_px=shorter_px, size_px=size_px)
    return resized.permute(0, 2, 3, 1).to(torch.uint8)


def _resize_matrix(
    side: Float32[Tensor, ""],
    index: Shaped[Tensor, side],
    shorter_side: Float32[Tensor, ""],
    shorter_px: int,
    size_px: int,
) -> Float32[Tensor, "size side"]:
    """Return the weight of each of `side` pixels in each of the `size_px` pixels in the middle.

    A pixel of the result has its center at (t + 1/2 - size_px / 2) * scale from the middle, where
    scale = shorter_side / shorter_px. The triangle is max(scale, 1) pixels wide to each side. All
    lengths are multiplied by 2 * shorter_px, which makes them whole numbers, so float32 is exact.

    Args:
        index: 0, 1, ..., side - 1.
    """
    twice_target = 2 * torch.arange(size_px, device=index.device) + 1 - size_px
    twice_source = 2 * index.to(torch.float32) + 1 - side
    distances = twice_source[None, :] * shorter_px - (twice_target * shorter_side)[:, None]
    half_width = 2 * torch.clamp(shorter_side, min=float(shorter_px))
    weights = torch.clamp(1 - distances.abs() / half_width, min=0)
    return weights / weights.sum(dim=1, keepdim=True)
