"""Pickles read without letting them run anything: only tables, lists, numbers, texts and arrays come out.

A pickle is a program, and may name any function to be called. Here it may name those that tensors and arrays are written with, and what
it gets are stand-ins that note shape, type and place. Whatever else it asks for is refused, and told. Before it runs, its
instructions are looked through: known ones only, not more than a checkpoint needs (each may make an object, of which a byte of a file
can ask for two hundred), no index into its memo beyond its own length, no tuples so deep that the hash of one ends the process.
"""

import io
import math
import pickle
import pickletools
from collections import OrderedDict
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor

from reslearn.interop.stored import Stored, checked_shape

# Those with which other processes, extension registries and out-of-band buffers come in are left out.
_FORBIDDEN = {"INST", "OBJ", "EXT1", "EXT2", "EXT4", "NEXT_BUFFER", "READONLY_BUFFER", "PERSID"}
_PUTS = {"PUT", "BINPUT", "LONG_BINPUT"}
_GETS = {"GET", "BINGET", "LONG_BINGET"}
_NESTING = {"TUPLE", "TUPLE1", "TUPLE2", "TUPLE3", "FROZENSET"}
_MOST_INSTRUCTIONS = (
    2_000_000  # 30 a tensor: resnet1202 with two moments and an average has 0.8 million
)
_DEEPEST = 100  # a tuple in a tuple: sizes and strides are 2 deep
_LONGEST_NAME = 200

DTYPES = {
    "float16": torch.float16,
    "float32": torch.float32,
    "float64": torch.float64,
    "bfloat16": torch.bfloat16,
    "int8": torch.int8,
    "int16": torch.int16,
    "int32": torch.int32,
    "int64": torch.int64,
    "uint8": torch.uint8,
    "bool": torch.bool,
}
_NUMPY = {
    "f2": "float16",
    "f4": "float32",
    "f8": "float64",
    "i1": "int8",
    "i2": "int16",
    "i4": "int32",
    "i8": "int64",
    "u1": "uint8",
    "b1": "bool",
}


class Allowance:
    """What the calls in a pickle may make of it. One text of a megabyte, referred to a thousand times, would be arrays of a gigabyte."""

    def __init__(self, num_bytes: int) -> None:
        self._bytes, self._items = (
            2 * num_bytes,
            _MOST_INSTRUCTIONS,
        )  # as text, and the bytes that it is encoded to

    def take(self, *, num_bytes: int = 0, num_items: int = 0) -> None:
        self._bytes -= num_bytes
        self._items -= num_items
        if self._bytes < 0 or self._items < 0:
            raise pickle.UnpicklingError(
                "it makes more of its content than there is, by using parts of it again and again"
            )


class Called:
    """A function that a pickle may call. On the function itself it could set attributes, which would last for all later files."""

    __slots__ = ("_function",)

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function

    def __call__(self, *arguments: Any) -> Any:
        return self._function(*arguments)

    def __setstate__(self, state: Any) -> None:
        raise pickle.UnpicklingError("it changes a function")


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
        self.code = (
            text(code).lstrip("<|=") if isinstance(code, str | bytes) and len(code) < 16 else "?"
        )

    def __setstate__(self, state: Any) -> None:
        if isinstance(state, tuple) and len(state) > 1 and state[1] in (">", b">"):
            raise pickle.UnpicklingError("it holds numbers with the high byte first")

    def dtype(self) -> torch.dtype:
        if self.code not in _NUMPY:
            raise pickle.UnpicklingError(
                f"it holds an array of {self.code!r}, which is no kind of weight"
            )
        return DTYPES[_NUMPY[self.code]]


class NumpyArray:
    """`numpy.ndarray`: shape, type and bytes."""

    stored: Stored | None = None

    def __init__(self, allowance: Allowance) -> None:
        self._allowance = allowance

    def __setstate__(self, state: tuple[Any, Any, Any, Any, Any]) -> None:
        _, shape, dtype, is_fortran, content = state
        self.stored = _array(self._allowance, content, dtype, shape, bool(is_fortran))


def read_pickle(
    content: bytes,
    allowed: Mapping[tuple[str, str], Any] | None = None,
    persistent: Callable[[Any], Any] | None = None,
) -> Any:
    """The object in a pickle. pickle.UnpicklingError in one line for whatever is not a harmless pickle.

    allowed: stand-ins for further names. persistent: what to make of references to something outside (torch's storages).
    """
    check_instructions(content)
    allowance = Allowance(len(content))
    counted = {name: Called(partial(function, allowance)) for name, function in _COUNTED.items()}
    names = {**_ALLOWED, **counted, **(allowed or {})}

    class Reader(pickle.Unpickler):
        def find_class(self, module: str, name: str) -> Any:
            if (module, name) not in names:
                raise pickle.UnpicklingError(
                    f"it would import {f'{module}.{name}'[:_LONGEST_NAME]}, which could run anything"
                )
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
    depths = _Depths()
    try:
        for number, (opcode, argument, _position) in enumerate(
            pickletools.genops(file := io.BytesIO(content))
        ):
            if number >= _MOST_INSTRUCTIONS:
                raise pickle.UnpicklingError(
                    f"it has more than {_MOST_INSTRUCTIONS:,} instructions, as no checkpoint of a network here"
                )
            if opcode.name in _FORBIDDEN:
                raise pickle.UnpicklingError(
                    f"it uses the instruction {opcode.name}, which no file of weights needs"
                )
            if (
                opcode.name in _PUTS
                and isinstance(argument, int)
                and not 0 <= argument <= len(content)
            ):
                raise pickle.UnpicklingError(
                    f"it numbers an object {argument}, with {len(content)} bytes in all"
                )
            depths.follow(opcode, argument)
        return file.tell()
    except pickle.UnpicklingError:
        raise
    except Exception as error:  # truncated or foreign
        raise pickle.UnpicklingError(f"{type(error).__name__}: {error}"[:200]) from None


