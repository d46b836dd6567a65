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

import torch

from reslearn.interop.pickles import (
    DTYPES,
    AllowedFunction,
    IgnoredObject,
    check_instructions,
    read_pickle,
)
from reslearn.interop.stored import LARGEST_DIMENSIONS, FileRegion, check_file_size

LEGACY_BEGINNING = pickle.dumps(0x1950A86A20F9469CFC6C, protocol=2)
_LEGACY_PROTOCOL = 1001
_LARGEST_PICKLE_BYTES = 64 * 2**20  # names and shapes of the largest network need 2 MB
_MAX_ARCHIVE_ENTRIES = 100_000
# resnet1202 with momentum has 18,000 entries of about a hundred bytes.
_LARGEST_DIRECTORY_BYTES = 32 * 2**20
# The end of a zip archive: a comment of at most 64 KiB, and the records before it.
_LONGEST_END_BYTES = 2**16 + 100
_STORAGE_DTYPES = {
    "FloatStorage": "float32",
    "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16",
    "DoubleStorage": "float64",
    "LongStorage": "int64",
    "IntStorage": "int32",
    "ShortStorage": "int16",
    "CharStorage": "int8",
    "ByteStorage": "uint8",
    "BoolStorage": "bool",
    "UntypedStorage": "uint8",
}


def read_zip(path: Path) -> Any:
    """Return the object in a zip archive of `torch.save`, with tensors as `StoredTensor`.

    Raises:
        ValueError, pickle.UnpicklingError, zipfile.BadZipFile: If the file is damaged, not an
            archive of torch.save, or would run code when loaded.
    """
    size = check_file_size(path)
    _check_directory_length(path, size)
    with zipfile.ZipFile(path) as archive, path.open("rb") as file:
        infos = archive.infolist()
        _check_archive_entries(infos, size)
        folder = _root_folder(archive)
        _check_byte_order(archive, folder)
        regions: dict[str, FileRegion] = {}
        for info in infos:
            if info.filename.startswith(folder + "data/"):
                key = info.filename.removeprefix(folder + "data/")
                regions[key] = _entry_region(path, file, info, size)
        content = archive.read(folder + "data.pkl")
    value = read_pickle(content, _ALLOWED, _storage_reference)
    return _replace_references(value, regions, {})


def _root_folder(archive: zipfile.ZipFile) -> str:
    """Return the folder in the archive that holds data.pkl, with a slash at its end."""
    names = archive.namelist()
    pickles = [name for name in names if name.endswith("/data.pkl") and name.count("/") == 1]
    if len(pickles) != 1:
        raise ValueError("a zip archive, but torch.save did not write it")
    folder = pickles[0].removesuffix("data.pkl")
    if any(name.startswith((folder + "code/", folder + "constants.pkl")) for name in names):
        raise ValueError(
            "a TorchScript archive, which is a program; if you trust it, load it with "
            "torch.jit.load and save its state_dict()"
        )
    if archive.getinfo(pickles[0]).file_size > _LARGEST_PICKLE_BYTES:
        raise ValueError(f"its pickle has more than {_LARGEST_PICKLE_BYTES:,} bytes")
    return folder


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


def read_legacy(path: Path) -> Any:
    """Return the object in a legacy file of `torch.save`. Raises the errors of `read_zip`.

    The file begins with five pickles: a magic number, the protocol, facts about the machine, the
    object, and the keys of the storages. The storages follow in the order of the keys.
    """
    size = check_file_size(path)
    with path.open("rb") as file:
        beginning = file.read(min(size, _LARGEST_PICKLE_BYTES))
    dtypes: dict[str, torch.dtype] = {}

    def reference(persistent_id: Any) -> _Storage:
        storage = _storage_reference(persistent_id)
        dtypes[storage.key] = storage.dtype
        return storage

    position, values = 0, []
    for number in range(5):
        length = check_instructions(beginning[position:])
        content = beginning[position : position + length]
        is_object = number == 3
        values.append(read_pickle(content, _ALLOWED, reference if is_object else None))
        position += length
    _, protocol, machine, value, keys = values
    is_little_endian = isinstance(machine, dict) and machine.get("little_endian") is True
    if protocol != _LEGACY_PROTOCOL or not is_little_endian:
        raise ValueError("not of torch's legacy format, or written by a big-endian machine")
    if not _are_distinct_names(keys):
        raise ValueError("its list of storages is damaged")
    regions = _legacy_regions(path, size, position, keys, dtypes)
    return _replace_references(value, regions, {})


