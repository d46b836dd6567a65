"""Read files of `torch.save` without `torch.load`.

There are two formats: zip archives, and the legacy format before torch 1.6.
A pickle in the file holds names, shapes and references to storages. The numbers lie beside it,
uncompressed, and are read from their place. The pickle is read by pickles.py, which runs nothing.
"""

import io
import pickle
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reslearn.interop.pickles import read_pickle
from reslearn.interop.stored import FileRegion, StoredTensor, WeightsError, check_file_size
from reslearn.interop.torch_tensors import (
    TORCH_FUNCTIONS,
    StorageReference,
    StorageType,
    locate,
    resolve_reference,
)

LEGACY_BEGINNING = pickle.dumps(0x1950A86A20F9469CFC6C, protocol=2)
_LEGACY_PROTOCOL = 1001
_LARGEST_PICKLE_BYTES = 64 * 2**20  # names and shapes of the largest network need 2 MB
_MAX_ARCHIVE_ENTRIES = 100_000
# resnet1202 with momentum has 18,000 entries of about a hundred bytes.
_LARGEST_DIRECTORY_BYTES = 32 * 2**20
# The end of a zip archive: a comment of at most 64 KiB, and the records before it.
_LONGEST_END_BYTES = 2**16 + 100
# Archives that hold a program instead of a table of weights, by a part of the names in them.
_PROGRAMS = {
    "/code/": ("a TorchScript archive", "torch.jit.load(FILE).state_dict()"),
    "/constants.pkl": ("a TorchScript archive", "torch.jit.load(FILE).state_dict()"),
    "serialized_exported_program.json": (
        "an archive of torch.export",
        "torch.export.load(FILE).state_dict",
    ),
    "/archive_format": ("an archive of torch.export", "torch.export.load(FILE).state_dict"),
}


@dataclass(frozen=True, kw_only=True)
class TorchFile:
    """The content of a file of `torch.save`.

    Attributes:
        value: The object in the file, with tensors as references.
        unknown_objects: Names of the functions and classes that stand-ins replace.
        regions: Where the storages lie in the file, by key.
    """

    value: Any
    unknown_objects: tuple[str, ...]
    regions: Mapping[str, FileRegion]

    def locate(self, value: Any) -> StoredTensor | None:
        """Return a part of `value` as a tensor in the file, or None if it is no tensor."""
        return locate(value, self.regions)


def read_zip(path: Path) -> TorchFile:
    """Return the object in a zip archive of `torch.save`.

    Raises:
        ValueError, pickle.UnpicklingError, zipfile.BadZipFile: If the file is damaged, or not an
            archive of torch.save.
        WeightsError: If the archive is a program.
    """
    size = check_file_size(path)
    _check_directory_length(path, size)
    with zipfile.ZipFile(path) as archive, path.open("rb") as file:
        infos = archive.infolist()
        _check_no_program(path, infos)
        _check_archive_entries(infos, size)
        folder = _root_folder(archive)
        _check_byte_order(archive, folder)
        regions: dict[str, FileRegion] = {}
        for info in infos:
            if info.filename.startswith(folder + "data/"):
                key = info.filename.removeprefix(folder + "data/")
                regions[key] = _entry_region(path, file, info, size)
        content = archive.read(folder + "data.pkl")
    unpickled = read_pickle(content, functions=TORCH_FUNCTIONS, persistent_load=resolve_reference)
    return TorchFile(
        value=unpickled.value, unknown_objects=unpickled.unknown_objects, regions=regions
    )


def _check_no_program(path: Path, infos: list[zipfile.ZipInfo]) -> None:
    """Raise WeightsError if an archive holds a program. Its code may be compressed."""
    for info in infos:
        for mark, (archive, weights) in _PROGRAMS.items():
            if mark in info.filename:
                raise WeightsError(
                    f"{path}: {archive}, which is a program and not a table of weights; nothing in "
                    f"it was run; if you trust it, save its weights: "
                    f"torch.save({weights}, 'weights.pth')"
                )


def _root_folder(archive: zipfile.ZipFile) -> str:
    """Return the folder in the archive that holds data.pkl, with a slash at its end."""
    names = archive.namelist()
    pickles = [name for name in names if name.endswith("/data.pkl") and name.count("/") == 1]
    if len(pickles) != 1:
        raise ValueError(
            "a zip archive, but torch.save did not write it; if weights lie in it, unpack it first"
        )
    if archive.getinfo(pickles[0]).file_size > _LARGEST_PICKLE_BYTES:
        raise ValueError(f"its pickle has more than {_LARGEST_PICKLE_BYTES:,} bytes")
    return pickles[0].removesuffix("data.pkl")


def _check_byte_order(archive: zipfile.ZipFile, folder: str) -> None:
    name = folder + "byteorder"
    if name in archive.namelist() and archive.getinfo(name).file_size < 16:
        byte_order = archive.read(name)
        if byte_order != b"little":
            raise ValueError(f"its numbers are {byte_order!r}-endian; only little-endian is read")


