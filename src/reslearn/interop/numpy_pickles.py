"""Arrays of numpy in a pickle: numbers, and texts such as the names of classes."""

import math
from typing import Any

import torch
from torch import Tensor

from reslearn.interop.stand_ins import (
    CallContext,
    decode_key,
    describe,
    named,
    refuse,
)
from reslearn.interop.stored import DTYPES, StoredTensor, check_shape

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
# Encodings and bytes per character of the types U (texts) and S (bytes).
_TEXT_TYPES = {"U": ("utf-32-le", 4), "S": ("latin-1", 1)}
_MOST_TEXTS = 100_000


class NumpyType:
    """Stands in for `numpy.dtype`.

    Attributes:
        code: Kind and size of a value, such as "f4" for float32 and "U20" for texts.
    """

    __slots__ = ("code",)

    def __init__(self, code: str) -> None:
        self.code = code

    def set_state(self, _context: CallContext, state: Any) -> None:
        """Check the byte order, the second value of numpy's state."""
        if type(state) is tuple and len(state) > 1 and state[1] in (">", b">"):
            refuse("it holds big-endian numbers")

    @property
    def dtype(self) -> torch.dtype | None:
        """The dtype in torch, or None if the values are not numbers that torch has."""
        return DTYPES[_NUMPY_DTYPES[self.code]] if self.code in _NUMPY_DTYPES else None


_UNKNOWN_TYPE = NumpyType("?")


class NumpyArray:
    """Stands in for `numpy.ndarray`.

    Attributes:
        stored: The array as a tensor; None if its values are not numbers.
    """

    __slots__ = ("_content", "_shape", "_type", "stored")

    def __init__(self) -> None:
        self.stored: StoredTensor | None = None
        self._content: Any = None
        self._shape: tuple[int, ...] = ()
        self._type = _UNKNOWN_TYPE

    def set_state(self, context: CallContext, state: Any) -> None:
        """Fill the array with numpy's state: version, shape, type, order of axes, content."""
        if type(state) is not tuple or len(state) != 5:
            refuse("it holds an array without content")
        self.fill(context, *state[1:])

    def fill(
        self, context: CallContext, shape: Any, numpy_type: Any, is_fortran: Any, content: Any
    ) -> None:
        """Fill the array with numbers; keep other values as they are.

        Args:
            is_fortran: Whether the first axis varies fastest.
            content: Bytes, Python 2's texts of bytes, or a list of objects.
        """
        if not isinstance(numpy_type, NumpyType) or type(shape) is not tuple:
            refuse("it holds an array of something other than numbers")
        if type(content) is str:
            context.allowance.take(num_bytes=len(content))
            content = content.encode("latin-1")
        self._content, self._shape, self._type = content, check_shape(shape), numpy_type
        if numpy_type.dtype is not None:
            self.stored = _numbers(self._shape, numpy_type.dtype, content, bool(is_fortran))

    def texts(self) -> list[str]:
        """Return the elements if all are texts, in the order of the file; else an empty list."""
        num_texts, content = math.prod(self._shape), self._content
        if num_texts > _MOST_TEXTS:
            return []
        if type(content) is list:
            return content if all(type(text) is str for text in content) else []
        kind, length = self._type.code[:1], self._type.code[1:]
        if (
            kind not in _TEXT_TYPES
            or not length.isdecimal()
            or not isinstance(content, bytes | bytearray)
        ):
            return []
        encoding, num_bytes = _TEXT_TYPES[kind]
        size = num_bytes * int(length)
        if size * num_texts != len(content) or not size:
            return []
        parts = [content[index * size : (index + 1) * size] for index in range(num_texts)]
        return [part.decode(encoding, errors="replace").rstrip("\0") for part in parts]


def _numbers(
    shape: tuple[int, ...], dtype: torch.dtype, content: Any, is_fortran: bool
) -> StoredTensor:
    num_bytes = math.prod(shape) * dtype.itemsize
    if not isinstance(content, bytes | bytearray) or len(content) != num_bytes:
        refuse(f"it holds an array of shape {shape} without {num_bytes} bytes")

    def read() -> Tensor:
        if not content:
            return torch.empty(shape, dtype=dtype)
        flat = torch.frombuffer(bytearray(content), dtype=dtype)
        if not is_fortran or len(shape) < 2:
            return flat.reshape(shape)
        reversed_axes = tuple(reversed(range(len(shape))))
        return flat.reshape(tuple(reversed(shape))).permute(*reversed_axes).contiguous()

    return StoredTensor(shape=shape, dtype=dtype, read=read)


def _type(_context: CallContext, code: Any, *_arguments: Any) -> NumpyType:
    """Stand in for `numpy.dtype`; return its code."""
    is_code = type(code) in (str, bytes) and len(code) < 16
    return NumpyType(decode_key(code).lstrip("<|=") if is_code else "?")


def _reconstruct(_context: CallContext, *_arguments: Any) -> NumpyArray:
    """Stand in for numpy's `_reconstruct`; the content follows as the state of the array."""
    return NumpyArray()


def _from_buffer(
    context: CallContext, content: Any, numpy_type: Any, shape: Any, order: Any = "C"
) -> NumpyArray:
    """Stand in for numpy's `_frombuffer`."""
    array = NumpyArray()
    array.fill(context, shape, numpy_type, order == "F", content)
    return array


def _scalar(context: CallContext, numpy_type: Any, content: Any = b"") -> Any:
    """Stand in for numpy's `scalar`; return a Python number or text."""
    if not isinstance(numpy_type, NumpyType):
        refuse(f"it holds a number of type {describe(numpy_type)}")
    array = NumpyArray()
    array.fill(context, (1,), numpy_type, False, content)
    if array.stored is not None:
        return array.stored.read().item()
    texts = array.texts()
    return texts[0] if texts else context.stand_in(f"numpy.{numpy_type.code}", (content,))


# numpy renamed its package `core` to `_core` in version 2.
_MULTIARRAY = ("numpy.core.multiarray", "numpy._core.multiarray")
_NUMERIC = ("numpy.core.numeric", "numpy._core.numeric")

NUMPY_FUNCTIONS = {
    **named(("numpy",), "dtype", _type),
    **named(("numpy",), "ndarray", None),
    **named(_MULTIARRAY, "scalar", _scalar),
    **named(_MULTIARRAY, "_reconstruct", _reconstruct),
    **named(_NUMERIC, "_frombuffer", _from_buffer),
}
