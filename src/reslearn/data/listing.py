"""List a folder of images once: its layout, its classes, its images and the files left out.

Layouts:

- split folders: train/, validation/ (or val/, valid/) and test/, with a folder per class in each;
- class folders: a folder per class;
- csv: a table of path and label, with an optional column for the split (`label_file`).

A listing holds facts only. `folder.py` decides what can be trained on.
"""

from __future__ import annotations

import os
import re
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from reslearn.data.errors import DataError
from reslearn.data.label_file import find_label_file, read_label_file
from reslearn.data.walk import (
    LeftOut,
    Omissions,
    entries,
    folder_identity,
    is_folder,
    is_picture,
    pictures_below,
)
from reslearn.progress import progress_bar

Layout = Literal["split folders", "class folders", "csv"]
SPLITS = ("train", "validation", "test")
SPLIT_NAMES = {
    "train": "train",
    "validation": "validation",
    "val": "validation",
    "valid": "validation",
    "test": "test",
}
EXPECTED_LAYOUT = (
    "use class folders (cat/1.jpg, dog/2.jpg), split folders (train/cat/1.jpg, "
    "validation/..., test/...), or a CSV file with the columns path and label"
)
_NO_SPLIT = -1
_FILES_PER_STEP = 1_000  # of the progress bar
_MAX_SUBFOLDERS = 100  # names of subfolders that are remembered of each class


class ImageRecord(NamedTuple):
    """One image of a listing.

    Attributes:
        split: None if the layout does not give it; `assign_splits` draws it.
        num_bytes: Size of the file; 0 for a link or a path that leads nowhere.
    """

    path: Path
    class_name: str
    split: str | None
    num_bytes: int


@dataclass(frozen=True, kw_only=True, eq=False)
class Listing:
    """The images of a folder, about 60 bytes each beside their names.

    Images are in the order of their splits, then classes, then names; of a CSV file in its order.

    Attributes:
        folder: Names are relative to it.
        classes: The names of all classes with images, in any split, in alphabetical order.
        names: All names, without separators.
        ends: Position in `names` where each name ends.
        labels: Index into `classes` of each image.
        split_codes: Index into `SPLITS` of each image, or -1 if the layout does not give it.
        num_bytes: Size of each file.
        split_folders: The folder of each split, as "val" for "validation".
        left_out: Files that are not read, by class and suffix.
        vanished: Classes whose folder has files, but no picture that can be read here.
        loose: Pictures outside of class folders, by the folder that holds them ("" is `folder`).
        junk: Number of ignored files and folders that systems leave behind, by name.
        link_circles: Links to a folder that contains them or was already listed. None is followed.
        unused_folders: Folders beside split folders, which are not read.
        subfolders: For classes whose pictures all lie in subfolders, the names of some of these.
        label_file: The CSV file.
    """

    folder: Path
    layout: Layout
    classes: tuple[str, ...]
    names: bytes
    ends: npt.NDArray[np.int64]
    labels: npt.NDArray[np.int64]
    split_codes: npt.NDArray[np.int8]
    num_bytes: npt.NDArray[np.int64]
    split_folders: dict[str, str] = field(default_factory=dict)
    left_out: tuple[LeftOut, ...] = ()
    vanished: tuple[str, ...] = ()
    loose: dict[str, int] = field(default_factory=dict)
    junk: dict[str, int] = field(default_factory=dict)
    link_circles: tuple[Path, ...] = ()
    unused_folders: tuple[str, ...] = ()
    subfolders: dict[str, frozenset[str]] = field(default_factory=dict)
    label_file: Path | None = None

    def __len__(self) -> int:
        return len(self.ends)

    def name(self, index: int) -> str:
        """Return the path of image `index` relative to `folder`."""
        start = int(self.ends[index - 1]) if index else 0
        return os.fsdecode(self.names[start : int(self.ends[index])])

    def __getitem__(self, index: int) -> ImageRecord:
        """Return image `index`, counted from 0, with its path."""
        if not 0 <= index < len(self):
            raise IndexError(f"image {index} of {len(self)}")
        code = int(self.split_codes[index])
        return ImageRecord(
            path=self.folder / self.name(index),
            class_name=self.classes[int(self.labels[index])],
            split=None if code == _NO_SPLIT else SPLITS[code],
            num_bytes=int(self.num_bytes[index]),
        )

    def __iter__(self) -> Iterator[ImageRecord]:
        return (self[index] for index in range(len(self)))

    @property
    def splits(self) -> tuple[str, ...]:
        """Return the splits that the layout names and that have images."""
        return tuple(name for code, name in enumerate(SPLITS) if (self.split_codes == code).any())

    def counts(self) -> dict[str | None, dict[str, int]]:
        """Return the number of images of each class in each split, zeros included."""
        splits = (*enumerate(SPLITS), (_NO_SPLIT, None))
        table: dict[str | None, dict[str, int]] = {}
        for code, split in splits:
            labels = self.labels[self.split_codes == code]
            if len(labels):
                numbers = np.bincount(labels, minlength=len(self.classes)).tolist()
                table[split] = dict(zip(self.classes, numbers, strict=True))
        return table


