"""Download registered data sets without training, and say which of them this machine has."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from reslearn.data.cifar import Cifar, check_complete, find_layout, obtain
from reslearn.data.errors import UnknownDataError
from reslearn.data.fetch import search_folders
from reslearn.data.sources import SOURCES, similar_name_hint

State = Literal["embedded", "present", "incomplete", "packed", "missing"]


@dataclass(frozen=True, kw_only=True)
class DataStatus:
    """What this machine has of a data set.

    Attributes:
        name: Its registered name.
        state: "embedded" if it is part of an installed package, "present" with all its files,
            "incomplete" without some of them, "packed" as an archive, or "missing".
        folder: The folder of its files or of its archive. None if there is neither.
        num_bytes: Size of the files, of the archive, or of the download of a missing set.
        was_downloaded: Whether `download` downloaded it now.
    """

    name: str
    state: State
    folder: Path | None = None
    num_bytes: int = 0
    was_downloaded: bool = False


def download(name: str, *, data_dir: Path | None = None) -> DataStatus:
    """Download a data set, verify its digest and unpack it. A set that is present is not changed.

    An archive that lies in the folder is unpacked. An interrupted download is resumed.

    Args:
        name: A registered name.
        data_dir: Where the set belongs. By default it may lie where `load` searches, and is
            downloaded into the first of these folders: RESLEARN_DATA, or ~/.cache/reslearn/data.

    Raises:
        UnknownDataError: If the name is not registered.
        DataError: If the set cannot be downloaded or written, or if a folder holds a part of it.
    """
    archives = _archives(name)
    if archives is None:
        return DataStatus(name=name, state="embedded")
    folders = search_folders() if data_dir is None else [data_dir.expanduser()]
    earlier = _status(archives, folders)
    if earlier.state in ("present", "incomplete"):
        layout, folder = find_layout(archives, folders) or obtain(archives, folders, download=False)
        check_complete(archives, layout, folder)
        return earlier
    obtain(archives, folders, download=True)
    return replace(_status(archives, folders), was_downloaded=earlier.state == "missing")


def status(name: str, *, data_dir: Path | None = None) -> DataStatus:
    """Say whether and where this machine has a data set, without reading its images.

    Raises:
        UnknownDataError: If the name is not registered.
    """
    archives = _archives(name)
    if archives is None:
        return DataStatus(name=name, state="embedded")
    return _status(archives, search_folders(data_dir))


def _archives(name: str) -> Cifar | None:
    if name not in SOURCES:
        hint = similar_name_hint(name)
        raise UnknownDataError(f"no data set called {name!r}{hint} there are {', '.join(SOURCES)}")
    return SOURCES[name].archives


def _status(archives: Cifar, folders: list[Path]) -> DataStatus:
    located = find_layout(archives, folders)
    if located is not None:
        layout, folder = located
        files = [folder / name for name in layout.files if (folder / name).is_file()]
        return DataStatus(
            name=archives.name,
            state="present" if len(files) == len(layout.files) else "incomplete",
            folder=folder,
            num_bytes=sum(file.stat().st_size for file in files),
        )
    for folder in folders:
        for layout in archives.layouts:
            archive = folder / layout.archive
            if archive.is_file():
                size = archive.stat().st_size
                return DataStatus(name=archives.name, state="packed", folder=folder, num_bytes=size)
    megabytes = SOURCES[archives.name].download_megabytes
    return DataStatus(name=archives.name, state="missing", num_bytes=megabytes * 10**6)
