"""Walk a folder of images: ignore junk, end circular links, and count other files.

Junk is what operating systems, network drives and notebooks leave behind. It is never a class and
never a picture.
"""

import functools
import importlib.util
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from PIL import Image, features

from reslearn.data.errors import DataError

Kind = Literal["picture", "other"]
Entry = os.DirEntry[str]

JUNK_FOLDERS = frozenset(
    ("@eadir", "@recycle", "#recycle", "#snapshot", "__macosx", "__pycache__", "$recycle.bin")
) | {"system volume information", "lost+found"}
JUNK_FILES = frozenset(("thumbs.db", "ehthumbs.db", "desktop.ini", "picasa.ini", "icon\r"))
# Data, documents, films, and formats that Pillow will drop. EPS would start another program.
_NOT_READ = frozenset(("BUFR", "EPS", "FITS", "GRIB", "HDF5", "IM", "IPTC", "MPEG", "PDF", "WMF"))
_FREQUENT = ("JPEG", "PNG", "WEBP")
# Text and data files beside pictures. They are counted, but not reported as lost pictures.
TEXT_SUFFIXES = frozenset(
    (".cfg", ".csv", ".htm", ".html", ".ini", ".json", ".log", ".mat", ".md", ".npy", ".npz")
) | {".py", ".tsv", ".txt", ".xml", ".yaml", ".yml", ".zip"}
HEIF_SUFFIXES = frozenset((".heic", ".heics", ".heif", ".heifs", ".hif"))
_HEIF_BRANDS = frozenset((b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"))
_MAGIC_BYTES = 16


@dataclass(frozen=True)
class LeftOut:
    """Files of one suffix that are no pictures that can be read here.

    Attributes:
        class_name: The class folder that holds them; "" for files outside class folders.
        suffix: In lower case, with its dot; "" for names without a suffix.
        first: The first of them.
    """

    class_name: str
    suffix: str
    count: int
    first: Path


@dataclass
class Omissions:
    """What a walk passed over.

    Attributes:
        left_out: (class, suffix) to the number of files and the first one.
        junk: Number of junk files and folders by name.
        link_circles: Links to a folder that contains them, or that was already listed.
    """

    left_out: dict[tuple[str, str], tuple[int, str]] = field(default_factory=dict)
    junk: Counter[str] = field(default_factory=Counter)
    link_circles: dict[Path, None] = field(default_factory=dict)

    def leave_out(self, class_name: str, path: str) -> None:
        if Path(path) in self.link_circles:
            return  # is counted there
        key = (class_name, suffix_of(path))
        count, first = self.left_out.get(key, (0, path))
        self.left_out[key] = (count + 1, first)

    def left_out_files(self) -> tuple[LeftOut, ...]:
        return tuple(
            LeftOut(class_name, suffix, count, Path(first))
            for (class_name, suffix), (count, first) in sorted(self.left_out.items())
        )


def entries(folder: str | Path, omissions: Omissions) -> list[Entry]:
    """Return the entries of a folder that are not junk, sorted by name.

    Raises:
        DataError: If the folder cannot be read.
    """
    visible = []
    try:
        with os.scandir(folder) as scanned:
            for entry in scanned:
                junk = junk_name(entry.name)
                if junk is None:
                    visible.append(entry)
                else:
                    omissions.junk[junk] += 1
    except OSError as error:
        raise DataError(f"cannot read the folder {folder}: {error.strerror}") from None
    return sorted(visible, key=lambda entry: entry.name)


def junk_name(name: str) -> str | None:
    """Return the kind of junk that an entry of this name is, or None if it is not junk."""
    if name.lower() in JUNK_FOLDERS or name.lower() in JUNK_FILES:
        return name.strip()
    if name.startswith("._"):
        return "._*"
    if name == ".DS_Store" or name == ".ipynb_checkpoints":
        return name
    return ".*" if name.startswith(".") else None


def pictures_below(
    folder: str | Path, class_name: str, omissions: Omissions, ancestors: frozenset[tuple[int, int]]
) -> Iterator[Entry]:
    """Yield all pictures below a class folder, sorted by name within each folder.

    No folder is listed twice, so links in a circle end.

    Args:
        ancestors: `folder_identity` of the folders above, which links must not lead back to.
    """
    visited = {*ancestors, folder_identity(folder)}
    stack = [iter(entries(folder, omissions))]
    while stack:
        entry = next(stack[-1], None)
        if entry is None:
            stack.pop()
        elif is_folder(entry, omissions):
            identity = folder_identity(entry.path)
            if identity in visited:
                omissions.link_circles[Path(entry.path)] = None
                continue
            visited.add(identity)
            stack.append(iter(entries(entry.path, omissions)))
        elif is_picture(entry):
            yield entry
        else:
            omissions.leave_out(class_name, entry.path)


def is_folder(entry: Entry, omissions: Omissions) -> bool:
    """Return whether an entry is a folder or a link to one. A link to itself is a circle."""
    try:
        return entry.is_dir()
    except OSError:
        omissions.link_circles[Path(entry.path)] = None
        return False


def folder_identity(folder: str | Path) -> tuple[int, int]:
    """Return a value that is equal for all paths to the same folder."""
    try:
        status = os.stat(folder)
    except OSError as error:
        raise DataError(f"cannot read the folder {folder}: {error.strerror}") from None
    return status.st_dev, status.st_ino


def is_picture(entry: Entry) -> bool:
    """Return whether a file is to be read as a picture: by its suffix, or by its first bytes.

    A link that leads nowhere is a picture that cannot be read if its suffix says so.
    """
    suffix = suffix_of(entry.name)
    try:
        if not entry.is_file():
            return suffix in picture_suffixes() and entry.is_symlink() and not entry.is_dir()
    except OSError:
        return False
    if suffix in picture_suffixes():
        return True
    return suffix not in TEXT_SUFFIXES and starts_like_a_picture(entry.path)


def starts_like_a_picture(path: str | Path) -> bool:
    """Return whether a file starts like JPEG, PNG, GIF, WebP, AVIF or HEIF."""
    try:
        with open(path, "rb") as file:
            start = file.read(_MAGIC_BYTES)
    except OSError:
        return False
    if start.startswith((b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF87a", b"GIF89a")):
        return True
    if start[:4] == b"RIFF" and start[8:12] == b"WEBP":
        return True
    if start[4:8] != b"ftyp":
        return False
    is_avif = start[8:12] in (b"avif", b"avis")
    if is_avif:
        return bool(features.check("avif"))
    return is_heif(start) and has_heif()


def is_heif(start: bytes) -> bool:
    """Return whether a file with these first 12 bytes is HEIF, the photos of newer phones."""
    return start[4:8] == b"ftyp" and start[8:12] in _HEIF_BRANDS


def suffix_of(name: str) -> str:
    """Return the suffix in lower case, with its dot, or ""."""
    return os.path.splitext(name)[1].lower()


@functools.cache
def picture_formats() -> tuple[str, ...]:
    """Return the raster formats that Pillow can open here, the most frequent first.

    HEIF is one of them if pillow-heif is installed.
    """
    if has_heif():
        import pillow_heif

        pillow_heif.register_heif_opener()
    Image.init()
    rarer = set(Image.OPEN) - _NOT_READ - set(_FREQUENT)
    return (*_FREQUENT, *sorted(rarer))


@functools.cache
def picture_suffixes() -> frozenset[str]:
    """Return the suffixes of `picture_formats`, in lower case, with their dots."""
    formats = frozenset(picture_formats())
    registered = Image.registered_extensions().items()
    return frozenset(suffix for suffix, name in registered if name in formats)


@functools.cache
def has_heif() -> bool:
    """Return whether pillow-heif is installed, which reads HEIF (.heic)."""
    return importlib.util.find_spec("pillow_heif") is not None
