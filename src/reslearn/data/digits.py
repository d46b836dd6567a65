"""Handwritten digits that scikit-learn embeds (UCI, Alpaydin and Kaynak 1998): real scans, 8 x 8 pixels, no download.

1,797 images, values 0 ... 16 stretched to 0 ... 255; 1,437 to train on, a fixed fifth to test, drawn by the counter hash class by class.
"""

import torch

from reslearn.data.counter import held_out
from reslearn.data.dataset import ImageData
from reslearn.data.images import Images, fingerprint, shrink


def load_digits(*, size_px: int | None = None) -> ImageData:
    """The digits; `size_px` 4 averages areas of 2 x 2.

    Raises:
        DataError: for a size that does not divide 8.
    """
    from sklearn import datasets  # a second, which only this source is to cost

    bunch = datasets.load_digits()
    stretched = torch.from_numpy(bunch.images).mul(255 / 16).round().to(torch.uint8)
    pixels = shrink(stretched.unsqueeze(-1), size_px, name="digits")
    labels = torch.from_numpy(bunch.target).to(torch.int64)
    test = held_out(labels, every=5)
    parts = [Images(pixels[mask], labels[mask]) for mask in (~test, test)]
    classes = tuple(str(digit) for digit in range(10))
    return ImageData(
        name="digits",
        classes=classes,
        train=parts[0],
        test=parts[1],
        fingerprint=fingerprint(parts),
    )