def _are_distinct_names(keys: Any) -> bool:
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
        return False
    return len(set(keys)) == len(keys)


def _legacy_regions(
    path: Path, size: int, position: int, keys: list[str], dtypes: Mapping[str, torch.dtype]
) -> dict[str, FileRegion]:
    """Return where each storage lies: eight bytes with its number of values, then the values."""
    regions: dict[str, FileRegion] = {}
    with path.open("rb") as file:
        for key in keys:
            file.seek(position)
            num_values = int.from_bytes(file.read(8), "little", signed=True)
            num_bytes = num_values * dtypes.get(key, torch.uint8).itemsize
            if key not in dtypes or num_values < 0 or position + 8 + num_bytes > size:
                raise ValueError(f"truncated: storage {key!r} reaches beyond the end of the file")
            regions[key] = FileRegion(path=path, offset=position + 8, num_bytes=num_bytes)
            position += 8 + num_bytes
    return regions


class _ReadOnly:
    """An object that a pickle may refer to but not modify.

    The instruction BUILD calls `__setstate__`; without it, BUILD would set attributes, even of
    frozen dataclasses.
    """

    def __setstate__(self, state: Any) -> None:
        raise pickle.UnpicklingError("it modifies a tensor or a type after creating it")


@dataclass(frozen=True)
class _StorageType(_ReadOnly):
    dtype: torch.dtype


@dataclass(frozen=True)
class _Storage(_ReadOnly):
    """A reference to a storage, or to the part of one that begins at value `first`."""

    dtype: torch.dtype
    key: str
    first: int
    num_values: int


@dataclass(frozen=True, kw_only=True)
class _TensorReference(_ReadOnly):
    """A tensor as the pickle describes it, before its storage is located in the file."""

    storage: _Storage
    dtype: torch.dtype
    first: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]


def _replace_references(
    value: Any, regions: Mapping[str, FileRegion], converted: dict[int, Any]
) -> Any:
    """Return `value` with each tensor reference replaced by a `StoredTensor`.

    Args:
        regions: Where the storages lie in the file, by key.
        converted: Results by id of a dict. A dict may contain itself, so each is converted once.
    """
    if isinstance(value, _TensorReference):
        return _locate(value, regions)
    if not isinstance(value, Mapping):
        return value
    if id(value) not in converted:
        result: dict[Any, Any] = {}
        converted[id(value)] = result
        for key, item in value.items():
            result[key] = _replace_references(item, regions, converted)
    return converted[id(value)]


def _locate(reference: _TensorReference, regions: Mapping[str, FileRegion]) -> Any:
    storage = reference.storage
    region = regions.get(storage.key)
    if region is None:
        raise ValueError(f"it lacks storage {storage.key!r}, which its pickle refers to")
    start = storage.first * storage.dtype.itemsize
    num_bytes = storage.num_values * storage.dtype.itemsize
    if start + num_bytes > region.num_bytes:
        raise ValueError(f"storage {storage.key!r} is shorter than its pickle says")
    part = FileRegion(path=region.path, offset=region.offset + start, num_bytes=num_bytes)
    return part.tensor(
        reference.dtype, reference.shape, first=reference.first, stride=reference.stride
    )


