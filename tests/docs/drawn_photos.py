"""Photos for the tests of the tutorials: drawn pictures of two classes in class folders."""

from pathlib import Path

import numpy as np
from PIL import Image


def draw_photos(folder: Path, number: int) -> None:
    """Draw `number` pictures of each of two classes, which differ in their color."""
    rng = np.random.default_rng(0)
    for name, color in {"dress": (180, 60, 60), "hat": (60, 60, 180)}.items():
        (folder / name).mkdir(parents=True)
        for index in range(number):
            noise = rng.integers(-50, 50, (48, 64, 3))
            pixels = (np.array(color) + noise).clip(0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{index:04d}.jpg")
