"""Robustness: accuracy and consistency under small changes of the pixels that the network sees.

Networks with strides are less stable under shifts than expected (Azulay, Weiss 2019, arXiv
1805.12177; Zhang 2019, arXiv 1904.11486). The consistency of a change is the share of images that
keep their prediction, right or wrong.

The changes are small: shifts of 1 to 4 pixels, 20 % darker and brighter, and a Gaussian blur of 0.5
and 1 pixel. Image i moves left, right, up or down, in turn, and its edge is repeated. Pixels are
pixels of the input, so a shift of 4 pixels is larger for a small input.

Shapes: pixels uint8 [B, H, W, C].
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial

import torch
from jaxtyping import Int64, UInt8
from torch import Tensor, nn
from torch.nn import functional

from reslearn.data import Preprocess
from reslearn.evaluate.class_metrics import Share, share

PixelBatch = tuple[UInt8[Tensor, "b h w c"], Int64[Tensor, "b"]]
Change = Callable[[UInt8[Tensor, "b h w c"], int], UInt8[Tensor, "b h w c"]]

SHIFTS_PX = (1, 2, 3, 4)
_DIRECTIONS = ((0, -1), (0, 1), (-1, 0), (1, 0))  # (down, right) in pixels


@dataclass(frozen=True, kw_only=True)
class Robustness:
    """Accuracy and consistency under one change."""

    change: str
    accuracy: Share
    consistency: Share


@torch.inference_mode()
def robustness(
    net: nn.Module,
    batches: Iterable[PixelBatch],
    preprocess: Preprocess,
    *,
    autocast: Callable[[], AbstractContextManager[object]] = nullcontext,
) -> list[Robustness]:
    """Measure accuracy and consistency under each change, and without change first.

    Args:
        net: The network, in evaluation mode.
        batches: Pixels and labels, on the device of the network.
        preprocess: Turns pixels into the input of the network.
        autocast: Makes the context of a forward pass.

    Raises:
        ValueError: If there are no images.
    """
    num_images = 0
    num_right, num_same = dict.fromkeys(CHANGES, 0), dict.fromkeys(CHANGES, 0)
    for pixels, labels in batches:
        on_device = preprocess.to(pixels.device)
        unchanged: Tensor | None = None
        for name, change in CHANGES.items():
            with autocast():
                logits = net(on_device(change(pixels, num_images)))
            predicted = logits.topk(1).indices[:, 0]
            unchanged = predicted if unchanged is None else unchanged
            num_right[name] += int((predicted == labels).sum())
            num_same[name] += int((predicted == unchanged).sum())
        num_images += len(labels)
    if not num_images:
        raise ValueError("there are no images to measure robustness on")
    results = []
    for name in CHANGES:
        results.append(
            Robustness(
                change=name,
                accuracy=share(num_right[name], num_images),
                consistency=share(num_same[name], num_images),
            )
        )
    return results


def shift(
    pixels: UInt8[Tensor, "b h w c"], first_image: int, *, distance_px: int
) -> UInt8[Tensor, "b h w c"]:
    """Move each picture by `distance_px` and repeat its edge.

    Args:
        first_image: Index of the first image, which decides the directions.
    """
    height, width = pixels.shape[1:3]
    rows, columns = torch.arange(height), torch.arange(width)
    shifted = torch.empty_like(pixels)
    for number, (down, right) in enumerate(_DIRECTIONS):
        start = (number - first_image) % len(_DIRECTIONS)
        source_rows = (rows - down * distance_px).clamp(0, height - 1)
        source_columns = (columns - right * distance_px).clamp(0, width - 1)
        part = pixels[start :: len(_DIRECTIONS)]
        shifted[start :: len(_DIRECTIONS)] = part[:, source_rows][:, :, source_columns]
    return shifted


def scale_brightness(
    pixels: UInt8[Tensor, "b h w c"], first_image: int, *, factor: float
) -> UInt8[Tensor, "b h w c"]:
    """Multiply the values and cut them off at 255."""
    return (pixels.float() * factor).round().clamp(0, 255).to(torch.uint8)


def blur(
    pixels: UInt8[Tensor, "b h w c"], first_image: int, *, deviation_px: float
) -> UInt8[Tensor, "b h w c"]:
    """Convolve with a Gaussian of 7 x 7 pixels; the edge is repeated."""
    distances = torch.arange(-3, 4, device=pixels.device, dtype=torch.float32)
    weights = (-0.5 * (distances / deviation_px).square()).exp()
    weights = (weights / weights.sum()).expand(pixels.shape[3], 1, 7)
    x = functional.pad(pixels.permute(0, 3, 1, 2).float(), (3, 3, 3, 3), mode="replicate")
    groups = pixels.shape[3]
    x = functional.conv2d(x, weights[..., None], groups=groups)
    x = functional.conv2d(x, weights[:, :, None], groups=groups)
    return x.round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1)


def _unchanged(pixels: UInt8[Tensor, "b h w c"], first_image: int) -> UInt8[Tensor, "b h w c"]:
    return pixels


CHANGES: dict[str, Change] = {
    "none": _unchanged,
    **{f"shift {px} px": partial(shift, distance_px=px) for px in SHIFTS_PX},
    "20 % darker": partial(scale_brightness, factor=0.8),
    "20 % brighter": partial(scale_brightness, factor=1.2),
    "blur 0.5 px": partial(blur, deviation_px=0.5),
    "blur 1 px": partial(blur, deviation_px=1.0),
}