def list_images(folder: str | Path) -> Listing:
    """Walk a folder of images once, or read a CSV file of path and label.

    A folder with fewer than two classes and with one CSV file (or labels.csv, metadata.csv) has the
    layout "csv".

    Raises:
        DataError: If it cannot be read, if it has no pictures, if two folders are of one split, or
            if the CSV file is not a table of path and label.
    """
    path = Path(folder)
    if path.is_file():
        return _list_table(path)
    omissions = Omissions()
    with progress_bar(f"listing {path}", None, after_seconds=2.0) as advance:
        collector = _Collector(path, omissions, advance)
        unused = collector.walk()
    if len(collector.class_names) < 2:
        label_file = find_label_file(path)
        if label_file is not None:
            return _list_table(label_file)
    if not collector.ends:
        raise DataError(_nothing_found(path, collector))
    return collector.listing(unused)


def has_imagenet_names(classes: Iterable[str]) -> bool:
    """Return whether all classes have names of ILSVRC2012, as n01440764."""
    return all(re.fullmatch(r"n\d{8}", name) for name in classes)


class _Collector:
    """Collects the images of a folder while it is walked."""

    def __init__(self, folder: Path, omissions: Omissions, advance: Callable[[int], None]) -> None:
        self.folder = folder
        self.num_prefix = len(os.path.join(folder, ""))  # characters before a relative name
        self.omissions = omissions
        self.advance = advance
        self.names = bytearray()
        self.ends = array("q")
        self.labels = array("q")  # in the order in which classes were met
        self.split_codes = array("b")
        self.num_bytes = array("q")
        self.class_names: dict[str, int] = {}
        self.all_folders: dict[str, None] = {}
        self.loose: Counter[str] = Counter()
        self.split_folders: dict[str, str] = {}
        self.subfolders: dict[str, set[str] | None] = {}

    def walk(self) -> tuple[str, ...]:
        """Collect everything. Return the folders that are not read."""
        top_entries = entries(self.folder, self.omissions)
        splits, unused, files = _find_splits(self.folder, top_entries, self.omissions)
        if "train" not in splits:
            self.collect(top_entries, _NO_SPLIT, self.folder)
            return ()
        for code, split in enumerate(SPLITS):
            if split in splits:
                entry = splits[split]
                self.split_folders[split] = entry.name
                self.collect(entries(entry.path, self.omissions), code, Path(entry.path))
        for entry in files:
            self._add_loose(entry, "")
        return tuple(unused)

    def collect(self, top_entries: Iterable[os.DirEntry[str]], code: int, parent: Path) -> None:
        """Collect the class folders of a split."""
        holder = "" if code == _NO_SPLIT else parent.name
        ancestors = frozenset((folder_identity(self.folder), folder_identity(parent)))
        for entry in top_entries:
            if not is_folder(entry, self.omissions):
                self._add_loose(entry, holder)
            elif folder_identity(entry.path) in ancestors:
                self.omissions.link_circles[Path(entry.path)] = None
            else:
                self.all_folders[entry.name] = None
                for picture in pictures_below(entry.path, entry.name, self.omissions, ancestors):
                    self.add(picture, entry, code)

    def add(self, picture: os.DirEntry[str], class_folder: os.DirEntry[str], code: int) -> None:
        class_name = class_folder.name
        # os.path.relpath would take most of the time of a walk.
        self.names += os.fsencode(picture.path[self.num_prefix :])
        self.ends.append(len(self.names))
        if len(self.ends) % _FILES_PER_STEP == 0:
            self.advance(_FILES_PER_STEP)
        self.labels.append(self.class_names.setdefault(class_name, len(self.class_names)))
        self.split_codes.append(code)
        try:
            size = picture.stat().st_size
        except OSError:  # a link that leads nowhere
            size = 0
        self.num_bytes.append(size)
        first_part, separator, _ = picture.path[len(class_folder.path) + 1 :].partition(os.sep)
        names = self.subfolders.setdefault(class_name, set())
        if not separator:
            self.subfolders[class_name] = None  # has a picture of its own
        elif names is not None and len(names) < _MAX_SUBFOLDERS:
            names.add(first_part)

    def _add_loose(self, entry: os.DirEntry[str], holder: str) -> None:
        if is_picture(entry):
            self.loose[holder] += 1
        else:
            self.omissions.leave_out("", entry.path)

    def listing(self, unused_folders: tuple[str, ...]) -> Listing:
        classes = sorted(self.class_names)
        index_of = {name: index for index, name in enumerate(classes)}
        met = [index_of[name] for name in self.class_names]
        suspects = {group.class_name for group in self.omissions.left_out_files()}
        vanished = [name for name in self.all_folders if name not in self.class_names]
        return Listing(
            folder=self.folder,
            layout="split folders" if self.split_folders else "class folders",
            classes=tuple(classes),
            names=bytes(self.names),
            ends=np.array(self.ends, np.int64),
            labels=np.array(met, np.int64)[np.array(self.labels, np.int64)],
            split_codes=np.array(self.split_codes, np.int8),
            num_bytes=np.array(self.num_bytes, np.int64),
            split_folders=self.split_folders,
            left_out=self.omissions.left_out_files(),
            vanished=tuple(sorted(name for name in vanished if name in suspects)),
            loose=dict(self.loose),
            junk=dict(self.omissions.junk),
            link_circles=tuple(self.omissions.link_circles),
            unused_folders=unused_folders,
            subfolders={name: frozenset(names) for name, names in self.subfolders.items() if names},
        )


