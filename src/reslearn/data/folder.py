"""Folders of images: one folder per class, or train/, validation/ (or val/) and test/ with classes.

Without test/, a fifth of the training images of each class is held out, drawn by the counter-based
hash. ILSVRC2012 is recognized by its class names (n01440764). Its test labels were never published,
so results are reported on val/, and nothing is held out. Images are listed in a drawn order, not
class by class, so the last ones, which `split` takes, are a fair sample.
"""

import hashlib
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from reslearn.data.batches import held_out_mask, permutation
from reslearn.data.files import Files, map_in_order
from reslearn.data.images import (
    DataError,
    ImageData,
    Images,
    ImageSet,
    WholePictures,
    fingerprint,
)
from reslearn.data.pictures import CROP_PX, Pixels, center_crop, open_picture
from reslearn.progress import progress_bar

DEFAULT_SIZE_PX = 64
SUFFIXES = frozenset(
    (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm")
)
MAX_BYTES_IN_MEMORY = 2 * 2**30
# A random crop of a fifth less than the whole picture then has at least size_px pixels.
_WHOLE_SIDE = 1.25
_VALIDATION_NAMES = ("validation", "val", "valid")
_NUM_AHEAD = 64  # pictures, enough to keep the threads busy


def load_folder(
    folder: Path,
    *,
    size_px: int | None = None,
    stream: bool | None = False,
    keep_whole: bool = False,
) -> ImageData:
    """Load a folder of images as RGB.

    Args:
        size_px: In memory, the shorter side is resized to this (default 64) and the center is cut
            out. With `stream`, the side of the square that a network sees (default 224).
        stream: Leave the pictures on disk, in their own size, as `Files`. The fingerprint then
            covers names and sizes in bytes, and says so: decoding a million images takes an hour.
            None streams if the images would take more than 2 GiB of memory.
        keep_whole: In memory, also keep the whole training pictures, for random crops.

    Raises:
        DataError: If there are fewer than two classes with images, or if images cannot be read. The
            message has their number and the first one. With `stream` only empty files are found
            now; other broken files are found when they are read.
    """
    default_px = CROP_PX if stream else DEFAULT_SIZE_PX
    size = default_px if size_px is None else size_px
    if size < 1:
        raise DataError(f"size_px = {size_px}: allowed are 1 and more")
    classes, parts, digests = _list_parts(folder, size)
    if stream is None:
        stream = _bytes_in_memory(parts, size, keep_whole=keep_whole) > MAX_BYTES_IN_MEMORY
    sets: Mapping[str, ImageSet]
    if stream:
        sets = parts
        listing = hashlib.sha256(repr((classes, digests)).encode()).hexdigest()[:16]
        identity = f"names+sizes:{listing}"
    else:
        sets = images = _decode(folder, parts, size, keep_whole=keep_whole)
        identity = fingerprint(images.get(part) for part in ("train", "validation", "test"))
    return ImageData(
        name=folder.resolve().name,
        classes=tuple(classes),
        train=sets["train"],
        test=sets["test"],
        validation=sets.get("validation"),
        fingerprint=identity,
    )


def _list_parts(folder: Path, size_px: int) -> tuple[list[str], dict[str, Files], list[str]]:
    """Return the classes, the files of each part, and a digest of each listed folder."""
    has_parts = (folder / "train").is_dir()
    train_folder = folder / "train" if has_parts else folder
    classes = find_classes(train_folder)
    folders = {"train": train_folder}
    if has_parts:
        folders.update(_evaluation_folders(folder, classes))
    parts, digests = {}, []
    for part, part_folder in folders.items():
        parts[part], digest = list_files(part_folder, classes, size_px=size_px)
        digests.append(digest)
    if "test" not in parts:
        is_test = held_out_mask(parts["train"].labels, every=5)
        parts["test"] = parts["train"].select(is_test)
        parts["train"] = parts["train"].select(~is_test)
    return classes, parts, digests


def _evaluation_folders(folder: Path, classes: Sequence[str]) -> dict[str, Path]:
    """Return the folders of validation and test images beside train/, if they exist."""
    folders = {}
    for name in _VALIDATION_NAMES:
        if (folder / name).is_dir():
            folders["validation"] = folder / name
            break
    test = folder / "test"
    has_imagenet_names = all(re.fullmatch(r"n\d{8}", name) for name in classes)
    has_test_classes = any((test / name).is_dir() for name in classes)
    if "validation" in folders and has_imagenet_names and not has_test_classes:
        return {"test": folders["validation"]}
    if test.is_dir():
        folders["test"] = test
    return folders


def find_classes(folder: Path) -> list[str]:
    """Return the class folders that hold pictures, in alphabetical order.

    Raises:
        DataError: If there are fewer than two.
    """
    classes = sorted(
        entry.name for entry in _visible(folder) if entry.is_dir() and _has_pictures(entry.path)
    )
    if len(classes) < 2:
        number = f"only {classes[0]!r}" if classes else "none"
        raise DataError(
            f"{folder} has {number}: two or more class folders with images "
            f"({', '.join(sorted(SUFFIXES))}) are needed"
        )
    return classes


def list_files(folder: Path, classes: Sequence[str], *, size_px: int) -> tuple[Files, str]:
    """List all pictures below the class folders, in drawn order.

    Returns:
        The files, and a hexadecimal digest of their names and sizes in bytes.

    Raises:
        DataError: If the folder has an additional class, no picture, empty files, or cannot be
            read. For empty files the message has their number and the first one.
    """
    _check_classes(folder, classes)
    digest = hashlib.sha256()
    names, empty = bytearray(), []
    ends: list[int] = []
    labels: list[int] = []
    for label, class_name in enumerate(classes):
        class_folder = folder / class_name
        for entry in _pictures(class_folder) if class_folder.is_dir() else ():
            name = os.fsencode(os.path.relpath(entry.path, folder))
            size = entry.stat().st_size
            digest.update(name + b"\0%d\n" % size)
            names += name
            ends.append(len(names))
            labels.append(label)
            if size == 0:
                empty.append(entry.path)
    if not ends:
        raise DataError(f"{folder} has no images of {', '.join(classes)}")
    if empty:
        raise DataError(
            f"{len(empty)} of {len(ends)} images are empty files, the first is {empty[0]}: "
            "remove or replace them"
        )
    order = permutation(0, 0, len(ends))
    files = Files(
        folder=folder,
        names=bytes(names),
        ends=np.array(ends),
        rows=order,
        labels=torch.tensor(labels)[order],
        size_px=size_px,
    )
    return files, digest.hexdigest()


def _check_classes(folder: Path, classes: Sequence[str]) -> None:
    for entry in _visible(folder):
        if entry.name not in classes and entry.is_dir() and _has_pictures(entry.path):
            raise DataError(
                f"{folder} has class {entry.name!r}, which is not among the training classes "
                f"{', '.join(classes)}"
            )


def _visible(folder: Path | str) -> list["os.DirEntry[str]"]:
    """Return the entries that are not hidden, sorted by name."""
    try:
        with os.scandir(folder) as entries:
            visible = [entry for entry in entries if not entry.name.startswith(".")]
    except OSError as error:
        raise DataError(f"cannot read {folder}: {error.strerror}") from None
    return sorted(visible, key=lambda entry: entry.name)


def _pictures(folder: Path | str) -> Iterator["os.DirEntry[str]"]:
    for entry in _visible(folder):
        if entry.is_dir():
            yield from _pictures(entry.path)
        elif os.path.splitext(entry.name)[1].lower() in SUFFIXES:
            yield entry


def _has_pictures(folder: str) -> bool:
    return next(_pictures(folder), None) is not None


def _bytes_in_memory(parts: dict[str, Files], size_px: int, *, keep_whole: bool) -> int:
    num_pixels = sum(map(len, parts.values())) * size_px**2
    if keep_whole:
        num_pixels += len(parts["train"]) * whole_side(size_px) ** 2
    return 3 * num_pixels


def whole_side(size_px: int) -> int:
    """Return the side of the squares to which whole pictures are stretched in memory."""
    return round(_WHOLE_SIDE * size_px)


@dataclass(frozen=True, kw_only=True)
class _Target:
    """Where one decoded picture belongs. Without `whole_pixels` only its center is kept."""

    path: Path
    center: Pixels
    whole_pixels: Pixels | None = None
    shapes: npt.NDArray[np.float32] | None = None
    index: int = 0

    def decode(self) -> str | None:
        """Fill the arrays. Return what is wrong with the file."""
        size_px = self.center.shape[0]
        try:
            # Both come from one decoded picture, and the center is that of `read_picture`.
            image = open_picture(self.path, size_px)
        except DataError as error:
            return str(error)
        self.center[:] = center_crop(image, shorter_px=size_px, size_px=size_px)
        if self.whole_pixels is not None and self.shapes is not None:
            side = self.whole_pixels.shape[0]
            self.whole_pixels[:] = np.asarray(image.resize((side, side), Image.Resampling.BILINEAR))
            self.shapes[self.index] = image.width / image.height
        return None


def _decode(
    folder: Path, parts: dict[str, Files], size_px: int, *, keep_whole: bool
) -> dict[str, Images]:
    """Decode every picture once, straight into the arrays of its part."""
    arrays = {}
    targets: list[_Target] = []
    for part, files in parts.items():
        centers = np.empty((len(files), size_px, size_px, 3), np.uint8)
        side = whole_side(size_px) if keep_whole and part == "train" else 0
        wholes = np.empty((len(files), side, side, 3), np.uint8)
        shapes = np.ones(len(files), np.float32)
        for index in range(len(files)):
            target = _Target(path=files.path(index), center=centers[index])
            if side:
                target = replace(target, whole_pixels=wholes[index], shapes=shapes, index=index)
            targets.append(target)
        arrays[part] = (centers, wholes, shapes)
    problems = []
    with progress_bar(f"reading {folder.name}", len(targets), after_seconds=2.0) as advance:
        for problem in map_in_order(_Target.decode, targets, num_ahead=_NUM_AHEAD):
            advance(1)
            if problem:
                problems.append(problem)
    if problems:
        raise DataError(
            f"{len(problems)} of {len(targets)} images cannot be read, the first: {problems[0]}"
        )
    images = {}
    for part, files in parts.items():
        pixels, whole_pixels, ratios = map(torch.from_numpy, arrays[part])
        whole_pictures = WholePictures(whole_pixels, ratios) if whole_pixels.numel() else None
        images[part] = Images(pixels, files.labels, whole_pictures)
    return images
