"""What `torch.save` writes, read without torch.load: the zip of today and the row of pickles of before 1.6 (legacy).

The pickle holds names, shapes and references to storages; the numbers lie beside it, uncompressed, and are read from their place.
"""

import io
import pickle
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from reslearn.interop.pickles import DTYPES, Called, Record, check_instructions, read_pickle
from reslearn.interop.stored import LARGEST_DIMENSIONS, Region, checked_size

_LARGEST_PICKLE_BYTES = 64 * 2**20  # names and shapes of the largest network: 2 MB
_LARGEST_NUMBER_OF_FILES = 100_000
_LARGEST_DIRECTORY_BYTES = (
    32 * 2**20
)  # resnet1202 with momentum: 18,000 entries of some hundred bytes
_LONGEST_END_BYTES = 2**16 + 100  # a comment, and the records before it
LEGACY_BEGINNING = pickle.dumps(0x1950A86A20F9469CFC6C, protocol=2)
_LEGACY_PROTOCOL = 1001
_STORAGE_TYPES = {
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


class _Unchanged:
    """What a pickle may refer to and not change: its BUILD sets attributes, of what is frozen too."""

    def __setstate__(self, state: Any) -> None:
        raise pickle.UnpicklingError("it changes a tensor or a type after it was made")


@dataclass(frozen=True)
class _StorageType(_Unchanged):
    dtype: torch.dtype


@dataclass(frozen=True)
class _Storage(_Unchanged):
    """Where the numbers are: a key that `find` turns into a region of the file, once that is known."""

    dtype: torch.dtype
    key: str
    first: int
    num_values: int


@dataclass(frozen=True, kw_only=True)
class _Reference(_Unchanged):
    """A tensor as the pickle tells it."""

    storage: _Storage
    dtype: torch.dtype
    first: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]


def read_zip(path: Path) -> Any:
    """The object in a file of today's torch.save, tensors as `Stored`.

    Raises ValueError, pickle.UnpicklingError or zipfile.BadZipFile where it is none.
    """
    size = checked_size(path)
    _check_directory(path, size)
    with zipfile.ZipFile(path) as archive, path.open("rb") as file:
        infos = archive.infolist()
        names = [info.filename for info in infos]
        _check_entries(infos, size)
        pickles = [name for name in names if name.endswith("/data.pkl") and name.count("/") == 1]
        if len(pickles) != 1:
            raise ValueError("a zip archive, but not one that torch.save wrote")
        folder = pickles[0].removesuffix("data.pkl")
        if any(name.startswith((folder + "code/", folder + "constants.pkl")) for name in names):
            raise ValueError(
                "a TorchScript archive, which is a program: load it where you trust it and save its state_dict()"
            )
        if archive.getinfo(pickles[0]).file_size > _LARGEST_PICKLE_BYTES:
            raise ValueError(f"its pickle has more than {_LARGEST_PICKLE_BYTES:,} bytes")
        if folder + "byteorder" in names and archive.getinfo(folder + "byteorder").file_size < 16:
            order = archive.read(folder + "byteorder")
            if order != b"little":
                raise ValueError(f"its numbers are written {order!r}-endian")
        regions = {
            info.filename: _region(path, file, info, size)
            for info in infos
            if info.filename.startswith(folder + "data/")
        }
        content = archive.read(pickles[0])

    def find(key: str) -> Region:
        region = regions.get(f"{folder}data/{key}")
        if region is None:
            raise ValueError(f"it lacks the numbers {key!r} that its table of contents names")
        return region

    return _resolve(read_pickle(content, _ALLOWED, _reference_to_storage), find)


