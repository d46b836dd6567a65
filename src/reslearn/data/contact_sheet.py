"""Draw a batch as a network sees it, after augmentation and normalization."""

import numpy as np
import torch
from jaxtyping import Float32
from PIL import Image
from torch import Tensor

from reslearn.data.preprocess import Preprocess


def contact_sheet(
    x: Float32[Tensor, "b c s s"], preprocess: Preprocess, *, columns: int = 8
) -> Image.Image:
    """Return the images of a batch side by side, in rows of `columns`.

    Args:
        x: A batch as the network takes it.
        preprocess: The preprocessing that normalized it. It is undone.
    """
    preprocess = preprocess.to("cpu")
    pixels = x.cpu().permute(0, 2, 3, 1) * preprocess.scale + preprocess.mean
    images = pixels.round().clamp(0, 255).to(torch.uint8)
    if images.shape[3] == 1:
        images = images.expand(-1, -1, -1, 3)
    num_images, size_px = images.shape[:2]
    num_rows = -(-num_images // columns)
    sheet = np.zeros((num_rows * size_px, min(columns, num_images) * size_px, 3), np.uint8)
    for number, image in enumerate(images.numpy()):
        row, column = divmod(number, columns)
        top_px, left_px = row * size_px, column * size_px
        sheet[top_px : top_px + size_px, left_px : left_px + size_px] = image
    return Image.fromarray(sheet)
