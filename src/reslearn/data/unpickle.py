"""Pickles that are a published data format (CIFAR), read without letting them run anything.

A pickle may name any function to be called. Here it can name the four that numpy's arrays of bytes are written with, and what it gets are
stand-ins: numpy's own would let a crafted file set the flags of a data type, which is memory corruption.
"""

import io
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from reslearn.data.errors import DataError

_LARGEST_BYTES = 400_000_000  # the largest published file (CIFAR-100's `train`) has 155 MB


class _DType:
    """`numpy.dtype`, as far as it is uint8."""

    def __init__(self, code: Any, align: Any = 0, copy: Any = 1) -> None:
        if code not in ("u1", b"u1"):
            raise pickle.UnpicklingError(f"it holds an array of {code!r}, not of bytes")

    def __setstate__(self, state: Any) -> None:
        """Byte order and the like: nothing to know about bytes."""


class _Array:
    """`numpy.ndarray` of uint8, without a copy of what the pickle holds."""

    values: npt.NDArray[np.uint8]

    def __setstate__(self, state: tuple[Any, Any, Any, Any, Any]) -> None:
        _, shape, dtype, is_fortran, content = state
        if not (isinstance(dtype, _DType) and isinstance(content, bytes)):
            raise pickle.UnpicklingError("it holds an array that is not of bytes")
        self.values = np.frombuffer(content, np.uint8).reshape(
            shape, order="F" if is_fortran else "C"
        )


def _reconstruct(subtype: Any, shape: Any, code: Any) -> _Array:
    """`numpy.core.multiarray._reconstruct`: an array that is still empty."""
    return _Array()


def _encode(text: str, encoding: str) -> bytes:
    """`_codecs.encode`, as which Python 3 writes bytes in Python 2's protocol."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"it encodes as {encoding!r}")
    return text.encode("latin-1")


_ALLOWED: dict[tuple[str, str], Any] = {
    ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy._core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _DType,
    ("_codecs", "encode"): _encode,
}


class _Reader(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ALLOWED:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}")
        return _ALLOWED[module, name]


def read_pickle(path: Path) -> dict[str, Any]:
    """The dictionary in a published pickle, keys as text (Python 2 wrote bytes); its arrays are uint8 and read-only.

    Raises:
        DataError: where the file is truncated, foreign, or asks for anything but arrays of bytes, lists, numbers and strings.
    """
    if path.stat().st_size > _LARGEST_BYTES:
        raise DataError(
            f"{path} has {path.stat().st_size} bytes; no published file has more than {_LARGEST_BYTES}"
        )
    try:
        value = _Reader(io.BytesIO(path.read_bytes()), encoding="bytes").load()
        if not isinstance(value, dict):
            raise pickle.UnpicklingError(f"it holds a {type(value).__name__}, not a dictionary")
        entries = {
            _text(key): entry.values if isinstance(entry, _Array) else entry
            for key, entry in value.items()
        }
    except Exception as error:  # foreign bytes make the unpickler raise anything; whatever it is, they are not what was asked for
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(f"{path} is truncated or no published data file: {reason}") from None
    return entries


def _text(key: object) -> str:
    return key.decode("latin-1") if isinstance(key, bytes) else str(key)
