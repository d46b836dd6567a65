"""The registry of data sources and `load`, which takes a registered name or a folder.

A new source is a function that returns a `ImageData` and one line in `SOURCES`.
"""

import difflib
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol, runtime_checkable

from reslearn.data.cifar import CIFAR10, CIFAR100, Cifar, find, load_cifar
from reslearn.data.dataset import ImageData
from reslearn.data.digits import load_digits
from reslearn.data.errors import DataError, UnknownData
from reslearn.data.folder import load_folder


@runtime_checkable
class Load(Protocol):
    """How a source is loaded: where to look (first the folder that a download goes to), whether to download, the size wanted."""

    def __call__(
        self, folders: list[Path], *, download: bool, size_px: int | None
    ) -> ImageData: ...


@dataclass(frozen=True, kw_only=True)
class Source:
    """A line for `reslearn list data`, and how to load it."""

    description: str
    load: Load


def _embedded(load: Callable[..., ImageData]) -> Load:
    """A source that needs neither folder nor network."""
    return lambda folders, *, download, size_px: load(size_px=size_px)


_CIFAR: dict[str, Cifar] = {cifar.name: cifar for cifar in (CIFAR10, CIFAR100)}

SOURCES: dict[str, Source] = {
    "digits": Source(
        description="1,797 scans of handwritten digits, 8 x 8 pixels, 10 classes; embedded",
        load=_embedded(load_digits),
    ),
    "cifar10": Source(
        description="60,000 photos, 32 x 32 pixels, 10 classes; 170 MB to download",
        load=partial(load_cifar, CIFAR10),
    ),
    "cifar100": Source(
        description="60,000 photos, 32 x 32 pixels, 100 classes; 170 MB to download",
        load=partial(load_cifar, CIFAR100),
    ),
}


def names() -> dict[str, str]:
    """Each source's name and a line about it, in the order of the registry."""
    return {name: source.description for name, source in SOURCES.items()}


def load(
    name_or_folder: str | Path,
    *,
    data_dir: Path | None = None,
    download: bool = False,
    size_px: int | None = None,
    stream: bool = False,
) -> ImageData:
    """A registered source by name, a published CIFAR folder, or a folder of images.

    Sources with files, and folders given by a bare name, are looked for in `data_dir`, RESLEARN_DATA and ~/.cache/reslearn/data, in this
    order; a download goes to the first of these that is given. `stream` leaves a folder of images on disk (`Files`); the registered
    sources are in memory all the same.

    Raises:
        UnknownData: where the name is neither a source nor a folder.
        DataError: where `data_dir` or data are missing (then with the address), truncated or foreign, or the size is not to be had.
    """
    name = str(name_or_folder)
    if data_dir is not None and not download and not Path(data_dir).expanduser().is_dir():
        raise DataError(f"--data-dir {data_dir}: no such folder")
    if name in SOURCES:
        return SOURCES[name].load(_data_folders(data_dir), download=download, size_px=size_px)
    folder = Path(name).expanduser()
    if not folder.exists() and os.sep not in name and name:
        folder = next(
            (inside for base in _data_folders(data_dir) if (inside := base / name).is_dir()), folder
        )
    if folder.is_dir():
        for cifar in _CIFAR.values():
            if find(cifar, [folder]):
                return load_cifar(cifar, [folder], download=False, size_px=size_px)
        return load_folder(folder, size_px=size_px, stream=stream)
    if folder.exists():
        raise DataError(
            f"{name} is a file; allowed are a folder of images or one of {', '.join(SOURCES)}"
        )
    if os.sep in name:
        raise UnknownData(
            f"no folder {name}; allowed are a folder of images or one of {', '.join(SOURCES)}"
        )
    close = difflib.get_close_matches(name.lower().replace("-", ""), SOURCES, n=1)
    hint = f", did you mean {close[0]!r}?" if close else ":"
    raise UnknownData(
        f"no data called {name!r}{hint} there are {', '.join(SOURCES)}, or any folder of images"
    )


def _data_folders(data_dir: Path | None) -> list[Path]:
    environment = os.environ.get("RESLEARN_DATA")
    given = [Path(folder).expanduser() for folder in (data_dir, environment) if folder]
    return [*given, Path.home() / ".cache" / "reslearn" / "data"]
