"""The pictures of a parity gate and of the calibration: held-out and training images of real data.

Images in memory (CIFAR, digits) are arrays. Images of a folder stay files, so the gate also covers
decoding. A folder of pictures without class folders has no labels, and gives no accuracy.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from reslearn import data
from reslearn.data.images import evenly_spaced_indices
from reslearn.deploy.model_card import ModelCard
from reslearn.deploy.model_input import Picture
from reslearn.deploy.parity import Labels
from reslearn.deploy.sources import PictureSource, expand
from reslearn.interop.as_bundle import have_same_classes
from reslearn.runs import RunFolder

IMAGE_SETS = ("validation", "test", "train")


@dataclass(frozen=True, kw_only=True)
class ParityImages:
    """Pictures, and their labels if they are known.

    Attributes:
        description: What they are, such as "500 validation images of cifar10".
        pictures: Paths, or arrays uint8 [H, W, C].
        labels: Indices of their classes, int64 [N].
        calibration: Training images for int8, as `pictures`.
    """

    description: str
    pictures: list[Picture]
    labels: Labels | None
    calibration: list[Picture]


def load_parity_images(
    source: Path | str,
    card: ModelCard,
    *,
    data_name: str | None = None,
    image_set: str | None = None,
    num_images: int = 500,
    num_calibration: int = 0,
    data_dir: Path | None = None,
) -> ParityImages:
    """Load real images for the gate of one model.

    Args:
        source: The model. A run brings its data.
        card: The card of the model.
        data_name: A dataset or a folder of images. None: the data of the run.
        image_set: "validation", "test" or "train". None: validation images, or test images where
            there are none.
        num_images: At most this many images, evenly spaced.
        num_calibration: At most this many training images for int8.
        data_dir: The folder to search for datasets.

    Raises:
        ValueError: If no data are named, a set is missing, or the images do not fit the model.
        DataError: If the data cannot be read.
    """
    run = RunFolder(Path(source)) if RunFolder(Path(source)).exists() else None
    if data_name is None and run is None:
        raise ValueError(
            f"{source}: the parity gate needs real images: name them, as in --data photos"
        )
    if image_set not in (None, *IMAGE_SETS):
        raise ValueError(f"--images {image_set} is unknown: use validation, test or train")
    name = data_name or _data_of(run, data_dir)
    if (flat := _pictures_without_classes(name)) is not None:
        if num_calibration:
            raise ValueError(f"{name} has no class folders: int8 needs training images")
        chosen = _evenly(flat, num_images)
        return ParityImages(
            description=f"{len(chosen)} pictures of {name}",
            pictures=chosen,
            labels=None,
            calibration=[],
        )
    dataset = data.load(name, data_dir=data_dir, size_px=card.preprocess.size_px, stream=True)
    if data_name is None and run is not None:
        dataset = data.split(dataset, run.recipe["data"]["validation_images"])
    set_name = image_set or ("test" if dataset.validation is None else "validation")
    images: data.ImageSet | None = getattr(dataset, set_name)
    if images is None:
        raise ValueError(f"--images {set_name}: {name} has no validation images: use test or train")
    pictures, labels = _pictures_of(images, num_images)
    calibration, _ = _pictures_of(dataset.train, num_calibration) if num_calibration else ([], None)
    return ParityImages(
        description=f"{len(pictures)} {set_name} images of {name}",
        pictures=pictures,
        labels=labels if have_same_classes(dataset.classes, card.classes) else None,
        calibration=calibration,
    )


def _data_of(run: RunFolder | None, data_dir: Path | None) -> str:
    assert run is not None, "a model without a run needs the name of its data"
    return data.locate(str(run.recipe["data"]["name"]), run=run.path, data_dir=data_dir)


def _pictures_without_classes(name: str) -> list[Picture] | None:
    folder = Path(name)
    if not folder.is_dir():
        return None
    if any(entry.is_dir() and not entry.name.startswith(".") for entry in folder.iterdir()):
        return None
    pictures: list[Picture] = []
    for source in expand([name]):
        if isinstance(source, PictureSource):
            pictures.append(Path(source.name))
    return pictures or None


def _pictures_of(images: data.ImageSet, num_images: int) -> tuple[list[Picture], Labels]:
    """Return at most `num_images` evenly spaced images and their labels."""
    chosen = images.evenly_spaced(min(num_images, len(images)))
    labels = np.asarray(chosen.labels.numpy(), np.int64)
    if isinstance(chosen, data.Files):
        return [chosen.path(index) for index in range(len(chosen))], labels
    return list(chosen.pixels.numpy()), labels


def _evenly(pictures: list[Picture], num_images: int) -> list[Picture]:
    if num_images >= len(pictures):
        return pictures
    return [pictures[int(index)] for index in evenly_spaced_indices(num_images, len(pictures))]
