"""Pictures for surveys: smooth random patterns. No two are alike."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

Photo = Callable[..., Image.Image]
MakeFolder = Callable[..., Path]


@pytest.fixture(scope="session")
def photo() -> Photo:
    """Return `photo(seed, size=(64, 48))`, which draws a picture that only this seed gives."""

    def draw(seed: int, size: tuple[int, int] = (64, 48)) -> Image.Image:
        cells = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)
        return Image.fromarray(cells).resize(size, Image.Resampling.BICUBIC)

    return draw


@pytest.fixture
def make_folder(tmp_path: Path, photo: Photo) -> MakeFolder:
    """Return `make({"train/cat": 5, ...})`, which writes that many JPEG files in each folder."""

    def make(numbers: dict[str, int], name: str = "photos") -> Path:
        seed = 0
        for folder, number in numbers.items():
            place = tmp_path / name / folder
            place.mkdir(parents=True)
            for index in range(number):
                photo(seed).save(place / f"{index:03d}.jpg", quality=90)
                seed += 1
        return tmp_path / name

    return make