def _check_directory_length(path: Path, size: int) -> None:
    """Raise ValueError if the archive's list of entries is longer than any checkpoint needs.

    zipfile reads the whole list, which takes ten times its length in memory. The length of the
    list stands in the last record of the file (22 bytes and a comment). If there is a zip64
    record 76 bytes before it, the length in that record counts.
    """
    with path.open("rb") as file:
        file.seek(max(0, size - _LONGEST_END_BYTES))
        end = file.read()
    without_comment, with_comment = len(end) - 22, end.rfind(b"PK\x05\x06")
    for position in {without_comment, with_comment}:
        if position < 0 or end[position : position + 4] != b"PK\x05\x06":
            continue
        length = int.from_bytes(end[position + 12 : position + 16], "little")
        if position >= 76 and end[position - 76 : position - 72] == b"PK\x06\x06":
            length = int.from_bytes(end[position - 36 : position - 28], "little")
        if length > _LARGEST_DIRECTORY_BYTES:
            raise ValueError(f"a zip archive whose list of entries has {length:,} bytes")


def _check_archive_entries(infos: list[zipfile.ZipInfo], size: int) -> None:
    """Refuse zip bombs: entries that are compressed, duplicate, overlapping, or too many."""
    if len(infos) > _MAX_ARCHIVE_ENTRIES:
        raise ValueError(f"a zip archive of {len(infos):,} files")
    if len({info.filename for info in infos}) != len(infos):
        raise ValueError("a zip archive with two entries of the same name")
    for info in infos:
        if info.compress_type != zipfile.ZIP_STORED or info.file_size != info.compress_size:
            raise ValueError("a zip archive with compressed entries, which torch.save never writes")
    if sum(info.file_size for info in infos) > size:
        raise ValueError("a zip archive whose entries overlap")


def _entry_region(
    path: Path, file: io.BufferedReader, info: zipfile.ZipInfo, size: int
) -> FileRegion:
    """Return where the content of an entry lies: after its local header, name and extra field."""
    file.seek(info.header_offset)
    header = file.read(30)
    if len(header) != 30 or header[:4] != b"PK\x03\x04":
        raise ValueError("a damaged zip archive")
    name_length = int.from_bytes(header[26:28], "little")
    extra_length = int.from_bytes(header[28:30], "little")
    offset = info.header_offset + 30 + name_length + extra_length
    if offset + info.file_size > size:
        raise ValueError("truncated: an entry reaches beyond the end of the file")
    return FileRegion(path=path, offset=offset, num_bytes=info.file_size)


def read_legacy(path: Path) -> TorchFile:
    """Return the object in a legacy file of `torch.save`. Raises the errors of `read_zip`.

    The file begins with five pickles: a magic number, the protocol, facts about the machine, the
    object, and the keys of the storages. The storages follow in the order of the keys.
    """
    size = check_file_size(path)
    with path.open("rb") as file:
        beginning = file.read(min(size, _LARGEST_PICKLE_BYTES))
    types: dict[str, StorageType] = {}

    def resolve(persistent_id: Any) -> Any:
        reference = resolve_reference(persistent_id)
        if isinstance(reference, StorageReference):
            types[reference.key] = reference.type
        return reference

    position, values = 0, []
    unknown_objects: tuple[str, ...] = ()
    for number in range(5):
        is_object = number == 3
        unpickled = read_pickle(
            beginning,
            start=position,
            functions=TORCH_FUNCTIONS,
            persistent_load=resolve if is_object else None,
        )
        values.append(unpickled.value)
        unknown_objects = unpickled.unknown_objects if is_object else unknown_objects
        position = unpickled.end
    _, protocol, machine, value, keys = values
    is_little_endian = isinstance(machine, dict) and machine.get("little_endian") is True
    if protocol != _LEGACY_PROTOCOL or not is_little_endian:
        raise ValueError("not of torch's legacy format, or written by a big-endian machine")
    if not _are_distinct_names(keys):
        raise ValueError("its list of storages is damaged")
    regions = _legacy_regions(path, size, position, keys, types)
    return TorchFile(value=value, unknown_objects=unknown_objects, regions=regions)


def _are_distinct_names(keys: Any) -> bool:
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
        return False
    return len(set(keys)) == len(keys)


def _legacy_regions(
    path: Path, size: int, position: int, keys: list[str], types: Mapping[str, StorageType]
) -> dict[str, FileRegion]:
    """Return where each storage lies: eight bytes with its number of values, then the values."""
    regions: dict[str, FileRegion] = {}
    with path.open("rb") as file:
        for key in keys:
            file.seek(position)
            num_values = int.from_bytes(file.read(8), "little", signed=True)
            num_bytes = num_values * types[key].num_bytes if key in types else 0
            if key not in types or num_values < 0 or position + 8 + num_bytes > size:
                raise ValueError(
                    f"truncated: storage {key[:80]!r} reaches beyond the end of the file"
                )
            regions[key] = FileRegion(path=path, offset=position + 8, num_bytes=num_bytes)
            position += 8 + num_bytes
    return regions
