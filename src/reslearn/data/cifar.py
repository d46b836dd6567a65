"""CIFAR-10 and CIFAR-100 (Krizhevsky 2009) in their four published layouts; Sec. 4.2 uses CIFAR-10.

A folder that the user points to is judged by its structure, an archive by its published MD5. All
layouts give equal arrays, so they have equal fingerprints.
"""

import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from reslearn.data.cache import load_cached
from reslearn.data.errors import DataError
from reslearn.data.fetch import fetch, locked_folder, search_folders, unpack, verify
from reslearn.data.images import ImageData, Images, check_size, fingerprint, shrink
from reslearn.data.unpickle import read_pickle
from reslearn.progress import print_progress

SIZE_PX, CHANNELS = 32, 3
_PIXELS = CHANNELS * SIZE_PX * SIZE_PX
_WITHOUT_DOWNLOAD = (
    "the embedded digits need no download: reslearn train digits, and --data digits elsewhere"
)
_PUBLISHED = "https://www.cs.toronto.edu/~kriz/"

# Pixels [N, 3072] as published (channel, row, column), and labels [N].
Records = tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]


@dataclass(frozen=True, kw_only=True)
class CifarLayout:
    """One way in which a set is published.

    Attributes:
        folder: Top folder of the archive.
        train, test: Names of the files with images.
        classes: Name of the file with the class names.
    """

    folder: str
    archive: str
    md5: str
    train: tuple[str, ...]
    test: str
    classes: str
    read: Callable[[Path, int], Records]
    read_classes: Callable[[Path], list[str]]
    site: str = _PUBLISHED

    @property
    def address(self) -> str:
        return self.site + self.archive

    @property
    def files(self) -> tuple[str, ...]:
        return (*self.train, self.test, self.classes)


@dataclass(frozen=True, kw_only=True)
class Cifar:
    """A set and its layouts. The first layout is the one that is downloaded."""

    name: str
    num_classes: int
    layouts: tuple[CifarLayout, ...]


def load_cifar(
    cifar: Cifar, folders: Sequence[Path], *, download: bool, size_px: int | None
) -> ImageData:
    """Load the set from the first of `folders` that holds it.

    A folder holds the set if it contains its files, its published folder or its archive. With
    `download`, a missing set is downloaded into the first folder.

    Raises:
        DataError: If no folder holds the set and it cannot be downloaded, or if files are missing,
            truncated or not files of the set.
    """
    layout, folder = find_layout(cifar, folders) or obtain(cifar, folders, download=download)
    check_complete(cifar, layout, folder)
    check_size(SIZE_PX, size_px, name=cifar.name)
    label = f"{cifar.name}-{SIZE_PX if size_px is None else size_px}px"
    try:
        return load_cached(
            [folder / name for name in layout.files],
            label,
            partial(_decode, cifar, layout, folder, size_px),
        )
    except OSError as error:
        raise DataError(f"cannot read {error.filename or folder}: {error.strerror}") from None


def find_layout(cifar: Cifar, folders: Sequence[Path]) -> tuple[CifarLayout, Path] | None:
    """Find a published folder, complete or not, or the files of a layout directly in `folders`.

    Returns:
        The layout and the folder of its files, or None.
    """
    for folder in folders:
        for layout in cifar.layouts:
            if (folder / layout.folder).is_dir():
                return layout, folder / layout.folder
            has_train = any((folder / name).is_file() for name in layout.train)
            if has_train and (folder / layout.test).is_file():
                return layout, folder
    return None


def check_complete(cifar: Cifar, layout: CifarLayout, folder: Path) -> None:
    """Raise DataError unless `folder` holds all files of the layout."""
    missing = [name for name in layout.files if not (folder / name).is_file()]
    if missing:
        command = download_command(cifar.name, folder.parent)
        raise DataError(
            f"{folder} lacks {', '.join(missing)}: they are in {layout.address}; to download "
            f"everything again, remove the folder and run: {command}"
        )


