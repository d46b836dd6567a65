"""A file of weights, whatever wrote it, to named tensors. What it is is told by its first bytes, not by its name; nothing in it is run."""

import json
import pickle
import struct
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import safetensors

from reslearn.interop.hdf5_files import read_hdf5
from reslearn.interop.pickles import DTYPES, NumpyArray, Table, read_pickle, text
from reslearn.interop.protobuf_files import read_caffe, read_onnx
from reslearn.interop.stored import Checkpoint, Region, Stored, WeightsError, checked_size, one_line
from reslearn.interop.torch_files import LEGACY_BEGINNING, read_legacy, read_zip

_LONGEST_NAME = 1_000
_MOST_TABLES = (
    1_000  # a pickle of a few bytes may hold one table a thousand times, each in a thousand others
)
_LARGEST_ARRAYS_BYTES = (
    2 * 2**30
)  # a pickle of arrays holds its numbers within; the largest known (X-101-64x4d) has 0.4 GB
_SAFETENSORS = {
    "F16": "float16",
    "F32": "float32",
    "F64": "float64",
    "BF16": "bfloat16",
    "I8": "int8",
    "I16": "int16",
    "I32": "int32",
    "I64": "int64",
    "U8": "uint8",
    "BOOL": "bool",
}
READABLE = "safetensors, torch.save (zip and legacy), pickles of numpy arrays, .caffemodel, .onnx and Keras .h5"


def read_checkpoint(path: Path | str) -> Checkpoint:
    """What a file holds, without running anything and without reading its numbers yet.

    Raises WeightsError in one line for a file that is absent, empty, truncated, foreign, too large, or would run code on load.
    """
    path = Path(path)
    size = checked_size(path)
    with path.open("rb") as file:
        beginning = file.read(64)
    container, read = _kind(path, beginning, size)
    try:
        checkpoint = read(path)
    except WeightsError:
        raise
    except pickle.UnpicklingError as error:
        reason = (
            f"{error}; save its state_dict() instead"
            if "would import" in str(error)
            else one_line(error)
        )
        raise WeightsError(f"{path}: refused, nothing was run: {reason}") from None
    except (
        ValueError,
        OSError,
        KeyError,
        EOFError,
        zipfile.BadZipFile,
        NotImplementedError,
        RuntimeError,
        RecursionError,
    ) as error:
        raise WeightsError(
            f"{path}: damaged, or no {container} file after all: {one_line(error)}"
        ) from None
    if not any(checkpoint.entries.values()):
        raise WeightsError(f"{path}: a {container} file without named tensors")
    for names in ({*checkpoint.entries, *checkpoint.others}, *checkpoint.entries.values()):
        if odd := next(
            (name for name in names if len(name) > _LONGEST_NAME or not name.isprintable()), None
        ):
            raise WeightsError(
                f"{path}: damaged, or no {container} file after all: it calls something {odd[:40]!r}"
            )
    return checkpoint


def _kind(path: Path, beginning: bytes, size: int) -> tuple[str, Callable[[Path], Checkpoint]]:
    if beginning.startswith(b"PK\x03\x04"):
        return "torch zip", lambda path: _tree(path, "torch zip", read_zip(path))
    if beginning.startswith(LEGACY_BEGINNING):
        return "legacy torch", lambda path: _tree(path, "legacy torch", read_legacy(path))
    if beginning.startswith(b"\x89HDF\r\n\x1a\n"):
        return "HDF5", lambda path: Checkpoint(
            path=path, container="HDF5", entries={"": read_hdf5(path)}
        )
    if (
        len(beginning) > 8
        and beginning[8:9] == b"{"
        and struct.unpack("<Q", beginning[:8])[0] <= size
    ):
        return "safetensors", _read_safetensors
    if path.suffix == ".caffemodel":
        return "caffemodel", lambda path: Checkpoint(
            path=path, container="caffemodel", entries={"": read_caffe(path)}
        )
    if path.suffix == ".onnx":
        return "ONNX", lambda path: Checkpoint(
            path=path, container="ONNX", entries={"": read_onnx(path)}
        )
    if beginning[:1] == b"\x80" or path.suffix in (".pkl", ".pickle"):
        return "pickle of arrays", _read_arrays
    raise WeightsError(f"{path}: no file of weights that is known here; read are {READABLE}")


