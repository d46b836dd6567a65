"""CIFAR-10 and CIFAR-100 (Krizhevsky 2009) in their four published layouts; Sec. 4.2 trains on the first.

A folder that a user points to is judged by its structure, an archive by its published md5. All layouts give equal arrays, so equal
fingerprints.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from reslearn.data.dataset import ImageData
from reslearn.data.errors import DataError
from reslearn.data.fetch import alone, fetch, unpack, verify
from reslearn.data.images import Images, check_size, fingerprint, shrink
from reslearn.data.mapped import mapped
from reslearn.data.unpickle import read_pickle

SIZE_PX, CHANNELS = 32, 3
_PIXELS = CHANNELS * SIZE_PX * SIZE_PX
_PUBLISHED = "https://www.cs.toronto.edu/~kriz/"

Part = tuple[
    npt.NDArray[np.uint8], npt.NDArray[np.int64]
]  # pixels [N, 3072] as published (channel, row, column), labels [N]


@dataclass(frozen=True, kw_only=True)
class Layout:
    """One way in which a set is published."""

    folder: str  # the archive's top folder
    archive: str
    md5: str
    train: tuple[str, ...]
    test: str
    classes: str  # the file that names them
    read: Callable[[Path, int], Part]
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
    """A set: the layout that is downloaded comes first."""

    name: str
    num_classes: int
    layouts: tuple[Layout, ...]


def load_cifar(
    cifar: Cifar, folders: Sequence[Path], *, download: bool, size_px: int | None
) -> ImageData:
    """The first of `folders` that holds the set, itself or in its published folder or archive; else download into the first.

    Raises:
        DataError: where it is in none and cannot be had, or files are missing, truncated or foreign.
    """
    found = find(cifar, folders) or _obtain(cifar, folders, download=download)
    layout, folder = found
    missing = [name for name in layout.files if not (folder / name).is_file()]
    if missing:
        raise DataError(f"{folder} lacks {', '.join(missing)}: they are in {layout.address}")
    check_size(SIZE_PX, size_px, name=cifar.name)
    label = f"{cifar.name}-{SIZE_PX if size_px is None else size_px}px"
    try:
        return mapped(
            [folder / name for name in layout.files],
            label,
            partial(_decode, cifar, layout, folder, size_px),
        )
    except OSError as error:
        raise DataError(f"cannot read {error.filename or folder}: {error.strerror}") from None


def _decode(cifar: Cifar, layout: Layout, folder: Path, size_px: int | None) -> ImageData:
    train = _images(
        [layout.read(folder / name, cifar.num_classes) for name in layout.train],
        size_px,
        cifar.name,
    )
    test = _images([layout.read(folder / layout.test, cifar.num_classes)], size_px, cifar.name)
    classes = tuple(layout.read_classes(folder / layout.classes))
    if len(classes) != cifar.num_classes:
        raise DataError(
            f"{folder / layout.classes} names {len(classes)} classes; {cifar.name} has {cifar.num_classes}"
        )
    return ImageData(
        name=cifar.name,
        classes=classes,
        train=train,
        test=test,
        fingerprint=fingerprint((train, test)),
    )


def find(cifar: Cifar, folders: Sequence[Path]) -> tuple[Layout, Path] | None:
    """The layout and its folder: a published folder, whole or not, or one whose files lie in `folders` directly."""
    for folder in folders:
        for layout in cifar.layouts:
            if (folder / layout.folder).is_dir():
                return layout, folder / layout.folder
            if (folder / layout.test).is_file() and any(
                (folder / name).is_file() for name in layout.train
            ):
                return layout, folder
    return None


def _obtain(cifar: Cifar, folders: Sequence[Path], *, download: bool) -> tuple[Layout, Path]:
    """Unpack an archive that lies in one of the folders, or download it into the first."""
    for folder in folders:
        for layout in cifar.layouts:
            if (folder / layout.archive).is_file():
                return _unpacked(cifar, layout, folder, download=False)
    layout, folder = cifar.layouts[0], folders[0]
    if not download:
        looked = " or ".join(str(place) for place in dict.fromkeys(folders))
        fetch = f"or fetch it: reslearn train {cifar.name} --download"  # other commands have no such option
        raise DataError(
            f"{cifar.name} is not in {looked}: put {layout.address} (packed or unpacked) into {folder}, {fetch}"
        )
    return _unpacked(cifar, layout, folder, download=True)


def _unpacked(cifar: Cifar, layout: Layout, folder: Path, *, download: bool) -> tuple[Layout, Path]:
    with alone(folder):
        if not (folder / layout.folder).is_dir():  # another process may have been faster
            archive = folder / layout.archive
            if download and not archive.is_file():
                fetch(layout.address, archive, md5=layout.md5)
            verify(archive, layout.md5)
            unpack(archive, layout.folder)
    return layout, folder / layout.folder


def _images(parts: list[Part], size_px: int | None, name: str) -> Images:
    """[N, 3072] as published to [N, H, W, C]; each part is let go as soon as it is in."""
    size = SIZE_PX if size_px is None else size_px
    labels = np.concatenate([part_labels for _, part_labels in parts])
    done = 0
    pixels = np.empty((len(labels), size, size, CHANNELS), np.uint8)
    while parts:
        planes = parts.pop(0)[0].reshape(-1, CHANNELS, SIZE_PX, SIZE_PX)
        place = pixels[done : done + len(planes)]
        whole = (
            place
            if size == SIZE_PX
            else np.empty((len(planes), SIZE_PX, SIZE_PX, CHANNELS), np.uint8)
        )
        for channel in range(
            CHANNELS
        ):  # a copy by planes takes a third of the time of one by transposition
            whole[..., channel] = planes[:, channel]
        if whole is not place:
            place[:] = shrink(torch.from_numpy(whole), size, name=name).numpy()
        done += len(planes)
    return Images(torch.from_numpy(pixels), torch.from_numpy(labels))


def _python(label_key: str) -> Callable[[Path, int], Part]:
    def read(path: Path, num_classes: int) -> Part:
        batch = read_pickle(path)
        data, labels = batch.get("data"), batch.get(label_key)
        if not (
            isinstance(data, np.ndarray)
            and data.ndim == 2
            and data.shape[1] == _PIXELS
            and len(data)
        ):
            raise DataError(
                f"{path} is no published data file: `data` is not uint8 [images, {_PIXELS}]"
            )
        if not (
            isinstance(labels, list)
            and len(labels) == len(data)
            and all(type(label) is int for label in labels)
        ):
            raise DataError(
                f"{path} is no published data file: `{label_key}` is not a list of {len(data)} numbers"
            )
        return _checked(path, np.ascontiguousarray(data), labels, num_classes)

    return read


def _python_classes(key: str) -> Callable[[Path], list[str]]:
    def read(path: Path) -> list[str]:
        names = read_pickle(path).get(key)
        if not (isinstance(names, list) and all(isinstance(name, bytes | str) for name in names)):
            raise DataError(f"{path} is no published data file: `{key}` is not a list of names")
        return [name.decode("latin-1") if isinstance(name, bytes) else name for name in names]

    return read


def _binary(label_bytes: int) -> Callable[[Path, int], Part]:
    """Records of `label_bytes` (the last is the fine label) and 3072 pixels."""

    def read(path: Path, num_classes: int) -> Part:
        record = label_bytes + _PIXELS
        raw = np.fromfile(path, dtype=np.uint8)
        if len(raw) == 0 or len(raw) % record:
            raise DataError(
                f"{path} is truncated or no published data file: {len(raw)} bytes are no whole number of records of {record}"
            )
        records = raw.reshape(-1, record)
        return _checked(
            path,
            np.ascontiguousarray(records[:, label_bytes:]),
            records[:, label_bytes - 1],
            num_classes,
        )

    return read


def _checked(path: Path, pixels: npt.NDArray[np.uint8], labels: Any, num_classes: int) -> Part:
    try:
        array = np.asarray(labels, dtype=np.int64)
    except OverflowError:
        raise DataError(f"{path} has labels that are no class numbers") from None
    if array.min() < 0 or array.max() >= num_classes:
        raise DataError(
            f"{path} has labels {array.min()} to {array.max()}; allowed are 0 to {num_classes - 1}"
        )
    return pixels, array


def _text_classes(path: Path) -> list[str]:
    return path.read_text(encoding="latin-1").split()


CIFAR10 = Cifar(
    name="cifar10",
    num_classes=10,
    layouts=(
        Layout(
            folder="cifar-10-batches-py",
            archive="cifar-10-python.tar.gz",
            md5="c58f30108f718f92721af3b95e74349a",
            train=tuple(f"data_batch_{part}" for part in range(1, 6)),
            test="test_batch",
            classes="batches.meta",
            read=_python("labels"),
            read_classes=_python_classes("label_names"),
        ),
        Layout(
            folder="cifar-10-batches-bin",
            archive="cifar-10-binary.tar.gz",
            md5="c32a1d4ab5d03f1284b67883e8d87530",
            train=tuple(f"data_batch_{part}.bin" for part in range(1, 6)),
            test="test_batch.bin",
            classes="batches.meta.txt",
            read=_binary(1),
            read_classes=_text_classes,
        ),
    ),
)

CIFAR100 = Cifar(
    name="cifar100",
    num_classes=100,
    layouts=(
        Layout(
            folder="cifar-100-python",
            archive="cifar-100-python.tar.gz",
            md5="eb9058c3a382ffc7106e4002c42a8d85",
            train=("train",),
            test="test",
            classes="meta",
            read=_python("fine_labels"),
            read_classes=_python_classes("fine_label_names"),
        ),
        Layout(
            folder="cifar-100-binary",
            archive="cifar-100-binary.tar.gz",
            md5="03b5dce01913d631647c71ecec9e9cb8",
            train=("train.bin",),
            test="test.bin",
            classes="fine_label_names.txt",
            read=_binary(2),
            read_classes=_text_classes,
        ),
    ),
)