def download_command(name: str, folder: Path) -> str:
    """Return the command that downloads a set into `folder`."""
    is_default = folder == search_folders()[0]
    option = "" if is_default else f" --data-dir {shlex.quote(str(folder))}"
    return f"reslearn download {name}{option}"


def obtain(cifar: Cifar, folders: Sequence[Path], *, download: bool) -> tuple[CifarLayout, Path]:
    """Unpack an archive from one of the folders, or download it into the first.

    Returns:
        The layout and the folder of its files.

    Raises:
        DataError: If there is no archive and it is not or cannot be downloaded, or if it is
            damaged.
    """
    for folder in folders:
        for layout in cifar.layouts:
            if (folder / layout.archive).is_file():
                return _unpack(layout, folder, download=False)
    layout, folder = cifar.layouts[0], folders[0]
    if not download:
        searched = " or ".join(str(path) for path in dict.fromkeys(folders))
        raise DataError(
            f"{cifar.name} is not in {searched}: download it with: "
            f"{download_command(cifar.name, folder)}, or put {layout.address} (packed or "
            f"unpacked) into {folder}; {_WITHOUT_DOWNLOAD}"
        )
    return _unpack(layout, folder, download=True)


def _unpack(layout: CifarLayout, folder: Path, *, download: bool) -> tuple[CifarLayout, Path]:
    with locked_folder(folder):
        # Another process may have unpacked it while this one waited.
        if not (folder / layout.folder).is_dir():
            archive = folder / layout.archive
            if download and not archive.is_file():
                print_progress(f"downloading {layout.address} to {folder}")
                try:
                    fetch(layout.address, archive, md5=layout.md5)
                except DataError as error:
                    raise DataError(f"{error}; {_WITHOUT_DOWNLOAD}") from None
            verify(archive, layout.md5)
            unpack(archive, layout.folder)
    return layout, folder / layout.folder


def _decode(cifar: Cifar, layout: CifarLayout, folder: Path, size_px: int | None) -> ImageData:
    train_records = [layout.read(folder / name, cifar.num_classes) for name in layout.train]
    train = _images(train_records, size_px, cifar.name)
    test = _images([layout.read(folder / layout.test, cifar.num_classes)], size_px, cifar.name)
    classes = tuple(layout.read_classes(folder / layout.classes))
    if len(classes) != cifar.num_classes:
        raise DataError(
            f"{folder / layout.classes} names {len(classes)} classes; "
            f"{cifar.name} has {cifar.num_classes}"
        )
    return ImageData(
        name=cifar.name,
        classes=classes,
        train=train,
        test=test,
        fingerprint=fingerprint((train, test)),
    )


def _images(parts: list[Records], size_px: int | None, name: str) -> Images:
    """Convert [N, 3072] as published to [N, H, W, C]. Empties `parts` on the way to save memory."""
    size = SIZE_PX if size_px is None else size_px
    labels = np.concatenate([part_labels for _, part_labels in parts])
    pixels = np.empty((len(labels), size, size, CHANNELS), np.uint8)
    start = 0
    while parts:
        planes = parts.pop(0)[0].reshape(-1, CHANNELS, SIZE_PX, SIZE_PX)
        target = pixels[start : start + len(planes)]
        full_size = target
        if size != SIZE_PX:
            full_size = np.empty((len(planes), SIZE_PX, SIZE_PX, CHANNELS), np.uint8)
        # Copying plane by plane takes a third of the time of a transposition.
        for channel in range(CHANNELS):
            full_size[..., channel] = planes[:, channel]
        if full_size is not target:
            target[:] = shrink(torch.from_numpy(full_size), size, name=name).numpy()
        start += len(planes)
    return Images(torch.from_numpy(pixels), torch.from_numpy(labels))


