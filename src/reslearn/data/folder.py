"""Image folders in their simplest form: one folder a class, or train/, validation/ (or val/) and test/ with the classes inside.

Images are decoded once into memory. Where there is no test/, every fifth training image, drawn by the counter hash class by class, is
held out. Images stand in a drawn order, not class by class, so that the last ones, which `split` takes, are a fair sample.
"""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, ImageOps

from reslearn.data.counter import held_out, permutation
from reslearn.data.errors import DataError
from reslearn.data.images import Dataset, Images, fingerprint
from reslearn.data.progress import progress

SIZE_PX = 64  # where none is asked for
_SUFFIXES = frozenset((".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm"))
_TRAIN, _VALIDATION, _TEST = "train", ("validation", "val", "valid"), "test"

Listing = tuple[list[Path], torch.Tensor]  # files and their labels int64 [N]


def load_folder(folder: Path, *, size_px: int | None = None) -> Dataset:
    """A folder of images as RGB, shorter side made `size_px` (64 if None), centre cut out.

    Raises:
        DataError: where there are not two classes with images, or images that cannot be read (their number and the first).
    """
    size = SIZE_PX if size_px is None else size_px
    if size < 1:
        raise DataError(f"size_px = {size_px}: allowed are 1 and more")
    train_folder = folder / _TRAIN
    has_splits = train_folder.is_dir()
    classes = _classes(train_folder if has_splits else folder)
    train = _listing(train_folder if has_splits else folder, classes)
    validation_folder = next((folder / name for name in _VALIDATION if (folder / name).is_dir()), None) if has_splits else None
    validation = _listing(validation_folder, classes) if validation_folder else None
    if has_splits and (folder / _TEST).is_dir():
        test = _listing(folder / _TEST, classes)
    else:
        mask = held_out(train[1], every=5)
        train, test = _select(train, ~mask), _select(train, mask)
    listings = {"train": train, "validation": validation, "test": test}
    images = _decode(folder, {part: listing for part, listing in listings.items() if listing is not None}, size)
    return Dataset(
        name=folder.resolve().name,
        classes=tuple(classes),
        train=images["train"],
        test=images["test"],
        validation=images.get("validation"),
        fingerprint=fingerprint(images.get(part) for part in listings),
    )


def read_picture(path: Path, size_px: int) -> npt.NDArray[np.uint8]:
    """A picture file as uint8 RGB [size_px, size_px, 3]: turned upright, the centre square of its shorter side, resized with averaging.

    Raises:
        OSError and others that Pillow raises on broken files.
    """
    with Image.open(path) as image:
        image.draft("RGB", (2 * size_px, 2 * size_px))  # a large JPEG is decoded at a fraction, still twice what is kept
        upright = ImageOps.exif_transpose(image).convert("RGB")
        return np.asarray(ImageOps.fit(upright, (size_px, size_px), Image.Resampling.BILINEAR))


def _classes(folder: Path) -> list[str]:
    classes = sorted(entry.name for entry in _visible(folder) if entry.is_dir() and _pictures(entry))
    if len(classes) < 2:
        found = f"only {classes[0]!r}" if classes else "none"
        raise DataError(f"{folder} has {found}: two or more class folders with images ({', '.join(sorted(_SUFFIXES))}) are needed")
    return classes


def _listing(folder: Path, classes: Sequence[str]) -> Listing:
    """All pictures below the class folders, in drawn order."""
    foreign = sorted(entry.name for entry in _visible(folder) if entry.is_dir() and entry.name not in classes and _pictures(entry))
    if foreign:
        raise DataError(f"{folder} has class {foreign[0]!r}, which is not among the training classes {', '.join(classes)}")
    files, labels = [], []
    for label, name in enumerate(classes):
        pictures = _pictures(folder / name)
        files += pictures
        labels += [label] * len(pictures)
    if not files:
        raise DataError(f"{folder} has no images of {', '.join(classes)}")
    order = permutation(0, 0, len(files))
    return [files[place] for place in order.tolist()], torch.tensor(labels)[order]


def _visible(folder: Path) -> list[Path]:
    try:
        return [entry for entry in folder.iterdir() if not entry.name.startswith(".")]
    except OSError as error:
        raise DataError(f"cannot read {folder}: {error.strerror}") from None


def _pictures(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.suffix.lower() in _SUFFIXES and not path.name.startswith("."))


def _select(listing: Listing, mask: torch.Tensor) -> Listing:
    files, labels = listing
    return [path for path, chosen in zip(files, mask.tolist(), strict=True) if chosen], labels[mask]


def _decode(folder: Path, listings: dict[str, Listing], size_px: int) -> dict[str, Images]:
    """Every picture once, straight into its place, by as many threads as there are cores (Pillow lets them run side by side)."""
    pixels = {part: np.empty((len(files), size_px, size_px, 3), np.uint8) for part, (files, _) in listings.items()}
    places = [(path, pixels[part][place]) for part, (files, _) in listings.items() for place, path in enumerate(files)]

    def decode(path_and_place: tuple[Path, npt.NDArray[np.uint8]]) -> str | None:
        path, place = path_and_place
        try:
            place[:] = read_picture(path, size_px)
        except Exception as error:  # what a broken file makes a decoder raise is anybody's guess
            return f"{path} ({str(error).splitlines()[0] if str(error) else type(error).__name__})"
        return None

    unreadable = []
    workers = os.cpu_count() or 1
    with progress(f"reading {folder.name}", len(places), after_seconds=2.0) as advance, ThreadPoolExecutor(workers) as pool:
        for problem in pool.map(decode, places):
            advance(1)
            if problem:
                unreadable.append(problem)
    if unreadable:
        raise DataError(f"{len(unreadable)} of {len(places)} images cannot be read, the first is {unreadable[0]}: remove or replace them")
    return {part: Images(torch.from_numpy(pixels[part]), labels) for part, (_, labels) in listings.items()}
