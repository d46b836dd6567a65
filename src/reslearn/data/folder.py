"""Image folders: one folder a class, or train/, validation/ (or val/) and test/ with the classes inside.

Pictures are decoded once into memory, or (`stream`) left on disk and read when they are needed. Where there is no test/, every fifth
training image, drawn by the counter hash class by class, is held out. ILSVRC2012 is told by its class names (n01440764): its test
labels were never published, so val/ is what results are reported on, and nothing is held out. Images stand in a drawn order, not
class by class, so that the last ones, which `split` takes, are a fair sample.
"""

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from reslearn.data.counter import held_out
from reslearn.data.dataset import ImageData
from reslearn.data.errors import DataError
from reslearn.data.files import Files, classes_of, in_order, list_files
from reslearn.data.images import Images, fingerprint
from reslearn.data.pictures import CROP_PX, Pixels, read_picture
from reslearn.progress import progress_bar

SIZE_PX = 64  # where none is asked for
_TRAIN, _VALIDATION, _TEST = "train", ("validation", "val", "valid"), "test"
_AHEAD = 64  # pictures: enough to keep the threads busy


def load_folder(folder: Path, *, size_px: int | None = None, stream: bool = False) -> ImageData:
    """A folder of images as RGB; in memory with the shorter side made `size_px` (64 if None) and the center cut out.

    With `stream` the sets are `Files`, whose pictures keep their own size, and `size_px` (224 if None) says what a network is to see of
    them. The fingerprint is then one of names and sizes in bytes, and says so: to decode a million images would take an hour.

    Raises:
        DataError: where there are not two classes with images, or images that cannot be read (their number and the first); on disk
            empty files alone are found now, others when they are met.
    """
    size = size_px if size_px is not None else CROP_PX if stream else SIZE_PX
    if size < 1:
        raise DataError(f"size_px = {size_px}: allowed are 1 and more")
    train_folder = folder / _TRAIN if (folder / _TRAIN).is_dir() else folder
    classes = classes_of(train_folder)
    part_folders = _part_folders(folder, classes) if train_folder != folder else {}
    parts, digests = {}, []
    for part, part_folder in {"train": train_folder, **part_folders}.items():
        digest = hashlib.sha256()
        parts[part] = list_files(part_folder, classes, size_px=size, digest=digest)
        digests.append(digest.hexdigest())
    if "test" not in parts:
        mask = held_out(parts["train"].labels, every=5)
        parts["train"], parts["test"] = parts["train"].at(~mask), parts["train"].at(mask)
    name = folder.resolve().name
    if stream:
        listed = f"names+sizes:{hashlib.sha256(repr((classes, digests)).encode()).hexdigest()[:16]}"
        return ImageData(
            name=name,
            classes=tuple(classes),
            train=parts["train"],
            test=parts["test"],
            validation=parts.get("validation"),
            fingerprint=listed,
        )
    images = _decode(folder, parts, size)
    return ImageData(
        name=name,
        classes=tuple(classes),
        train=images["train"],
        test=images["test"],
        validation=images.get("validation"),
        fingerprint=fingerprint(images.get(part) for part in ("train", "validation", "test")),
    )


def _part_folders(folder: Path, classes: Sequence[str]) -> dict[str, Path]:
    """The folders of validation and test images beside train/, as far as they are there."""
    found = {}
    validation = next((folder / name for name in _VALIDATION if (folder / name).is_dir()), None)
    if validation is not None:
        found["validation"] = validation
    test = folder / _TEST
    is_ilsvrc = all(re.fullmatch(r"n\d{8}", name) for name in classes) and not any(
        (test / name).is_dir() for name in classes
    )
    if validation is not None and is_ilsvrc:
        return {"test": validation}
    return {**found, "test": test} if test.is_dir() else found


def _decode(folder: Path, parts: dict[str, Files], size_px: int) -> dict[str, Images]:
    """Every picture once, straight into its place."""
    pixels = {
        part: np.empty((len(files), size_px, size_px, 3), np.uint8) for part, files in parts.items()
    }
    places = [
        (files.path(index), pixels[part][index])
        for part, files in parts.items()
        for index in range(len(files))
    ]

    def decode(path_and_place: tuple[Path, Pixels]) -> str | None:
        path, place = path_and_place
        try:
            place[:] = read_picture(path, size_px)
        except DataError as error:
            return str(error)
        return None

    unreadable = []
    with progress_bar(f"reading {folder.name}", len(places), after_seconds=2.0) as advance:
        for problem in in_order(decode, places, ahead=_AHEAD):
            advance(1)
            if problem:
                unreadable.append(problem)
    if unreadable:
        raise DataError(
            f"{len(unreadable)} of {len(places)} images cannot be read, the first: {unreadable[0]}"
        )
    return {
        part: Images(torch.from_numpy(pixels[part]), files.labels) for part, files in parts.items()
    }
