"""The changes of color in TrivialAugment, on batches of tensors (Mueller and Hutter 2021).

The strengths cover the authors' wide search space, which torchvision uses too. Every function takes
and returns float32 [B, C, S, S] in gray levels 0 to 255. It also takes one strength per image: -1
to 1 for brightness, color, contrast and sharpness, whose sign matters, and 0 to 1 otherwise.
"""

from collections import defaultdict
from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float32, UInt8
from torch import Tensor

from reslearn.data.photo_views import GEOMETRIC, PhotoView

_MAX_ENHANCEMENT = 0.99
_MIN_BITS = 2
_LUMINANCE = (0.299, 0.587, 0.114)  # ITU-R 601, as in Pillow

FloatBatch = Float32[Tensor, "b c s s"]


def change_colors(
    pixels: UInt8[Tensor, "b s s c"], views: Sequence[PhotoView]
) -> UInt8[Tensor, "b s s c"]:
    """Make the change of color of each view, in place, and return the batch.

    Geometric changes are part of the resampling; see resample.py.
    """
    rows_by_change: defaultdict[str, list[int]] = defaultdict(list)
    for row, view in enumerate(views):
        if view.change != "identity" and view.change not in GEOMETRIC:
            rows_by_change[view.change].append(row)
    for change, rows in rows_by_change.items():
        index = torch.tensor(rows, device=pixels.device)
        strengths = torch.tensor([views[row].strength for row in rows], device=pixels.device)
        x = pixels.index_select(0, index).permute(0, 3, 1, 2).float()
        changed = COLOR_CHANGES[change](x, strengths.float().view(-1, 1, 1, 1))
        changed = changed.round_().clamp_(0, 255).to(torch.uint8)
        pixels.index_copy_(0, index, changed.permute(0, 2, 3, 1).contiguous())
    return pixels


def brightness(x: FloatBatch, strength: Tensor) -> FloatBatch:
    """Blend with black, or away from it."""
    return x * (1 + _MAX_ENHANCEMENT * strength)


def color(x: FloatBatch, strength: Tensor) -> FloatBatch:
    """Blend with the gray image, or away from it."""
    return _blend(_gray(x), x, strength)


def contrast(x: FloatBatch, strength: Tensor) -> FloatBatch:
    """Blend with the mean gray level of the image, or away from it."""
    # A whole number, as in Pillow. It does not depend on the other images of the batch.
    mean = _gray(x).double().mean(dim=(1, 2, 3), keepdim=True).add_(0.5).floor_()
    return _blend(mean.float(), x, strength)


def sharpness(x: FloatBatch, strength: Tensor) -> FloatBatch:
    """Blend with a smoothed image, or away from it. The outermost pixels stay as they are."""
    if min(x.shape[2:]) < 3:
        return x
    columns = x[..., :-2] + x[..., 1:-1] + x[..., 2:]
    neighbors = columns[:, :, :-2] + columns[:, :, 1:-1] + columns[:, :, 2:]
    smooth = x.clone()
    # The weight of the pixel itself is 5, and of each neighbor 1.
    smooth[:, :, 1:-1, 1:-1] = (neighbors + 4 * x[:, :, 1:-1, 1:-1]) / 13
    return _blend(smooth, x, strength)


def posterize(x: FloatBatch, strength: Tensor) -> FloatBatch:
    """Keep the upper 8 to 2 bits."""
    dropped_bits = ((8 - _MIN_BITS) * strength.abs()).round()
    step = 2**dropped_bits
    return torch.floor(x / step) * step


def solarize(x: FloatBatch, strength: Tensor) -> FloatBatch:
    """Invert the gray levels from a threshold on, which falls from 255 to 0."""
    return torch.where(x >= 255 * (1 - strength.abs()), 255 - x, x)


def auto_contrast(x: FloatBatch, strength: Tensor) -> FloatBatch:
    """Stretch each channel to 0 to 255. A channel of one value is unchanged."""
    low, high = x.amin(dim=(2, 3), keepdim=True), x.amax(dim=(2, 3), keepdim=True)
    span = high - low
    return torch.where(span > 0, (x - low) * (255 / span.clamp(min=1)), x)


def equalize(x: FloatBatch, strength: Tensor) -> FloatBatch:
    """Make the histogram of each channel flat, as Pillow does."""
    batch, channels = x.shape[:2]
    levels = x.reshape(batch * channels, -1).long()
    counts = torch.zeros(batch * channels, 256, device=x.device, dtype=torch.int64)
    counts.scatter_add_(1, levels, torch.ones_like(levels))
    # Pillow's step is the number of pixels below the last level, divided by 255.
    last = counts.gather(1, levels.amax(dim=1, keepdim=True))
    step = (counts.sum(dim=1, keepdim=True) - last) // 255
    before = counts.cumsum(dim=1) - counts
    table = ((before + step // 2) // step.clamp(min=1)).clamp(max=255)
    table = torch.where(step > 0, table, torch.arange(256, device=x.device))
    return table.gather(1, levels).view_as(x).float()


COLOR_CHANGES: dict[str, Callable[[FloatBatch, Tensor], FloatBatch]] = {
    "brightness": brightness,
    "color": color,
    "contrast": contrast,
    "sharpness": sharpness,
    "posterize": posterize,
    "solarize": solarize,
    "auto_contrast": auto_contrast,
    "equalize": equalize,
}


def _blend(degenerate: Tensor, x: Tensor, strength: Tensor) -> Tensor:
    """Return x at strength 0, nearly `degenerate` at -1, and the opposite at 1."""
    return x + (x - degenerate) * (_MAX_ENHANCEMENT * strength)


def _gray(x: FloatBatch) -> Float32[Tensor, "b 1 s s"]:
    if x.shape[1] != 3:
        return x.mean(dim=1, keepdim=True)
    weights = torch.tensor(_LUMINANCE, device=x.device).view(1, 3, 1, 1)
    return (x * weights).sum(dim=1, keepdim=True)
