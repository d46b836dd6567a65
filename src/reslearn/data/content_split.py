"""Divide images into training, validation and test images by the content of the files.

The hash of a file alone decides its split. More photos therefore move no other photo, and exact
copies stay on one side, in all classes. The shares of a class are 70, 15 and 15 % in expectation.
"""

import hashlib
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from reslearn.data.errors import DataError
from reslearn.data.files import map_in_order
from reslearn.data.listing import SPLITS, Listing, has_imagenet_names
from reslearn.progress import progress_bar

TEST_SHARE = VALIDATION_SHARE = 0.15
# Two files that agree in length and in these blocks are taken for copies. The blocks are evenly
# spaced, since scans without compression may have equal margins.
_NUM_BLOCKS = 16
_BLOCK_BYTES = 16 * 1024
_NUM_AHEAD = 64
_TRAIN, _VALIDATION, _TEST = range(len(SPLITS))
# From which splits an empty one takes an image, and how many contents these must have.
_SOURCES = {
    _TRAIN: ((_VALIDATION, 2), (_TEST, 2), (_VALIDATION, 1), (_TEST, 1)),
    _TEST: ((_TRAIN, 2), (_VALIDATION, 1)),
    _VALIDATION: ((_TRAIN, 2), (_TEST, 2)),
}


def assign_splits(listing: Listing) -> Listing:
    """Return the listing with a split for every image.

    - Without any split, the content of the files decides between all three.
    - With training images and no test images, test images are held out of the training images.
    - ILSVRC2012, known by its class names (n01440764), has no public test labels: its validation
      images become the test images.

    Raises:
        DataError: If splits are given and there are no training images.
    """
    layout_splits = listing.splits
    if not layout_splits:
        codes = _draw_splits(listing, np.arange(len(listing)), (_TEST, _VALIDATION))
        return replace(listing, split_codes=codes)
    if "train" not in layout_splits:
        raise DataError(
            f"{listing.folder} has no training images, only {' and '.join(layout_splits)} images: "
            "add train images"
        )
    if "test" in layout_splits:
        return listing
    if "validation" in layout_splits and has_imagenet_names(listing.classes):
        codes = listing.split_codes.copy()
        codes[codes == _VALIDATION] = _TEST
        return replace(listing, split_codes=codes)
    train = np.flatnonzero(listing.split_codes == _TRAIN)
    return replace(listing, split_codes=_draw_splits(listing, train, (_TEST,)))


def content_hash(path: Path) -> int:
    """Return 64 bits of the BLAKE2 hash of a file: of 256 KiB and its length if it is longer.

    A file that cannot be read has the hash of an empty one.
    """
    digest = hashlib.blake2b(digest_size=8)
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            if size <= _NUM_BLOCKS * _BLOCK_BYTES:
                digest.update(file.read())
            else:
                digest.update(b"%d" % size)
                for block in range(_NUM_BLOCKS):
                    file.seek(block * (size - _BLOCK_BYTES) // (_NUM_BLOCKS - 1))
                    digest.update(file.read(_BLOCK_BYTES))
    except OSError:
        pass
    return int.from_bytes(digest.digest(), "big")


def _draw_splits(
    listing: Listing, index: npt.NDArray[np.int64], drawn_splits: tuple[int, ...]
) -> npt.NDArray[np.int8]:
    """Return split codes in which some of the images at `index` have one of `drawn_splits`."""
    codes = listing.split_codes.copy()
    hashes = _hashes(listing, index)
    position = hashes / 2.0**64
    drawn = np.full(len(index), _TRAIN, np.int8)
    below = 0.0
    for split, share in ((_TEST, TEST_SHARE), (_VALIDATION, VALIDATION_SHARE)):
        if split in drawn_splits:
            drawn[(position >= below) & (position < below + share)] = split
            below += share
    labels = listing.labels[index]
    for label in range(len(listing.classes)):
        _fill_empty_splits(drawn, hashes, np.flatnonzero(labels == label), drawn_splits)
    codes[index] = drawn
    return codes


def _fill_empty_splits(
    drawn: npt.NDArray[np.int8],
    hashes: npt.NDArray[np.uint64],
    members: npt.NDArray[np.int64],
    drawn_splits: tuple[int, ...],
) -> None:
    """Give each empty split of a small class the image with the lowest hash in another split.

    Only such an image may move when photos are added. Training images come first, because a class
    cannot be learned without them. Test images come second, and validation images last.
    """
    for split in (_TRAIN, *drawn_splits):
        if (drawn[members] == split).any():
            continue
        for source, min_contents in _SOURCES[split]:
            sources = members[drawn[members] == source]
            if len(np.unique(hashes[sources])) >= min_contents:
                drawn[hashes == hashes[sources].min()] = split  # with its copies in other classes
                break


def _hashes(listing: Listing, index: npt.NDArray[np.int64]) -> npt.NDArray[np.uint64]:
    hashes = np.empty(len(index), np.uint64)
    paths = (listing.folder / listing.name(int(row)) for row in index)
    results = map_in_order(content_hash, paths, num_ahead=_NUM_AHEAD)
    description = f"dividing {listing.folder.name} into splits"
    with progress_bar(description, len(index), after_seconds=2.0) as advance:
        for image, value in enumerate(results):
            hashes[image] = value
            advance(1)
    return hashes