def _storage_reference(persistent_id: Any) -> _Storage:
    """Check torch's reference to a storage: ("storage", type, key, device, number of values).

    In the legacy format a sixth item may describe a part of a storage: (key, first value, number of
    values).
    """
    is_storage = (
        isinstance(persistent_id, tuple)
        and len(persistent_id) in (5, 6)
        and persistent_id[0] == "storage"
        and isinstance(persistent_id[1], _StorageType)
    )
    if not is_storage:
        raise pickle.UnpicklingError("it refers to something that is not the storage of a tensor")
    storage_type, key, num_values = persistent_id[1], persistent_id[2], persistent_id[4]
    first = 0
    if not isinstance(key, str):
        raise pickle.UnpicklingError("it refers to a storage without a name")
    if len(persistent_id) == 6 and persistent_id[5] is not None:
        _, first, num_values = persistent_id[5]
    if not isinstance(num_values, int) or not isinstance(first, int) or num_values < 0 or first < 0:
        raise pickle.UnpicklingError("it refers to a storage without a valid size")
    return _Storage(storage_type.dtype, key, first, num_values)


def _rebuild_tensor(
    storage: Any, first: Any, shape: Any, stride: Any, *ignored: Any
) -> _TensorReference:
    """Stand in for `torch._utils._rebuild_tensor_v2`; return a reference."""
    if not isinstance(storage, _Storage) or not isinstance(first, int):
        raise pickle.UnpicklingError("it holds a tensor without a storage")
    if not isinstance(shape, tuple) or not isinstance(stride, tuple):
        raise pickle.UnpicklingError("it holds a tensor without a shape")
    if len(shape) > LARGEST_DIMENSIONS or len(stride) != len(shape):
        raise pickle.UnpicklingError("it holds a tensor whose shape and strides do not fit")
    if not all(isinstance(value, int) for value in (*shape, *stride)):
        raise pickle.UnpicklingError("it holds a tensor whose shape is not made of integers")
    return _TensorReference(
        storage=storage, dtype=storage.dtype, first=first, shape=shape, stride=stride
    )


def _rebuild_typed_tensor(
    storage: Any, first: Any, shape: Any, stride: Any, *arguments: Any
) -> _TensorReference:
    """Stand in for `torch._utils._rebuild_tensor_v3`.

    Its storage holds bytes, and the dtype is an argument. `arguments` are requires_grad, hooks,
    the dtype, and arguments that are ignored.
    """
    reference = _rebuild_tensor(storage, first, shape, stride)
    if len(arguments) < 3 or not isinstance(arguments[2], _StorageType):
        raise pickle.UnpicklingError("it holds a tensor of an unknown dtype")
    return _TensorReference(
        storage=reference.storage,
        dtype=arguments[2].dtype,
        first=first,
        shape=reference.shape,
        stride=reference.stride,
    )


def _rebuild_size(shape: Any = ()) -> tuple[Any, ...]:
    """Stand in for `torch.Size`; return a plain tuple."""
    if not isinstance(shape, tuple):
        raise pickle.UnpicklingError("it holds a torch.Size that is not a tuple")
    return shape


def _rebuild_parameter(data: Any, *ignored: Any) -> Any:
    """Stand in for `torch._utils._rebuild_parameter`; return the tensor itself."""
    return data


_ALLOWED: dict[tuple[str, str], Any] = {
    ("torch._utils", "_rebuild_tensor"): AllowedFunction(_rebuild_tensor),
    ("torch._utils", "_rebuild_tensor_v2"): AllowedFunction(_rebuild_tensor),
    ("torch._utils", "_rebuild_tensor_v3"): AllowedFunction(_rebuild_typed_tensor),
    ("torch._utils", "_rebuild_parameter"): AllowedFunction(_rebuild_parameter),
    ("torch", "Size"): AllowedFunction(_rebuild_size),
    ("torch", "device"): IgnoredObject,
    **{("torch", name): _StorageType(DTYPES[dtype]) for name, dtype in _STORAGE_DTYPES.items()},
    ("torch.storage", "UntypedStorage"): _StorageType(torch.uint8),
    **{("torch", name): _StorageType(dtype) for name, dtype in DTYPES.items()},
}
