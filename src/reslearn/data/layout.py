"""Check a listing before training: refuse layouts without classes, warn about files left out."""

import warnings
from collections import Counter

from reslearn.data.errors import DataError
from reslearn.data.listing import EXPECTED_LAYOUT, SPLITS, Listing, has_imagenet_names
from reslearn.data.walk import HEIF_SUFFIXES, TEXT_SUFFIXES, has_heif

_MAX_NAMES = 5  # of classes or suffixes in one message
_MIN_SHARED_SUBFOLDERS = 2


def check_layout(listing: Listing) -> None:
    """Raise a one-line DataError if a training cannot use the images."""
    _check_depth(listing)
    _check_classes(listing)
    _check_number_of_classes(listing)


def warn_of_oddities(listing: Listing) -> None:
    """Warn about pictures that are left out, classes without pictures, and circular links."""
    left_out = describe_left_out(listing)
    if left_out:
        warnings.warn(f"{listing.folder}: {left_out}", stacklevel=3)
    for link in listing.link_circles[:_MAX_NAMES]:
        warnings.warn(
            f"{link} links to a folder that contains it or was already listed: it is not followed",
            stacklevel=3,
        )
    for holder, count in listing.loose.items():
        if holder and has_imagenet_names(listing.classes):
            continue  # the test images of ILSVRC2012, whose labels were never published
        warnings.warn(
            f"left out {count:,} {'picture' if count == 1 else 'pictures'} directly in "
            f"{listing.folder / holder}: they are in no class folder, so they have no label",
            stacklevel=3,
        )


def describe_left_out(listing: Listing) -> str:
    """Return one line on the files left out, by suffix, or "" if there is nothing to say.

    Text and data files are not mentioned, unless a class has nothing else.
    """
    by_suffix: Counter[str] = Counter()
    for group in listing.left_out:
        if group.suffix not in TEXT_SUFFIXES or group.class_name in listing.vanished:
            by_suffix[group.suffix] += group.count
    if not by_suffix:
        return ""
    named = []
    for suffix, count in by_suffix.most_common(_MAX_NAMES):
        named.append(f"{suffix or 'no suffix'} {count:,}")
    total = sum(by_suffix.values())
    line = f"left out {total:,} {'file' if total == 1 else 'files'}: {', '.join(named)}"
    if listing.vanished:
        classes = ", ".join(listing.vanished[:_MAX_NAMES])
        plural = "class" if len(listing.vanished) == 1 else "classes"
        verb = "has" if len(listing.vanished) == 1 else "have"
        line += f" ({plural} {classes} {verb} no picture left)"
    if by_suffix.keys() & HEIF_SUFFIXES and not has_heif():
        line += ": install reslearn[photos] to read HEIF"
    return line


def _check_depth(listing: Listing) -> None:
    """Refuse folders whose class folders lie one level deeper, under several folders alike."""
    nested = listing.subfolders
    if listing.layout == "csv" or not nested or len(nested) < len(listing.classes):
        return
    shared = frozenset.intersection(*nested.values())
    if len(listing.classes) == 1:
        name, inner = next(iter(nested.items()))
        if len(inner) >= _MIN_SHARED_SUBFOLDERS:
            raise DataError(
                f"{listing.folder} has only the folder {name}, whose pictures lie in the folders "
                f"{_some(inner)}: pass {listing.folder / name} instead if these are the classes "
                "or splits"
            )
    elif len(shared) >= _MIN_SHARED_SUBFOLDERS:
        raise DataError(
            f"the folders {_some(nested)} of {listing.folder} all hold the same folders "
            f"{_some(shared)}, so they are no classes: rename them to train, validation and test "
            f"if they are splits, or pass one of them; {EXPECTED_LAYOUT}"
        )


def _check_classes(listing: Listing) -> None:
    """Refuse validation and test images of classes that have no training images."""
    counts = listing.counts()
    if "train" not in counts:
        return
    training = [name for name, count in counts["train"].items() if count]
    for split in SPLITS[1:]:
        foreign = [name for name, count in counts.get(split, {}).items() if count]
        foreign = [name for name in foreign if name not in set(training)]
        if foreign:
            plural = "class" if len(foreign) == 1 else "classes"
            verb = "is" if len(foreign) == 1 else "are"
            folder = listing.folder / listing.split_folders.get(split, "")
            raise DataError(
                f"{folder} has {plural} {', '.join(map(repr, foreign[:_MAX_NAMES]))}, which "
                f"{verb} not among the training classes {_some(training, 20)}: "
                "add training images, or remove or rename the folder" + _reason(listing)
            )


def _check_number_of_classes(listing: Listing) -> None:
    if len(listing.classes) >= 2:
        return
    folder = listing.label_file or listing.folder / listing.split_folders.get("train", "")
    raise DataError(
        f"{folder} has only the class {listing.classes[0]!r}, and two or more are needed: "
        f"{EXPECTED_LAYOUT}{_reason(listing)}"
    )


def _reason(listing: Listing) -> str:
    left_out = describe_left_out(listing)
    return f"; {left_out}" if left_out else ""


def _some(names: object, number: int = _MAX_NAMES) -> str:
    """Return the first names in alphabetical order."""
    ordered = sorted(names)  # type: ignore[call-overload]
    text = ", ".join(ordered[:number])
    return f"{text}, ..." if len(ordered) > number else text