def _python_reader(label_key: str) -> Callable[[Path, int], Records]:
    def read(path: Path, num_classes: int) -> Records:
        batch = read_pickle(path)
        pixels: Any = batch.get("data")
        labels: Any = batch.get(label_key)
        is_array = isinstance(pixels, np.ndarray) and pixels.ndim == 2
        if not (is_array and pixels.shape[1] == _PIXELS and len(pixels)):
            raise DataError(
                f"{path} is not a published data file: `data` is not uint8 [images, {_PIXELS}]"
            )
        is_list = isinstance(labels, list) and len(labels) == len(pixels)
        if not (is_list and all(type(label) is int for label in labels)):
            raise DataError(
                f"{path} is not a published data file: "
                f"`{label_key}` is not a list of {len(pixels)} numbers"
            )
        return _checked_records(path, np.ascontiguousarray(pixels), labels, num_classes)

    return read


def _python_class_reader(key: str) -> Callable[[Path], list[str]]:
    def read(path: Path) -> list[str]:
        names = read_pickle(path).get(key)
        if not (isinstance(names, list) and all(isinstance(name, bytes | str) for name in names)):
            raise DataError(f"{path} is not a published data file: `{key}` is not a list of names")
        return [name.decode("latin-1") if isinstance(name, bytes) else name for name in names]

    return read


def _binary_reader(label_bytes: int) -> Callable[[Path, int], Records]:
    """Return a reader of records of `label_bytes`, the last of them the fine label, and pixels."""

    def read(path: Path, num_classes: int) -> Records:
        record_bytes = label_bytes + _PIXELS
        raw = np.fromfile(path, dtype=np.uint8)
        if len(raw) == 0 or len(raw) % record_bytes:
            raise DataError(
                f"{path} is truncated or not a published data file: its {len(raw)} bytes are not "
                f"a whole number of records of {record_bytes}"
            )
        records = raw.reshape(-1, record_bytes)
        pixels = np.ascontiguousarray(records[:, label_bytes:])
        return _checked_records(path, pixels, records[:, label_bytes - 1], num_classes)

    return read


def _checked_records(
    path: Path, pixels: npt.NDArray[np.uint8], labels: Any, num_classes: int
) -> Records:
    try:
        array = np.asarray(labels, dtype=np.int64)
    except OverflowError:
        raise DataError(f"{path} has labels that are not class numbers") from None
    if array.min() < 0 or array.max() >= num_classes:
        raise DataError(
            f"{path} has labels {array.min()} to {array.max()}; allowed are 0 to {num_classes - 1}"
        )
    return pixels, array


def _read_text_classes(path: Path) -> list[str]:
    return path.read_text(encoding="latin-1").split()


CIFAR10 = Cifar(
    name="cifar10",
    num_classes=10,
    layouts=(
        CifarLayout(
            folder="cifar-10-batches-py",
            archive="cifar-10-python.tar.gz",
            md5="c58f30108f718f92721af3b95e74349a",
            train=tuple(f"data_batch_{part}" for part in range(1, 6)),
            test="test_batch",
            classes="batches.meta",
            read=_python_reader("labels"),
            read_classes=_python_class_reader("label_names"),
        ),
        CifarLayout(
            folder="cifar-10-batches-bin",
            archive="cifar-10-binary.tar.gz",
            md5="c32a1d4ab5d03f1284b67883e8d87530",
            train=tuple(f"data_batch_{part}.bin" for part in range(1, 6)),
            test="test_batch.bin",
            classes="batches.meta.txt",
            read=_binary_reader(1),
            read_classes=_read_text_classes,
        ),
    ),
)

CIFAR100 = Cifar(
    name="cifar100",
    num_classes=100,
    layouts=(
        CifarLayout(
            folder="cifar-100-python",
            archive="cifar-100-python.tar.gz",
            md5="eb9058c3a382ffc7106e4002c42a8d85",
            train=("train",),
            test="test",
            classes="meta",
            read=_python_reader("fine_labels"),
            read_classes=_python_class_reader("fine_label_names"),
        ),
        CifarLayout(
            folder="cifar-100-binary",
            archive="cifar-100-binary.tar.gz",
            md5="03b5dce01913d631647c71ecec9e9cb8",
            train=("train.bin",),
            test="test.bin",
            classes="fine_label_names.txt",
            read=_binary_reader(2),
            read_classes=_read_text_classes,
        ),
    ),
)
