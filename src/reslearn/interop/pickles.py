"""Read pickles without running anything in them.

Only dicts, lists, numbers, texts and arrays come out.

A pickle is a program that may call any function by name. Here it may name only the functions that
write tensors and arrays, and it gets stand-ins for them, which record shape, dtype and place.
Everything else is refused with its name.

The instructions are checked before they run, because a hostile file of a few bytes could use up
memory or crash the process:

- Only known instructions are allowed, and not more than a checkpoint needs. Each may create an
  object, and one byte of a file can take two hundred bytes of memory.
- An index into the memo may not exceed the length of the pickle.
- Tuples may not be nested deeply: computing the hash of such a tuple overflows the C stack.
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

from reslearn.interop.stored import StoredTensor, check_shape

# These involve other processes, extension registries and out-of-band buffers.
_FORBIDDEN = {"INST", "OBJ", "EXT1", "EXT2", "EXT4", "NEXT_BUFFER", "READONLY_BUFFER", "PERSID"}
_PUTS = {"PUT", "BINPUT", "LONG_BINPUT"}
_GETS = {"GET", "BINGET", "LONG_BINGET"}
_NESTING = {"TUPLE", "TUPLE1", "TUPLE2", "TUPLE3", "FROZENSET"}
# A tensor takes 30 instructions. resnet1202 with two moments and an average takes 0.8 million.
_MAX_INSTRUCTIONS = 2_000_000
_MAX_NESTING = 100  # of tuples; shapes and strides are nested two deep
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
_NUMPY_DTYPES = {
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


def read_pickle(
    content: bytes,
    more_stand_ins: Mapping[tuple[str, str], Any] | None = None,
    persistent_load: Callable[[Any], Any] | None = None,
) -> Any:
    """Return the object in a pickle.

    Args:
        more_stand_ins: Stand-ins for further functions and types, by module and name.
        persistent_load: Resolves references to objects outside the pickle, such as torch's
            storages.

    Raises:
        pickle.UnpicklingError: If the pickle is damaged or not harmless. The message is one line.
    """
    check_instructions(content)
    limit = ExpansionLimit(len(content))
    stand_ins = dict(_ALLOWED)
    for name, function in _ALLOWED_WITH_LIMIT.items():
        stand_ins[name] = AllowedFunction(partial(function, limit))
    stand_ins |= more_stand_ins or {}
    unpickler = _RestrictedUnpickler(io.BytesIO(content), stand_ins, persistent_load)
    try:
        return unpickler.load()
    except pickle.UnpicklingError:
        raise
    except Exception as error:  # damaged content can make the unpickler raise any exception
        raise pickle.UnpicklingError(f"{type(error).__name__}: {error}"[:200]) from None


class _RestrictedUnpickler(pickle.Unpickler):
    """An unpickler that finds only stand-ins."""

    def __init__(
        self,
        file: io.BytesIO,
        stand_ins: Mapping[tuple[str, str], Any],
        resolve: Callable[[Any], Any] | None,
    ) -> None:
        super().__init__(file, encoding="latin1")
        self._stand_ins = stand_ins
        self._resolve = resolve

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self._stand_ins:
            full_name = f"{module}.{name}"[:_LONGEST_NAME]
            raise pickle.UnpicklingError(f"it would import {full_name}, which could run any code")
        return self._stand_ins[module, name]

    def persistent_load(self, pid: Any) -> Any:
        if self._resolve is None:
            raise pickle.UnpicklingError("it refers to an object outside the pickle")
        return self._resolve(pid)


def check_instructions(content: bytes) -> int:
    """Check the instructions of the pickle at the beginning of `content` without running them.

    Returns:
        The length of the pickle in bytes.

    Raises:
        pickle.UnpicklingError: If an instruction is not allowed, or there are too many.
    """
    nesting = _TupleNesting()
    file = io.BytesIO(content)
    try:
        for number, (opcode, argument, _position) in enumerate(pickletools.genops(file)):
            if number >= _MAX_INSTRUCTIONS:
                raise pickle.UnpicklingError(
                    f"it has more than {_MAX_INSTRUCTIONS:,} instructions, more than any checkpoint"
                )
            _check_instruction(opcode.name, argument, len(content))
            nesting.follow(opcode, argument)
        return file.tell()
    except pickle.UnpicklingError:
        raise
    except Exception as error:  # truncated, or not a pickle
        raise pickle.UnpicklingError(f"{type(error).__name__}: {error}"[:200]) from None


def _check_instruction(name: str, argument: Any, num_bytes: int) -> None:
    if name in _FORBIDDEN:
        raise pickle.UnpicklingError(
            f"it uses the instruction {name}, which no file of weights needs"
        )
    if name in _PUTS and isinstance(argument, int) and not 0 <= argument <= num_bytes:
        raise pickle.UnpicklingError(
            f"it stores an object under number {argument}, but has only {num_bytes} bytes"
        )


class _TupleNesting:
    """Tracks how deeply tuples are nested, for each object on the unpickler's stack.

    The hash of a tuple recurses through all tuples in it, in C and without a depth limit. An
    object that contains another counts as deep as the other object; a tuple or frozen set counts
    one deeper. The result is never too small, since a hashable object is complete when it is
    created.
    """

    def __init__(self) -> None:
        self.stack: list[int] = []
        self.marks: list[int] = []
        self.memo: dict[Any, int] = {}

    def follow(self, opcode: pickletools.OpcodeInfo, argument: Any) -> None:
        """Apply one instruction to the stack of depths."""
        name = opcode.name
        if name == "MARK":
            self.marks.append(len(self.stack))
        elif name in _GETS:
            self.stack.append(self.memo.get(argument, 0))
        elif name in _PUTS:
            self.memo[argument] = self.stack[-1]
        elif name == "MEMOIZE":
            self.memo[len(self.memo)] = self.stack[-1]
        elif name == "DUP":
            self.stack.append(self.stack[-1])
        elif name == "POP" and self.marks and self.marks[-1] == len(self.stack):
            self.marks.pop()  # POP may also remove a mark
        else:
            self._combine(opcode)

    def _combine(self, opcode: pickletools.OpcodeInfo) -> None:
        """Replace the arguments of an instruction on the stack by its results."""
        arguments = opcode.stack_before
        if pickletools.markobject in arguments:
            start = self.marks.pop() - arguments.index(pickletools.markobject)
        else:
            start = len(self.stack) - len(arguments)
        depth = max(self.stack[start:], default=0) + (opcode.name in _NESTING)
        if start < 0:
            raise pickle.UnpicklingError("it removes more from the stack than it has put there")
        if depth > _MAX_NESTING:
            raise pickle.UnpicklingError("its tuples are nested too deeply")
        self.stack[start:] = [depth] * len(opcode.stack_after)


class ExpansionLimit:
    """Limits how much the function calls of a pickle may create.

    A pickle may refer to one text of a megabyte a thousand times. If each reference became an
    array, the arrays would take a gigabyte.
    """

    def __init__(self, num_bytes: int) -> None:
        self._bytes = 2 * num_bytes  # content may be a text and the bytes it is encoded to
        self._items = _MAX_INSTRUCTIONS

    def take(self, *, num_bytes: int = 0, num_items: int = 0) -> None:
        self._bytes -= num_bytes
        self._items -= num_items
        if self._bytes < 0 or self._items < 0:
            raise pickle.UnpicklingError("it expands to more than it holds by repeating its parts")


class AllowedFunction:
    """A function that a pickle may call.

    A pickle could set attributes on the function itself, and they would last for all later files.
    """

    __slots__ = ("_function",)

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function

    def __call__(self, *arguments: Any) -> Any:
        return self._function(*arguments)

    def __setstate__(self, state: Any) -> None:
        raise pickle.UnpicklingError("it modifies a function")


class PlainDict(OrderedDict[Any, Any]):
    """Stands in for `collections.OrderedDict`, without attributes."""

    def __setstate__(self, state: Any) -> None:
        """Ignore attributes that a pickle would set."""


class IgnoredObject:
    """Stands in for an object whose content is not needed, such as `argparse.Namespace`."""

    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        """Ignore the arguments of the constructor."""

    def __setstate__(self, state: Any) -> None:
        """Ignore attributes that a pickle would set."""


class NumpyType:
    """Stands in for `numpy.dtype`, and records its type code."""

    def __init__(self, code: Any, align: Any = 0, copy: Any = 1) -> None:
        is_code = isinstance(code, str | bytes) and len(code) < 16
        self.code = decode_key(code).lstrip("<|=") if is_code else "?"

    def __setstate__(self, state: Any) -> None:
        if isinstance(state, tuple) and len(state) > 1 and state[1] in (">", b">"):
            raise pickle.UnpicklingError("it holds big-endian numbers")

    def dtype(self) -> torch.dtype:
        """Return the dtype in torch; raise UnpicklingError if torch has no such dtype."""
        if self.code not in _NUMPY_DTYPES:
            raise pickle.UnpicklingError(
                f"it holds an array of type {self.code!r}, which weights do not have"
            )
        return DTYPES[_NUMPY_DTYPES[self.code]]


class NumpyArray:
    """Stands in for `numpy.ndarray`, and describes its content."""

    stored: StoredTensor | None = None

    def __init__(self, limit: ExpansionLimit) -> None:
        self._limit = limit

    def __setstate__(self, state: tuple[Any, Any, Any, Any, Any]) -> None:
        _, shape, dtype, is_fortran, content = state
        self.stored = _array(self._limit, content, dtype, shape, bool(is_fortran))


def decode_key(key: object) -> str:
    """Return a key of a dict as text; Python 2 wrote bytes."""
    return key.decode("latin-1") if isinstance(key, bytes) else str(key)


def _array(
    limit: ExpansionLimit, content: Any, dtype: Any, shape: Any, is_fortran: bool
) -> StoredTensor:
    if not isinstance(dtype, NumpyType) or not isinstance(shape, tuple):
        raise pickle.UnpicklingError("it holds an array of something other than numbers")
    limit.take(num_bytes=len(content) if isinstance(content, str) else 0)
    raw = content.encode("latin-1") if isinstance(content, str) else content
    torch_dtype, size = dtype.dtype(), check_shape(shape)
    num_bytes = math.prod(size) * torch_dtype.itemsize
    if not isinstance(raw, (bytes, bytearray)) or len(raw) != num_bytes:
        raise pickle.UnpicklingError(f"it holds an array of shape {size} without {num_bytes} bytes")

    def read() -> Tensor:
        if not raw:
            return torch.empty(size, dtype=torch_dtype)
        flat = torch.frombuffer(bytearray(raw), dtype=torch_dtype)
        if not is_fortran:
            return flat.reshape(size)
        reversed_axes = tuple(reversed(range(len(size))))
        return flat.reshape(tuple(reversed(size))).permute(*reversed_axes).contiguous()

    return StoredTensor(shape=size, dtype=torch_dtype, read=read)


def _encode(limit: ExpansionLimit, value: str, encoding: str = "latin1") -> bytes:
    """Stand in for `_codecs.encode`, with which Python 3 writes bytes in Python 2's protocol."""
    if encoding not in ("latin1", "latin-1"):
        raise pickle.UnpicklingError(f"it encodes as {encoding!r}"[:_LONGEST_NAME])
    limit.take(num_bytes=len(value))
    return value.encode("latin-1")