def read_legacy(path: Path) -> Any:
    """The object in a file of torch.save before 1.6. Raises as `read_zip`."""
    size = checked_size(path)
    with path.open("rb") as file:
        beginning = file.read(min(size, _LARGEST_PICKLE_BYTES))
    position, parts = 0, []
    types: dict[str, torch.dtype] = {}

    def reference(pid: Any) -> _Storage:
        storage = _reference_to_storage(pid)
        types[storage.key] = storage.dtype
        return storage

    for number in range(
        5
    ):  # magic number, protocol, system, the object, the keys of the storages in the order of the file
        length = check_instructions(beginning[position:])
        part = beginning[position : position + length]
        parts.append(read_pickle(part, _ALLOWED, reference if number == 3 else None))
        position += length
    _, protocol, system, value, keys = parts
    if (
        protocol != _LEGACY_PROTOCOL
        or not isinstance(system, dict)
        or system.get("little_endian") is not True
    ):
        raise ValueError("not of torch's legacy format, or of a machine with the high byte first")
    if (
        not isinstance(keys, list)
        or not all(isinstance(key, str) for key in keys)
        or len(set(keys)) != len(keys)
    ):
        raise ValueError("its list of storages is damaged")
    regions = {}
    with path.open("rb") as file:
        for key in keys:
            file.seek(position)
            num_values = int.from_bytes(file.read(8), "little", signed=True)
            num_bytes = num_values * types.get(key, torch.uint8).itemsize
            if key not in types or num_values < 0 or position + 8 + num_bytes > size:
                raise ValueError(f"truncated: the numbers {key!r} reach beyond its end")
            regions[key] = Region(path=path, offset=position + 8, num_bytes=num_bytes)
            position += 8 + num_bytes
    return _resolve(value, lambda key: regions[key])


def _check_directory(path: Path, size: int) -> None:
    """The list of an archive's entries may be no longer than a checkpoint's: zipfile reads it whole, which takes ten times its length.

    Its length stands in the last record of the file, and in a longer one at a fixed place before that, which counts where it is there.
    """
    with path.open("rb") as file:
        file.seek(max(0, size - _LONGEST_END_BYTES))
        end = file.read()
    for last in {
        len(end) - 22,
        end.rfind(b"PK\x05\x06"),
    }:  # where it is without a comment, and with one
        if last < 0 or end[last : last + 4] != b"PK\x05\x06":
            continue
        length = int.from_bytes(end[last + 12 : last + 16], "little")
        if last >= 76 and end[last - 76 : last - 72] == b"PK\x06\x06":
            length = int.from_bytes(end[last - 36 : last - 28], "little")
        if length > _LARGEST_DIRECTORY_BYTES:
            raise ValueError(f"a zip archive with a list of entries of {length:,} bytes")


def _check_entries(infos: list[zipfile.ZipInfo], size: int) -> None:
    """Stored, not compressed, each name once, and together no larger than the file: so no bomb, and no entry within another."""
    if len(infos) > _LARGEST_NUMBER_OF_FILES:
        raise ValueError(f"a zip archive of {len(infos)} files")
    if len({info.filename for info in infos}) != len(infos):
        raise ValueError("a zip archive that has a name twice")
    if any(
        info.compress_type != zipfile.ZIP_STORED or info.file_size != info.compress_size
        for info in infos
    ):
        raise ValueError("a zip archive with compressed entries, as torch.save never writes")
    if sum(info.file_size for info in infos) > size:
        raise ValueError("a zip archive whose entries overlap")


def _region(path: Path, file: io.BufferedReader, info: zipfile.ZipInfo, size: int) -> Region:
    """Where the bytes of an entry lie: after its local header, which repeats its name."""
    file.seek(info.header_offset)
    header = file.read(30)
    if len(header) != 30 or header[:4] != b"PK\x03\x04":
        raise ValueError("a damaged zip archive")
    offset = (
        info.header_offset
        + 30
        + int.from_bytes(header[26:28], "little")
        + int.from_bytes(header[28:30], "little")
    )
    if offset + info.file_size > size:
        raise ValueError("truncated: an entry reaches beyond its end")
    return Region(path=path, offset=offset, num_bytes=info.file_size)


