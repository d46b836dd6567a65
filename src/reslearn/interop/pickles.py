"""Pickles read without letting them run anything: only tables, lists, numbers, texts and arrays come out.

A pickle is a program, and may name any function to be called. Here it may name those that tensors and arrays are written with, and what
it gets are stand-ins that note shape, type and place. Whatever else it asks for is refused, and told. Before it runs, its
instructions are looked through: known ones only, and no index into its memo beyond its own length (which would take memory).
"""

import io
import math
import pickle
import pickletools
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from reslearn.interop.stored import Stored, checked_shape

# Those with which other processes, extension registries and out-of-band buffers come in are left out.
_FORBIDDEN = {"INST", "OBJ", "EXT1", "EXT2", "EXT4", "NEXT_BUFFER", "READONLY_BUFFER", "PERSID"}
_PUTS = {"PUT", "BINPUT", "LONG_BINPUT"}

DTYPES = {
    "float16": torch.float16, "float32": torch.float32, "float64": torch.float64, "bfloat16": torch.bfloat16, "int8": torch.int8,
    "int16": torch.int16, "int32": torch.int32, "int64": torch.int64, "uint8": torch.uint8, "bool": torch.bool,
}  # fmt: skip
_NUMPY = {
    "f2": "float16", "f4": "float32", "f8": "float64", "i1": "int8", "i2": "int16", "i4": "int32", "i8": "int64", "u1": "uint8",
    "b1": "bool",
}  # fmt: skip


class Table(OrderedDict[Any, Any]):
    """`collections.OrderedDict`; attributes that a pickle would set on it are dropped."""

    def __setstate__(self, state: Any) -> None:
        """Nothing of it is needed."""


class Record:
    """What stands for an object whose content does not matter here, such as the settings of a training (`argparse.Namespace`)."""

    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        """Whatever it is made from is dropped."""

    def __setstate__(self, state: Any) -> None:
        """Dropped as well."""


class NumpyType:
    """`numpy.dtype`, as far as it has a counterpart in torch."""

    def __init__(self, code: Any, align: Any = 0, copy: Any = 1) -> None:
        text = code.decode("latin-1") if isinstance(code, bytes) else str(code)
        self.code = text.lstrip("<|=")

    def __setstate__(self, state: Any) -> None:
        if isinstance(state, tuple) and len(state) > 1 and state[1] in (">", b">"):
            raise pickle.UnpicklingError("it holds numbers with the high byte first")

    def dtype(self) -> torch.dtype:
        if self.code not in _NUMPY:
            raise pickle.UnpicklingError(f"it holds an array of {self.code!r}, which is no kind of weight")
        return DTYPES[_NUMPY[self.code]]


class NumpyArray:
    """`numpy.ndarray`: shape, type and bytes."""

    stored: Stored | None = None

    def __setstate__(self, state: tuple[Any, Any, Any, Any, Any]) -> None:
        _, shape, dtype, is_fortran, content = state
        self.stored = _array(content, dtype, shape, bool(is_fortran))


def read_pickle(
    content: bytes, allowed: Mapping[tuple[str, str], Any] | None = None, persistent: Callable[[Any], Any] | None = None
) -> Any:
    """The object in a pickle. pickle.UnpicklingError in one line for whatever is not a harmless pickle.

    allowed: stand-ins for further names. persistent: what to make of references to something outside (torch's storages).
    """
    check_instructions(content)
    names = {**_ALLOWED, **(allowed or {})}

    class Reader(pickle.Unpickler):
        def find_class(self, module: str, name: str) -> Any:
            if (module, name) not in names:
                raise pickle.UnpicklingError(f"it would import {module}.{name}, which could run anything")
            return names[module, name]

        def persistent_load(self, pid: Any) -> Any:
            if persistent is None:
                raise pickle.UnpicklingError("it refers to something outside of it")
            return persistent(pid)

    try:
        return Reader(io.BytesIO(content), encoding="latin1").load()
    except pickle.UnpicklingError:
        raise
    except Exception as error:  # foreign bytes make the unpickler raise anything
        raise pickle.UnpicklingError(f"{type(error).__name__}: {error}"[:200]) from None


def check_instructions(content: bytes) -> int:
    """Look through the instructions of the pickle at the beginning of `content`, without running them; returns its length in bytes."""
    try:
        for opcode, argument, _position in pickletools.genops(file := io.BytesIO(content)):
            if opcode.name in _FORBIDDEN:
                raise pickle.UnpicklingError(f"it uses the instruction {opcode.name}, which no file of weights needs")
            if opcode.name in _PUTS and isinstance(argument, int) and not 0 <= argument <= len(content):
                raise pickle.UnpicklingError(f"it numbers an object {argument}, with {len(content)} bytes in all")
        return file.tell()
    except pickle.UnpicklingError:
        raise
    except Exception as error:  # truncated or foreign
        raise pickle.UnpicklingError(f"{type(error).__name__}: {error}"[:200]) from None


def text(key: object) -> str:
    """A key of a table as text; Python 2 wrote bytes."""
    return key.decode("latin-1") if isinstance(key, bytes) else str(key)


def _array(content: Any, dtype: Any, shape: Any, is_fortran: bool) -> Stored:
    if not isinstance(dtype, NumpyType) or not isinstance(shape, tuple):
        raise pickle.UnpicklingError("it holds an array of something else than numbers")
    raw = content.encode("latin-1") if isinstance(content, str) else content
    kind, size = dtype.dtype(), checked_shape(shape)
    if not isinstance(raw, (bytes, bytearray)) or len(raw) != math.prod(size) * kind.itemsize:
        raise pickle.UnpicklingError(f"it holds an array of shape {size} with other than its bytes")

    def read() -> Tensor:
        if not raw:
            return torch.empty(size, dtype=kind)
        flat = torch.frombuffer(bytearray(raw), dtype=kind)
        if not is_fortran:
            return flat.reshape(size)
        return flat.reshape(tuple(reversed(size))).permute(*reversed(range(len(size)))).contiguous()

    return Stored(shape=size, dtype=kind, read=read)


def _encode(value: str, encoding: str = "latin1") -> bytes:
    """`_codecs.encode`, as which Python 3 writes bytes in Python 2's protocol."""
    if encoding not in ("latin1", "latin-1"):
        raise pickle.UnpicklingError(f"it encodes as {encoding!r}")
    return value.encode("latin-1")


def _reconstruct(subtype: Any, shape: Any, code: Any) -> NumpyArray:
    return NumpyArray()


def _from_buffer(content: Any, dtype: Any, shape: Any, order: Any = "C") -> NumpyArray:
    array = NumpyArray()
    array.stored = _array(content, dtype, shape, order == "F")
    return array


_ALLOWED: dict[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): Table,
    ("argparse", "Namespace"): Record,
    ("_codecs", "encode"): _encode,
    ("builtins", "set"): Record,
    ("builtins", "bytearray"): lambda *parts: parts[0] if parts and isinstance(parts[0], bytes) else b"",
    ("numpy", "ndarray"): NumpyArray,
    ("numpy", "dtype"): NumpyType,
    **{(f"numpy.{core}.multiarray", "_reconstruct"): _reconstruct for core in ("core", "_core")},
    **{(f"numpy.{core}.multiarray", "scalar"): Record for core in ("core", "_core")},
    **{(f"numpy.{core}.numeric", "_frombuffer"): _from_buffer for core in ("core", "_core")},
}
