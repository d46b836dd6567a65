"""Folders of images, in one of the layouts of `listing.py`, as a data set.

Splits that a layout does not give are drawn by the content of the files (`content_split.py`).
ILSVRC2012 is recognized by its class names (n01440764). Its test labels were never published, so
results are reported on val/, and nothing is held out. Images are in a drawn order, not class by
class, so the last ones, which `split` takes, are a fair sample.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool
from torch import Tensor

from reslearn.data.batches import permutation
from reslearn.data.content_split import assign_splits
from reslearn.data.decode import bytes_in_memory, decode_files
from reslearn.data.errors import DataError
from reslearn.data.files import Files
from reslearn.data.images import STREAMED_FINGERPRINT, ImageData, Images, ImageSet, fingerprint
from reslearn.data.layout import check_layout, warn_of_oddities
from reslearn.data.listing import SPLITS, Listing, list_images
from reslearn.data.pictures import CROP_PX, open_picture
from reslearn.data.skipped import SkipLog, SkippedImage, report_skipped

DEFAULT_SIZE_PX = 64
MAX_BYTES_IN_MEMORY = 2 * 2**30
# Part of the fingerprint of a streamed folder with drawn splits. Other rules need a new number.
_SPLIT_RULE = "content-hash-1"


def load_folder(
    folder: Path,
    *,
    size_px: int | None = None,
    stream: bool | None = False,
    keep_whole: bool = False,
) -> ImageData:
    """Load a folder of images, or a CSV file of path and label, as RGB.

    Args:
        size_px: In memory, the shorter side is resized to this (default 64) and the center is cut
            out. With `stream`, the side of the square that a network sees (default 224).
        stream: Leave the pictures on disk, in their own size, as `Files`. The fingerprint then
            covers names and sizes in bytes, and says so: decoding a million images takes an hour.
            None streams if the images would take more than 2 GiB of memory.
        keep_whole: In memory, also keep the whole training pictures, for random crops.

    Raises:
        DataError: If the layout is not one of images in two or more classes, or if more than half
            of the images of a set, or all training images of a class, cannot be read. Fewer are
            left out with a warning. With `stream` only empty files are found now; other broken
            files are found when they are read.
    """
    default_px = CROP_PX if stream else DEFAULT_SIZE_PX
    size = default_px if size_px is None else size_px
    if size < 1:
        raise DataError(f"size_px = {size_px}: allowed are 1 and more")
    listed = list_images(folder)
    check_layout(listed)
    warn_of_oddities(listed)
    listing = assign_splits(listed)
    skip_log = SkipLog()
    parts = _parts(listing, size, skip_log)
    is_validation_drawn = "validation" in parts and "validation" not in listed.splits
    whole_parts: list[str] = []
    if keep_whole:
        # `split` may turn drawn validation images into training images again.
        whole_parts = ["train", "validation"] if is_validation_drawn else ["train"]
    if stream is None:
        stream = bytes_in_memory(parts, size, whole_parts=whole_parts) > MAX_BYTES_IN_MEMORY
    sets: Mapping[str, ImageSet]
    if stream:
        sets = {part: _without_empty_files(part, files, listing) for part, files in parts.items()}
        identity = STREAMED_FINGERPRINT + _digest(listed, listing)
    else:
        sets = images = _read(listing, parts, size, whole_parts)
        identity = fingerprint(images.get(part) for part in SPLITS)
    return ImageData(
        name=folder.resolve().name,
        classes=listing.classes,
        train=sets["train"],
        test=sets["test"],
        validation=sets.get("validation"),
        is_validation_drawn=is_validation_drawn,
        fingerprint=identity,
        skip_log=skip_log,
    )


def _parts(listing: Listing, size_px: int, skip_log: SkipLog) -> dict[str, Files]:
    """Return the files of each split, in drawn order.

    Raises:
        DataError: If there are no training or no test images.
    """
    parts = {}
    for code, split in enumerate(SPLITS):
        rows = torch.from_numpy(np.flatnonzero(listing.split_codes == code))
        if len(rows):
            rows = rows[permutation(0, 0, len(rows))]
            parts[split] = Files(
                folder=listing.folder,
                names=listing.names,
                ends=listing.ends,
                rows=rows,
                labels=torch.from_numpy(listing.labels)[rows],
                size_px=size_px,
                skip_log=skip_log,
            )
        elif split != "validation":
            raise DataError(
                f"{listing.folder} has {len(listing)} images, and none of them is left for "
                f"{split} images: add images, or a folder {split}/"
            )
    return parts


def _digest(listed: Listing, listing: Listing) -> str:
    """Return 16 hexadecimal digits of classes, names, sizes in bytes and splits.

    Args:
        listed: The splits that the layout gives.
        listing: The splits that are used.
    """
    digests = []
    for code in sorted(set(listed.split_codes.tolist())):
        digest = hashlib.sha256()
        prefix = listed.split_folders.get(SPLITS[code], "") if code >= 0 else ""
        skip = len(prefix) + 1 if prefix else 0
        for row in np.flatnonzero(listed.split_codes == code).tolist():
            name = os.fsencode(listed.name(row)[skip:])
            digest.update(name + b"\0%d\n" % int(listed.num_bytes[row]))
        digests.append(digest.hexdigest())
    facts: tuple[object, ...] = (list(listed.classes), digests)
    is_drawn = len(listing.splits) > len(listed.splits)
    if is_drawn:
        facts = (*facts, _SPLIT_RULE)
    if listed.layout == "csv":  # names alone do not show the classes
        facts = (*facts, hashlib.sha256(listed.labels.tobytes()).hexdigest())
    return hashlib.sha256(repr(facts).encode()).hexdigest()[:16]


def _read(
    listing: Listing, parts: dict[str, Files], size_px: int, whole_parts: Sequence[str]
) -> dict[str, Images]:
    """Decode every picture once, and leave out those that cannot be read."""
    description = f"reading {listing.folder.name}"
    images = {}
    results = decode_files(parts, size_px, description, whole_parts=whole_parts)
    for part, decoded in results.items():
        skipped = [result for result in decoded.results if result is not None]
        is_read = torch.tensor([result is None for result in decoded.results])
        _check_skipped(part, parts[part], is_read, skipped, listing)
        images[part] = decoded.images.select(is_read) if skipped else decoded.images
    return images


def _without_empty_files(part: str, files: Files, listing: Listing) -> Files:
    """Return the files of a streamed part without the empty files."""
    is_read = torch.from_numpy(listing.num_bytes)[files.rows] > 0
    skipped = []
    for index in torch.nonzero(~is_read).flatten().tolist():
        result = files.attempt(index, open_picture)
        if isinstance(result, SkippedImage):
            skipped.append(result)
    _check_skipped(part, files, is_read, skipped, listing)
    return files.select(is_read)


def _check_skipped(
    part: str,
    files: Files,
    is_read: Bool[Tensor, n],
    skipped: Sequence[SkippedImage],
    listing: Listing,
) -> None:
    """Warn about images that are left out.

    Raises:
        DataError: If more than half of them, or all training images of a class, are left out.
    """
    if not skipped:
        return
    training = "training" if part == "train" else part
    num_classes = len(listing.classes)
    before = torch.bincount(files.labels, minlength=num_classes)
    after = torch.bincount(files.labels[is_read], minlength=num_classes)
    for label in torch.nonzero((before > 0) & (after == 0)).flatten().tolist():
        if part == "train":
            unread = torch.nonzero(~is_read & (files.labels == label)).flatten().tolist()
            paths = {files.path(index) for index in unread}
            first = min(image for image in skipped if image.path in paths)
            raise DataError(
                f"none of the {int(before[label]):,} training images of class "
                f"{listing.classes[label]!r} can be read, the first is {first.path} "
                f"({first.reason}): replace them, or remove the class"
            )
    report_skipped(skipped, len(files), of=f"{training} images")