def _reference_to_storage(pid: Any) -> _Storage:
    if not (
        isinstance(pid, tuple)
        and len(pid) in (5, 6)
        and pid[0] == "storage"
        and isinstance(pid[1], _StorageType)
    ):
        raise pickle.UnpicklingError("it refers to something that is no storage of a tensor")
    kind, key, num_values = pid[1], pid[2], pid[4]
    first = 0
    if not isinstance(key, str):
        raise pickle.UnpicklingError("it refers to a storage without a name")
    if (
        len(pid) == 6 and pid[5] is not None
    ):  # legacy: a storage that is a part of another: (its own key, first value, number of values)
        _, first, num_values = pid[5]
    if not isinstance(num_values, int) or not isinstance(first, int) or num_values < 0 or first < 0:
        raise pickle.UnpicklingError("it refers to a storage of no size")
    return _Storage(kind.dtype, key, first, num_values)


def _rebuild(storage: Any, first: Any, shape: Any, stride: Any, *rest: Any) -> _Reference:
    """`torch._utils._rebuild_tensor_v2`."""
    if not isinstance(storage, _Storage) or not isinstance(first, int):
        raise pickle.UnpicklingError("it holds a tensor without a storage")
    if (
        not isinstance(shape, tuple)
        or not isinstance(stride, tuple)
        or len(shape) > LARGEST_DIMENSIONS
        or len(stride) != len(shape)
    ):
        raise pickle.UnpicklingError("it holds a tensor without a shape")
    if not all(isinstance(value, int) for value in (*shape, *stride)):
        raise pickle.UnpicklingError(
            "it holds a tensor with a shape of something else than numbers"
        )
    return _Reference(storage=storage, dtype=storage.dtype, first=first, shape=shape, stride=stride)


def _rebuild_typed(
    storage: Any, first: Any, shape: Any, stride: Any, grad: Any, hooks: Any, dtype: Any, *rest: Any
) -> _Reference:
    """`torch._utils._rebuild_tensor_v3`: a type beside a storage of bytes."""
    reference = _rebuild(storage, first, shape, stride)
    if not isinstance(dtype, _StorageType):
        raise pickle.UnpicklingError("it holds a tensor of no known type")
    return _Reference(
        storage=reference.storage,
        dtype=dtype.dtype,
        first=first,
        shape=reference.shape,
        stride=reference.stride,
    )


def _size(shape: Any = ()) -> tuple[Any, ...]:
    """`torch.Size`."""
    if not isinstance(shape, tuple):
        raise pickle.UnpicklingError("it holds a size that is none")
    return shape


def _parameter(data: Any, *rest: Any) -> Any:
    """`torch._utils._rebuild_parameter`: the tensor itself."""
    return data


def _resolve(value: Any, find: Callable[[str], Region], seen: dict[int, Any] | None = None) -> Any:
    """The same tables with `Stored` in the place of references. A table may contain itself: each is gone through once."""
    if isinstance(value, _Reference):
        region, storage = find(value.storage.key), value.storage
        start, num_bytes = (
            storage.first * storage.dtype.itemsize,
            storage.num_values * storage.dtype.itemsize,
        )
        if start + num_bytes > region.num_bytes:
            raise ValueError(
                f"the numbers {storage.key!r} are fewer than its table of contents says"
            )
        part = Region(path=region.path, offset=region.offset + start, num_bytes=num_bytes)
        return part.tensor(value.dtype, value.shape, first=value.first, stride=value.stride)
    if not isinstance(value, Mapping):
        return value
    seen = {} if seen is None else seen
    if id(value) not in seen:
        seen[id(value)] = resolved = {}
        for key, entry in value.items():
            resolved[key] = _resolve(entry, find, seen)
    return seen[id(value)]


_ALLOWED: dict[tuple[str, str], Any] = {
    ("torch._utils", "_rebuild_tensor"): Called(_rebuild),
    ("torch._utils", "_rebuild_tensor_v2"): Called(_rebuild),
    ("torch._utils", "_rebuild_tensor_v3"): Called(_rebuild_typed),
    ("torch._utils", "_rebuild_parameter"): Called(_parameter),
    ("torch", "Size"): Called(_size),
    ("torch", "device"): Record,
    **{("torch", name): _StorageType(DTYPES[dtype]) for name, dtype in _STORAGE_TYPES.items()},
    ("torch.storage", "UntypedStorage"): _StorageType(torch.uint8),
    **{("torch", name): _StorageType(dtype) for name, dtype in DTYPES.items()},
}
