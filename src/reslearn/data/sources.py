"""The registry of data sources, and `load`, which accepts a registered name or a folder.

To add a source, write a function that returns an `ImageData` and add one line to `SOURCES`.
"""

import difflib
import functools
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NoReturn, Protocol, runtime_checkable

import torch
from torch import Tensor

from reslearn.data.batches import held_out_mask
from reslearn.data.cifar import (
    CIFAR10,
    CIFAR100,
    Cifar,
    download_command,
    find_layout,
    load_cifar,
)
from reslearn.data.errors import DataError, UnknownDataError
from reslearn.data.fetch import search_folders
from reslearn.data.folder import load_folder
from reslearn.data.images import ImageData, Images, fingerprint, shrink
from reslearn.data.label_file import is_label_file
from reslearn.data.listing import EXPECTED_LAYOUT


def load(
    name_or_folder: str | Path,
    *,
    data_dir: Path | None = None,
    download: bool = False,
    size_px: int | None = None,
    stream: bool | None = False,
    keep_whole: bool = False,
) -> ImageData:
    """Load a registered source, a published CIFAR folder, or a folder of images.

    Args:
        name_or_folder: A name of `names()`, a folder, or a CSV file of path and label. A folder
            given by its bare name is also searched for where the sources lie.
        data_dir: The folder to search first. RESLEARN_DATA and ~/.cache/reslearn/data follow.
        download: Download a missing source into the first of these folders that is set.
        size_px: Side of the images in pixels. None takes the default of the source.
        stream: Leave a folder of images on disk (`Files`). Registered sources stay in memory. None
            leaves a folder on disk if its images would take more than 2 GiB of memory.
        keep_whole: Keep whole training pictures in memory too, for random crops.

    Raises:
        UnknownDataError: If the name is neither a source nor a folder.
        DataError: If `data_dir` or the data are missing, if files are truncated or have another
            format, or if `size_px` is not available. For missing data the message has the
            download address.
    """
    name = str(name_or_folder)
    if is_label_file(name):
        table = Path(name).expanduser()
        return load_folder(table, size_px=size_px, stream=stream, keep_whole=keep_whole)
    if data_dir is not None and not download and not Path(data_dir).expanduser().is_dir():
        hint = ""
        if name in SOURCES and SOURCES[name].archives is not None:
            hint = f": download into it with: {download_command(name, Path(data_dir))}"
        raise DataError(f"--data-dir {data_dir}: no such folder{hint}")
    if name in SOURCES:
        source = SOURCES[name]
        folders = [] if source.archives is None else search_folders(data_dir)
        return source.load(folders, download=download, size_px=size_px)
    folder = _find_folder(name, data_dir)
    if folder is None:
        _raise_unknown(name)
    for cifar in (CIFAR10, CIFAR100):
        if find_layout(cifar, [folder]):
            return load_cifar(cifar, [folder], download=False, size_px=size_px)
    return load_folder(folder, size_px=size_px, stream=stream, keep_whole=keep_whole)


def is_image_folder(name: str, data_dir: Path | None = None) -> bool:
    """Return whether `load` would read `name` as image files: a folder, or a CSV file of paths."""
    if name in SOURCES or is_label_file(name):
        return name not in SOURCES
    folder = _find_folder(name, data_dir)
    return folder is not None and not any(
        find_layout(cifar, [folder]) for cifar in (CIFAR10, CIFAR100)
    )


def names() -> dict[str, str]:
    """Return the name and a one-line description of each source, in the order of the registry."""
    return {name: source.description for name, source in SOURCES.items()}


def load_digits(*, size_px: int | None = None) -> ImageData:
    """Load the handwritten digits that scikit-learn embeds (UCI, Alpaydin and Kaynak 1998).

    These are 1,797 real scans of 8 x 8 pixels. Their values 0 to 16 are stretched to 0 to 255. The
    test set is a fixed fifth of each class, drawn by the counter-based hash: 360 images.

    Args:
        size_px: 8, or a divisor of 8: 4 averages areas of 2 x 2 pixels.

    Raises:
        DataError: If `size_px` does not divide 8.
    """
    stretched, labels = _stretched_digits()
    pixels = shrink(stretched.unsqueeze(-1), size_px, name="digits")
    is_test = held_out_mask(labels, every=5)
    train = Images(pixels[~is_test], labels[~is_test])
    test = Images(pixels[is_test], labels[is_test])
    return ImageData(
        name="digits",
        classes=tuple(str(digit) for digit in range(10)),
        train=train,
        test=test,
        fingerprint=fingerprint([train, test]),
    )