def _read_safetensors(path: Path) -> Checkpoint:
    """The library checks the header; numbers are then read from their place, since it would go through the whole header for each."""
    try:
        with safetensors.safe_open(str(path), framework="pt") as checked:
            metadata = checked.metadata() or {}
    except safetensors.SafetensorError as error:
        raise ValueError(one_line(error)) from None
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(length))
    tensors: dict[str, Stored] = {}
    for name in sorted(header.keys() - {"__metadata__"}):
        code, shape, (begin, end) = (
            header[name][key] for key in ("dtype", "shape", "data_offsets")
        )
        if code not in _SAFETENSORS:
            raise WeightsError(
                f"{path}: {name} is of type {code}; allowed are {', '.join(_SAFETENSORS)}"
            )
        tensors[name] = Region(path=path, offset=8 + length + begin, num_bytes=end - begin).tensor(
            DTYPES[_SAFETENSORS[code]], shape
        )
    return Checkpoint(path=path, container="safetensors", entries={"": tensors}, metadata=metadata)


def _read_arrays(path: Path) -> Checkpoint:
    checked_size(path, _LARGEST_ARRAYS_BYTES)
    return _tree(path, "pickle of arrays", read_pickle(path.read_bytes()))


def _tree(path: Path, container: str, value: Any) -> Checkpoint:
    """Find the tables of tensors in what a pickle held: the value itself, or entries of it such as "state_dict" and "model_ema"."""
    if not isinstance(value, Mapping):
        raise ValueError(f"it holds a {_word(value)}, not a table of named tensors")
    entries: dict[str, Mapping[str, Stored]] = {}
    others: list[str] = []
    seen: dict[int, dict[str, Stored]] = {}

    def tensors_of(table: Any) -> dict[str, Stored]:
        """Of a table that lies in several places once."""
        if id(table) not in seen:
            seen[id(table)] = _tensors(table)
            if len(seen) > _MOST_TABLES:
                raise ValueError(f"it holds more than {_MOST_TABLES} tables")
        return seen[id(table)]

    for name, entry in [("", value), *_named(value)]:
        tensors = tensors_of(entry) if isinstance(entry, Mapping) else {}
        if "optim" in name.lower() or (
            name and not isinstance(entry, Mapping | Stored | NumpyArray)
        ):
            others.append(name)
        elif len(tensors) > (0 if name == "" else 1):
            entries[name] = tensors
        elif isinstance(entry, Mapping) and name:
            inner = {
                f"{name}.{part}": tensors_of(table)
                for part, table in _named(entry)
                if isinstance(table, Mapping)
            }
            entries |= {
                part: table
                for part, table in inner.items()
                if len(table) > 1 and "optim" not in part.lower()
            }
            others += [name] if not inner else []
        if len(entries) > _MOST_TABLES:
            raise ValueError(f"it holds more than {_MOST_TABLES} tables")
    return Checkpoint(path=path, container=container, entries=entries, others=tuple(others))


def _named(table: Mapping[Any, Any]) -> list[tuple[str, Any]]:
    """What has a name in it. Optimizers number their parameters, and whatever else is a key means nothing here."""
    return [(text(key), part) for key, part in table.items() if isinstance(key, str | bytes)]


def _tensors(table: Mapping[Any, Any]) -> dict[str, Stored]:
    found = {
        key: part.stored if isinstance(part, NumpyArray) else part for key, part in _named(table)
    }
    return {key: part for key, part in found.items() if isinstance(part, Stored)}


def _word(value: Any) -> str:
    return "table" if isinstance(value, Table) else type(value).__name__.lower().lstrip("_")
