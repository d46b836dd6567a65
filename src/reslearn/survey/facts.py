"""The facts about a folder, counted from the records: sizes, forms, shapes, and odd files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from reslearn.survey.copies import Copies
from reslearn.survey.examine import Flag

if TYPE_CHECKING:
    from reslearn.data.listing import Listing

MAX_EXAMPLES = 200
"""Maximum number of file names that are kept for each kind."""
ALL = "all"
"""Name of the one split of a folder whose images are not divided."""
_SHAPES = {
    "square": 1.05,
    "up to 4:3": 1.34,
    "up to 3:2": 1.51,
    "up to 16:9": 1.79,
    "up to 2:1": 2.01,
    "longer": np.inf,
}

Table = npt.NDArray[np.void]
Rows = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Range:
    """Minimum, tenth percentile, median and maximum of a measurement."""

    minimum: int
    tenth: int
    median: int
    maximum: int


@dataclass(frozen=True, kw_only=True)
class Shape:
    """Pictures of similar aspect ratio, and the share of their area outside of a center crop."""

    name: str
    num_images: int
    lost_pct: float


@dataclass(frozen=True, kw_only=True)
class OddFiles:
    """Files with one property: their number, and the rows of the first of them."""

    count: int
    rows: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Form:
    """How well a property of the file, such as its format, predicts the class by itself.

    Attributes:
        accuracy_pct: Accuracy of naming the most frequent class of each value.
        majority_pct: Share of the most frequent class.
    """

    name: str
    accuracy_pct: float
    majority_pct: float


@dataclass(frozen=True, kw_only=True)
class FolderFacts:
    """Everything that was counted in a folder.

    Attributes:
        listing: The files, with the splits that a training would use.
        layout_problem: Why a training refuses the folder, or "".
        is_drawn: The layout does not give all splits, so their images are drawn by content.
        counts: Readable images of each class in each split, zeros included.
        unreadable: Reason of the first files that cannot be read, by row.
        num_unreadable: Number of all files that cannot be read.
        unreadable_of_class: The same for each class with such files.
        sizes: "width", "height" and "shorter side" in pixels, and "bytes" of the file.
        odd: Files by property.
        lost_pct: Median share of the area of a picture outside of a center crop.
        cropped: Images that lose more than a third of their area, the longest first.
        smallest: The smallest image.
        examples: Rows of readable images of each class.
    """

    folder: Path
    listing: Listing
    layout_problem: str
    is_drawn: bool
    num_files: int
    num_images: int
    counts: Mapping[str, Mapping[str, int]]
    unreadable: Mapping[int, str]
    num_unreadable: int
    unreadable_of_class: Mapping[str, int]
    sizes: Mapping[str, Range]
    formats: Mapping[str, int]
    modes: Mapping[str, int]
    odd: Mapping[Flag, OddFiles]
    shapes: tuple[Shape, ...]
    lost_pct: float
    cropped: OddFiles
    smallest: int
    forms: tuple[Form, ...]
    copies: Copies
    examples: Mapping[str, tuple[int, ...]] = field(default_factory=dict)

    @property
    def classes(self) -> tuple[str, ...]:
        return self.listing.classes

    def class_counts(self) -> dict[str, int]:
        """Return the readable images of each class, over all splits."""
        totals = dict.fromkeys(self.classes, 0)
        for numbers in self.counts.values():
            for name, number in numbers.items():
                totals[name] += number
        return totals


def split_names(listing: Listing) -> list[str]:
    """Return the names of the splits that have images, in the order of `split_indices`."""
    return list(listing.splits) or [ALL]


def split_indices(listing: Listing) -> Rows:
    """Return the index into `split_names` of each image."""
    from reslearn.data.listing import SPLITS

    codes = listing.split_codes.astype(np.int64)
    index_of = np.zeros(len(SPLITS) + 1, np.int64)  # the last one belongs to code -1
    for index, name in enumerate(listing.splits):
        index_of[SPLITS.index(name)] = index
    return index_of[codes]


def count_images(listing: Listing, is_readable: npt.NDArray[np.bool_]) -> dict[str, dict[str, int]]:
    """Return the readable images of each class in each split."""
    indices = split_indices(listing)
    counts = {}
    for index, name in enumerate(split_names(listing)):
        labels = listing.labels[(indices == index) & is_readable]
        numbers = np.bincount(labels, minlength=len(listing.classes)).tolist()
        counts[name] = dict(zip(listing.classes, numbers, strict=True))
    return counts


def measure_sizes(table: Table) -> dict[str, Range]:
    """Return the ranges of sides and bytes of readable pictures."""
    columns = {"width": table["width"], "height": table["height"]}
    columns["shorter side"] = shorter_sides(table)
    columns["bytes"] = table["bytes"]
    ranges = {}
    for name, values in columns.items():
        if len(values):
            # The method "lower" returns measured values: sides are whole pixels.
            quantiles = np.quantile(values, (0.0, 0.1, 0.5, 1.0), method="lower")
            minimum, tenth, median, maximum = (int(value) for value in quantiles)
            ranges[name] = Range(minimum=minimum, tenth=tenth, median=median, maximum=maximum)
    return ranges


def shorter_sides(table: Table) -> npt.NDArray[np.uint32]:
    """Return the shorter side of each picture in pixels, uint32 [N]."""
    shorter: npt.NDArray[np.uint32] = np.minimum(table["width"], table["height"])
    return shorter


def count_values(column: npt.NDArray[np.bytes_]) -> dict[str, int]:
    """Return how often each text occurs, the most frequent first."""
    values, counts = np.unique(column, return_counts=True)
    order = np.argsort(-counts, kind="stable")
    return {values[index].decode(): int(counts[index]) for index in order}


def find_odd_files(table: Table) -> dict[Flag, OddFiles]:
    """Return the files with each property except being unreadable."""
    odd: dict[Flag, OddFiles] = {}
    for flag in Flag:
        rows = np.flatnonzero(table["flags"] & flag)
        if flag is not Flag.UNREADABLE and len(rows):
            odd[flag] = OddFiles(count=len(rows), rows=tuple(rows[:MAX_EXAMPLES].tolist()))
    return odd


def lost_shares(table: Table) -> npt.NDArray[np.float64]:
    """Return the share of the area outside of the largest centered square, float64 [N]."""
    width, height = table["width"].astype(np.float64), table["height"].astype(np.float64)
    longer = np.maximum(np.maximum(width, height), 1)
    shares: npt.NDArray[np.float64] = 1 - np.minimum(width, height) / longer
    return shares


def measure_shapes(lost: npt.NDArray[np.float64]) -> tuple[Shape, ...]:
    """Return the shapes that occur, from square to long."""
    ratio = 1 / np.maximum(1 - lost, 1e-6)
    shapes, low = [], 0.0
    for name, high in _SHAPES.items():
        is_member = (ratio > low) & (ratio <= high)
        if is_member.any():
            lost_pct = 100 * float(np.median(lost[is_member]))
            shapes.append(Shape(name=name, num_images=int(is_member.sum()), lost_pct=lost_pct))
        low = high
    return tuple(shapes)


def predict_from_form(table: Table, labels: Rows, num_classes: int) -> tuple[Form, ...]:
    """Return how well the form of the file alone predicts the class.

    Sizes are compared by the power of two nearest to the shorter side.
    """
    if not len(table):
        return ()
    shorter = np.maximum(shorter_sides(table), 1)
    columns = {
        "file format": table["format"],
        "color mode": table["mode"],
        "size of the picture": np.round(np.log2(shorter)),
    }
    majority = np.bincount(labels, minlength=num_classes).max() / len(labels)
    forms = []
    for name, column in columns.items():
        values, index = np.unique(column, return_inverse=True)
        if len(values) > 1:
            cells = np.bincount(index * num_classes + labels, minlength=len(values) * num_classes)
            hits = cells.reshape(len(values), num_classes).max(axis=1).sum()
            accuracy_pct = 100 * float(hits) / len(labels)
            form = Form(name=name, accuracy_pct=accuracy_pct, majority_pct=100 * float(majority))
            forms.append(form)
    return tuple(forms)


def choose_examples(
    listing: Listing, is_readable: npt.NDArray[np.bool_], per_class: int
) -> dict[str, tuple[int, ...]]:
    """Return evenly spaced readable images of each class."""
    rows = np.flatnonzero(is_readable)
    rows = rows[np.argsort(listing.labels[rows], kind="stable")]
    numbers = np.bincount(listing.labels[rows], minlength=len(listing.classes))
    ends = np.cumsum(numbers)
    examples = {}
    for index, name in enumerate(listing.classes):
        members = rows[ends[index] - numbers[index] : ends[index]]
        places = np.linspace(0, len(members) - 1, min(per_class, len(members))).astype(np.int64)
        examples[name] = tuple(members[places].tolist())
    return examples
