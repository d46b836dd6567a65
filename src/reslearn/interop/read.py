"""Read the named tensors of a weight file in any of the supported formats.

The format is recognized by the first bytes of the file. Nothing in the file is run.
"""

import json
import pickle
import struct
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

import safetensors

from reslearn.interop.bundle import is_written_by_reslearn
from reslearn.interop.class_lists import class_lists_of
from reslearn.interop.exported_files import refuse_exported_file
from reslearn.interop.file_digest import is_intact
from reslearn.interop.hdf5_files import read_hdf5
from reslearn.interop.pickles import read_pickle
from reslearn.interop.protobuf_files import read_caffe, read_onnx
from reslearn.interop.sharded import INDEX_SUFFIX, read_sharded
from reslearn.interop.stored import (
    DTYPES,
    Checkpoint,
    FileRegion,
    StoredTensor,
    WeightsError,
    abbreviate,
    check_file_size,
    first_line,
)
from reslearn.interop.tables import NoTableError, find_tables
from reslearn.interop.torch_files import LEGACY_BEGINNING, TorchFile, read_legacy, read_zip

READABLE = (
    "safetensors, torch.save (zip and legacy), pickles of numpy arrays, .caffemodel, .onnx "
    "and Keras .h5"
)
_LOADS_TENSORS = "torch.storage._load_from_bytes"  # named where pickle wrote tensors of torch
_LONGEST_NAME = 1_000
_NUM_LISTED = 4
# A pickle of arrays is read into memory as a whole. The largest known file (X-101-64x4d) has 0.4
# GB.
_LARGEST_ARRAYS_BYTES = 2 * 2**30
_SAFETENSORS_DTYPES = {
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
# What often lies in the place of a weight file, by its first bytes in small letters.
_OTHER_FILES = {
    b"version https://git-lfs": "a pointer of Git LFS; fetch the file itself with git lfs pull",
    b"<": "a web page, which servers send instead of a file; download it again",
    b"{": "a text in JSON, which servers send instead of a file; download it again",
    b"\x1f\x8b": "compressed by gzip; unpack it first",
    b"bzh": "compressed by bzip2; unpack it first",
    b"\xfd7zxz": "compressed by xz; unpack it first",
    b"rar!": "a RAR archive; unpack it first",
    b"7z\xbc\xaf": "a 7-Zip archive; unpack it first",
    b"\x93numpy": "one array of NumPy, not a table of named tensors",
}
_TAR_MARK_AT = 257
# Errors of the readers, of zipfile and of h5py for files that are damaged or of another format.
_DAMAGE = (
    ValueError,
    OSError,
    KeyError,
    EOFError,
    NotImplementedError,
    RuntimeError,
    RecursionError,
)


def read_checkpoint(path: Path | str) -> Checkpoint:
    """Read the table of contents of a weight file. Values of tensors are read later, on request.

    An index of several files, as `save_pretrained` writes it, stands for these files.

    Raises:
        WeightsError: If the file is absent, empty, truncated, too large, of an unknown format, or
            would run code when loaded. The message is one line.
    """
    path = Path(path)
    if path.name.endswith(INDEX_SUFFIX):
        return read_sharded(path, read_checkpoint)
    size = check_file_size(path)
    refuse_exported_file(path)
    with path.open("rb") as file:
        beginning = file.read(_TAR_MARK_AT + 5)
    container, read = _detect_format(path, beginning, size)
    try:
        checkpoint = read(path)
    except WeightsError:
        raise
    except pickle.UnpicklingError as error:
        raise WeightsError(f"{path}: refused, nothing was run: {first_line(error)}") from None
    except zipfile.BadZipFile:
        raise WeightsError(
            f"{path}: damaged: the end of the archive is missing or broken, as after a download "
            "that was cut off; copy or download it again"
        ) from None
    except NoTableError as error:
        raise WeightsError(f"{path}: a {container} file without weights: {error}") from None
    except _DAMAGE as error:
        raise WeightsError(
            f"{path}: damaged, or not a {container} file: {first_line(error)}"
        ) from None
    if not any(checkpoint.entries.values()):
        raise WeightsError(
            f"{path}: a {container} file without named tensors{_what_it_holds(checkpoint)}"
        )
    _check_names(checkpoint)
    return checkpoint


def _what_it_holds(checkpoint: Checkpoint) -> str:
    """Return the end of an error message: what a file without named tensors holds."""
    if "param_groups" in checkpoint.other_keys:
        return "; it holds the state of an optimizer"
    if not checkpoint.unknown_objects:
        return ""
    if _LOADS_TENSORS in checkpoint.unknown_objects:
        return "; pickle wrote its tensors: load it with pickle, and save it with torch.save"
    names = abbreviate([name[:100] for name in checkpoint.unknown_objects], _NUM_LISTED)
    return f"; it names objects that were not imported or run: {names}"


def _check_names(checkpoint: Checkpoint) -> None:
    """Raise WeightsError if a name is very long or has control characters."""
    tables = {**checkpoint.entries, **checkpoint.small_tables}
    groups = ({*tables, *checkpoint.other_keys}, *tables.values())
    for names in groups:
        for name in names:
            if len(name) > _LONGEST_NAME or not name.isprintable():
                raise WeightsError(
                    f"{checkpoint.path}: damaged, or not a {checkpoint.container} file: "
                    f"it holds the name {name[:40]!r}"
                )


def _detect_format(
    path: Path, beginning: bytes, size: int
) -> tuple[str, Callable[[Path], Checkpoint]]:
    """Return the name of the file format and the function that reads it."""
    if beginning.startswith(b"PK\x03\x04"):
        return "torch zip", _torch_reader("torch zip", read_zip)
    if beginning.startswith(LEGACY_BEGINNING):
        return "legacy torch", _torch_reader("legacy torch", read_legacy)
    if beginning.startswith(b"\x89HDF\r\n\x1a\n"):
        return "HDF5", _single_entry_reader("HDF5", read_hdf5)
    if _is_safetensors(beginning, size):
        return "safetensors", _read_safetensors
    if path.suffix == ".caffemodel":
        return "caffemodel", _single_entry_reader("caffemodel", read_caffe)
    if path.suffix == ".onnx":
        return "ONNX", _single_entry_reader("ONNX", read_onnx)
    if beginning[:1] == b"\x80" or path.suffix in (".pkl", ".pickle"):
        return "pickle of arrays", _torch_reader("pickle of arrays", _read_arrays)
    raise WeightsError(f"{path} is {_other_file(beginning)}")


def _other_file(beginning: bytes) -> str:
    """Return what a file of an unknown format is, with what to do."""
    if beginning[_TAR_MARK_AT:] == b"ustar":
        return "no weight file: it is a tar archive; unpack it first"
    for first_bytes, explanation in _OTHER_FILES.items():
        if beginning.lstrip().lower().startswith(first_bytes):
            return f"no weight file: it is {explanation}"
    return f"not a weight file of a known format; formats are {READABLE}"


def _torch_reader(
    container: str, read: Callable[[Path], TorchFile]
) -> Callable[[Path], Checkpoint]:
    def read_tables(path: Path) -> Checkpoint:
        content = read(path)
        tables = find_tables(content.value, content.locate)
        return Checkpoint(
            path=path,
            container=container,
            entries=tables.entries,
            other_keys=tables.other_keys,
            small_tables=tables.small,
            unknown_objects=content.unknown_objects,
            texts=tables.texts,
            layer_settings=tables.settings,
            class_lists=class_lists_of(content.value),
        )

    return read_tables


def _read_arrays(path: Path) -> TorchFile:
    """Read a pickle of arrays, whose values lie in the pickle itself."""
    check_file_size(path, _LARGEST_ARRAYS_BYTES)
    content = read_pickle(path.read_bytes())
    return TorchFile(value=content.value, unknown_objects=content.unknown_objects, regions={})


def _single_entry_reader(
    container: str, read: Callable[[Path], Mapping[str, StoredTensor]]
) -> Callable[[Path], Checkpoint]:
    return lambda path: Checkpoint(path=path, container=container, entries={"": read(path)})


def _is_safetensors(beginning: bytes, size: int) -> bool:
    """Return whether a file begins with the length of a header and the header, which is JSON."""
    if len(beginning) <= 8 or beginning[8:9] != b"{":
        return False
    (header_length,) = struct.unpack("<Q", beginning[:8])
    return bool(header_length <= size)


def _read_safetensors(path: Path) -> Checkpoint:
    """Let the library check the header, then read tensors from their place in the file.

    The library itself would parse the whole header again for each tensor.
    """
    try:
        with safetensors.safe_open(str(path), framework="pt") as checked:
            metadata = checked.metadata() or {}
    except safetensors.SafetensorError as error:
        raise ValueError(first_line(error)) from None
    if is_written_by_reslearn(metadata) and not is_intact(path):
        raise WeightsError(f"{path}: damaged, or of an earlier version: its digest does not fit")
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(length))
    tensors: dict[str, StoredTensor] = {}
    for name in sorted(header.keys() - {"__metadata__"}):
        entry = header[name]
        code, (begin, end) = entry["dtype"], entry["data_offsets"]
        if code not in _SAFETENSORS_DTYPES:
            raise WeightsError(
                f"{path}: {name} has dtype {code}; allowed are {', '.join(_SAFETENSORS_DTYPES)}"
            )
        region = FileRegion(path=path, offset=8 + length + begin, num_bytes=end - begin)
        tensors[name] = region.tensor(DTYPES[_SAFETENSORS_DTYPES[code]], entry["shape"])
    return Checkpoint(path=path, container="safetensors", entries={"": tensors}, metadata=metadata)