def _find_splits(
    folder: Path, top_entries: list[os.DirEntry[str]], omissions: Omissions
) -> tuple[dict[str, os.DirEntry[str]], list[str], list[os.DirEntry[str]]]:
    """Return the folder of each split, the names of the other folders, and the files."""
    splits: dict[str, os.DirEntry[str]] = {}
    unused, files = [], []
    for entry in top_entries:
        if not is_folder(entry, omissions):
            files.append(entry)
            continue
        split = SPLIT_NAMES.get(entry.name.lower())
        if split is None:
            unused.append(entry.name)
        elif split in splits:
            raise DataError(
                f"{folder} has {splits[split].name}/ and {entry.name}/, "
                f"both for {split} images: keep one of them"
            )
        else:
            splits[split] = entry
    return splits, unused, files


def _nothing_found(folder: Path, collector: _Collector) -> str:
    """Return the message for a folder without pictures in class folders."""
    loose = sum(collector.loose.values())
    left_out = collector.omissions.left_out_files()
    if loose:
        reason = f"{folder} has {loose:,} pictures, but no class folder with pictures"
    elif left_out:
        by_suffix: Counter[str] = Counter()
        for group in left_out:
            by_suffix[group.suffix or "no suffix"] += group.count
        counts = ", ".join(f"{suffix} {count:,}" for suffix, count in by_suffix.most_common(5))
        reason = f"{folder} has no picture that can be read here, only other files ({counts})"
    else:
        reason = f"{folder} has no pictures"
    return f"{reason}: {EXPECTED_LAYOUT}"


def _list_table(path: Path) -> Listing:
    """List the images of a CSV file. Paths are relative to the folder of the file."""
    names, num_bytes = bytearray(), array("q")
    ends, labels, codes = array("q"), array("q"), array("b")
    class_names: dict[str, int] = {}
    for row in read_label_file(path):
        names += os.fsencode(row.path)
        ends.append(len(names))
        labels.append(class_names.setdefault(row.label, len(class_names)))
        codes.append(_NO_SPLIT if row.split is None else SPLITS.index(row.split))
        num_bytes.append(row.num_bytes)
    classes = sorted(class_names)
    index_of = {name: index for index, name in enumerate(classes)}
    met = np.array([index_of[name] for name in class_names], np.int64)
    return Listing(
        folder=path.parent,
        layout="csv",
        classes=tuple(classes),
        names=bytes(names),
        ends=np.array(ends, np.int64),
        labels=met[np.array(labels, np.int64)],
        split_codes=np.array(codes, np.int8),
        num_bytes=np.array(num_bytes, np.int64),
        label_file=path,
    )