def _ordered_dict(limit: ExpansionLimit, items: Any = ()) -> PlainDict:
    """Stand in for `collections.OrderedDict`; Python 2 wrote its items as a list of pairs."""
    limit.take(num_items=len(items))
    return PlainDict(items)


def _reconstruct(limit: ExpansionLimit, subtype: Any, shape: Any, code: Any) -> NumpyArray:
    """Stand in for numpy's `_reconstruct`; the content follows in `__setstate__`."""
    return NumpyArray(limit)


def _from_buffer(
    limit: ExpansionLimit, content: Any, dtype: Any, shape: Any, order: Any = "C"
) -> NumpyArray:
    """Stand in for numpy's `_frombuffer`."""
    array = NumpyArray(limit)
    array.stored = _array(limit, content, dtype, shape, order == "F")
    return array


def _bytearray(*parts: Any) -> bytes:
    return parts[0] if parts and isinstance(parts[0], bytes) else b""


_ALLOWED: dict[tuple[str, str], Any] = {
    ("argparse", "Namespace"): IgnoredObject,
    ("builtins", "set"): IgnoredObject,
    ("builtins", "bytearray"): AllowedFunction(_bytearray),
    ("numpy", "ndarray"): NumpyArray,
    ("numpy", "dtype"): NumpyType,
    ("numpy.core.multiarray", "scalar"): IgnoredObject,
    ("numpy._core.multiarray", "scalar"): IgnoredObject,
}
_ALLOWED_WITH_LIMIT: dict[tuple[str, str], Callable[..., Any]] = {
    ("collections", "OrderedDict"): _ordered_dict,
    ("_codecs", "encode"): _encode,
    ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy._core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy.core.numeric", "_frombuffer"): _from_buffer,
    ("numpy._core.numeric", "_frombuffer"): _from_buffer,
}
