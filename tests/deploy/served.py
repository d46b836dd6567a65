"""Pictures to send to a model server."""

import io

import numpy as np
from PIL import Image


def picture(seed: int, form: str = "PNG") -> bytes:
    """Return a picture file of noise."""
    pixels = np.random.default_rng(seed).integers(0, 256, (40, 31, 3), dtype=np.uint8)
    with io.BytesIO() as file:
        Image.fromarray(pixels).save(file, form)
        return file.getvalue()