class _Depths:
    """How deep tuples lie in one another, for each object on the stack: the hash of a tuple goes through all of it, in C and unguarded.

    What holds another is taken to be as deep as that, and a tuple or frozen set by one deeper: what comes out is never too small, since
    what has a hash is complete when it is made.
    """

    def __init__(self) -> None:
        self.stack: list[int] = []
        self.marks: list[int] = []
        self.memo: dict[Any, int] = {}

    def follow(self, opcode: pickletools.OpcodeInfo, argument: Any) -> None:
        name, before = opcode.name, opcode.stack_before
        if name == "MARK":
            self.marks.append(len(self.stack))
        elif name in _GETS:
            self.stack.append(self.memo.get(argument, 0))
        elif name in _PUTS or name == "MEMOIZE":
            self.memo[len(self.memo) if name == "MEMOIZE" else argument] = self.stack[-1]
        elif name == "DUP":
            self.stack.append(self.stack[-1])
        elif (
            name == "POP" and self.marks and self.marks[-1] == len(self.stack)
        ):  # it takes a mark off as well
            self.marks.pop()
        else:
            marked = pickletools.markobject in before
            start = self.marks.pop() if marked else len(self.stack)
            start -= before.index(pickletools.markobject) if marked else len(before)
            depth = max(self.stack[start:], default=0) + (name in _NESTING)
            if start < 0:
                raise pickle.UnpicklingError("it takes off more than it put there")
            if depth > _DEEPEST:
                raise pickle.UnpicklingError("its tuples lie too deep in one another")
            self.stack[start:] = [depth] * len(opcode.stack_after)


def text(key: object) -> str:
    """A key of a table as text; Python 2 wrote bytes."""
    return key.decode("latin-1") if isinstance(key, bytes) else str(key)


def _array(allowance: Allowance, content: Any, dtype: Any, shape: Any, is_fortran: bool) -> Stored:
    if not isinstance(dtype, NumpyType) or not isinstance(shape, tuple):
        raise pickle.UnpicklingError("it holds an array of something else than numbers")
    allowance.take(num_bytes=len(content) if isinstance(content, str) else 0)
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


def _encode(allowance: Allowance, value: str, encoding: str = "latin1") -> bytes:
    """`_codecs.encode`, as which Python 3 writes bytes in Python 2's protocol."""
    if encoding not in ("latin1", "latin-1"):
        raise pickle.UnpicklingError(f"it encodes as {encoding!r}"[:_LONGEST_NAME])
    allowance.take(num_bytes=len(value))
    return value.encode("latin-1")


def _table(allowance: Allowance, items: Any = ()) -> Table:
    """`collections.OrderedDict`; Python 2 wrote its pairs as a list."""
    allowance.take(num_items=len(items))
    return Table(items)


def _reconstruct(allowance: Allowance, subtype: Any, shape: Any, code: Any) -> NumpyArray:
    return NumpyArray(allowance)


def _from_buffer(
    allowance: Allowance, content: Any, dtype: Any, shape: Any, order: Any = "C"
) -> NumpyArray:
    array = NumpyArray(allowance)
    array.stored = _array(allowance, content, dtype, shape, order == "F")
    return array


_ALLOWED: dict[tuple[str, str], Any] = {
    ("argparse", "Namespace"): Record,
    ("builtins", "set"): Record,
    ("builtins", "bytearray"): Called(
        lambda *parts: parts[0] if parts and isinstance(parts[0], bytes) else b""
    ),
    ("numpy", "ndarray"): NumpyArray,
    ("numpy", "dtype"): NumpyType,
    **{(f"numpy.{core}.multiarray", "scalar"): Record for core in ("core", "_core")},
}
_COUNTED: dict[tuple[str, str], Callable[..., Any]] = {
    ("collections", "OrderedDict"): _table,
    ("_codecs", "encode"): _encode,
    **{(f"numpy.{core}.multiarray", "_reconstruct"): _reconstruct for core in ("core", "_core")},
    **{(f"numpy.{core}.numeric", "_frombuffer"): _from_buffer for core in ("core", "_core")},
}