@functools.cache  # the file is text, which is read slowly
def _stretched_digits() -> tuple[Tensor, Tensor]:
    """Return all digits, uint8 [1797, 8, 8], and their labels, int64 [1797]."""
    # Importing scikit-learn takes a second, so only this source pays for it.
    from sklearn import datasets

    bunch = datasets.load_digits()
    stretched = torch.from_numpy(bunch.images).mul(255 / 16).round().to(torch.uint8)
    return stretched, torch.from_numpy(bunch.target).to(torch.int64)


@runtime_checkable
class Load(Protocol):
    """Loads a source. A download goes to the first of `folders`; the source may lie in any."""

    def __call__(
        self, folders: list[Path], *, download: bool, size_px: int | None
    ) -> ImageData: ...


@dataclass(frozen=True, kw_only=True)
class Source:
    """A registered source.

    Attributes:
        description: A line for `reslearn list data`.
        load: Loads the source.
        archives: The archives that `reslearn download` can fetch. None if the source is embedded.
        download_megabytes: Size of the archive that is downloaded.
    """

    description: str
    load: Load
    archives: Cifar | None = None
    download_megabytes: int = 0


def _embedded(load: Callable[..., ImageData]) -> Load:
    """Adapt a function that needs neither a folder nor a network."""
    return lambda folders, *, download, size_px: load(size_px=size_px)


SOURCES: dict[str, Source] = {
    "digits": Source(
        description="1,797 scans of handwritten digits, 8 x 8 pixels, 10 classes",
        load=_embedded(load_digits),
    ),
    "cifar10": Source(
        description="60,000 photos, 32 x 32 pixels, 10 classes",
        load=partial(load_cifar, CIFAR10),
        archives=CIFAR10,
        download_megabytes=170,
    ),
    "cifar100": Source(
        description="60,000 photos, 32 x 32 pixels, 100 classes",
        load=partial(load_cifar, CIFAR100),
        archives=CIFAR100,
        download_megabytes=169,
    ),
}


def _find_folder(name: str, data_dir: Path | None) -> Path | None:
    """Return the folder `name`, or the folder of this bare name where sources lie."""
    candidates = [Path(name).expanduser()]
    if name and os.sep not in name and not candidates[0].exists():
        candidates += [folder / name for folder in search_folders(data_dir)]
    return next((folder for folder in candidates if folder.is_dir()), None)


def locate(name: str, *, run: Path, data_dir: Path | None = None) -> str:
    """Return the data that a run names, as `load` finds them from the current folder.

    A run records its folder of images as the user wrote it. From another folder, the image folder
    of this name is searched for in the parents of the run folder.

    Args:
        name: The data in the recipe of the run.
        run: The run folder.
        data_dir: As in `load`.
    """
    is_known = name in SOURCES or Path(name).is_absolute()
    if is_known or Path(name).exists() or _find_folder(name, data_dir):
        return name
    for parent in run.resolve().parents:
        path = parent / name
        is_run = (path / "recipe.json").exists()  # runs are often named after their data
        if path.exists() and not is_run:
            return str(path)
    return name


def similar_name_hint(name: str) -> str:
    """Return ", did you mean NAME?" if a registered name is similar to `name`; else ":"."""
    close = difflib.get_close_matches(name.lower().replace("-", ""), SOURCES, n=1)
    return f", did you mean {close[0]!r}?" if close else ":"


def _raise_unknown(name: str) -> NoReturn:
    sources = ", ".join(SOURCES)
    if Path(name).expanduser().exists():
        raise DataError(
            f"{name} is a file; allowed are a folder of images, a CSV file of path and label, "
            f"or one of {sources}"
        )
    if os.sep in name:
        raise UnknownDataError(
            f"no folder {name}; allowed are a folder of images or one of {sources}; "
            f"{EXPECTED_LAYOUT}"
        )
    raise UnknownDataError(
        f"no data called {name!r}{similar_name_hint(name)} there are {sources}, "
        "or any folder of images. "
        f"The folder {Path(name).expanduser().resolve()} does not exist; {EXPECTED_LAYOUT}. "
        "See what is present with: reslearn list data"
    )
