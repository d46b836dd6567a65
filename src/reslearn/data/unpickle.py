"""Read pickles that are a published data format (CIFAR) without letting them run code.

A pickle may name any function to call. This reader accepts only the few names that numpy writes for
arrays of bytes, and replaces them by stand-ins. With numpy's own functions a crafted file could set
the flags of a data type, which corrupts memory.
"""

import io
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from reslearn.data.errors import DataError

_MAX_BYTES = 400_000_000  # the largest published file (CIFAR-100's `train`) has 155 MB


class _DType:
    """Stands for `numpy.dtype`, restricted to uint8."""

    def __init__(self, code: Any, align: Any = 0, copy: Any = 1) -> None:
        if code not in ("u1", b"u1"):
            raise pickle.UnpicklingError(f"it holds an array of {code!r}, not of bytes")

    def __setstate__(self, state: Any) -> None:
        """Ignore byte order and similar settings, which bytes do not have."""


class _Array:
    """Stands for a `numpy.ndarray` of uint8, without copying the content of the pickle."""

    values: npt.NDArray[np.uint8]

    def __setstate__(self, state: tuple[Any, Any, Any, Any, Any]) -> None:
        _, shape, dtype, is_fortran, content = state
        if not (isinstance(dtype, _DType) and isinstance(content, bytes)):
            raise pickle.UnpicklingError("it holds an array that is not of bytes")
        self.values = np.frombuffer(content, np.uint8).reshape(
            shape, order="F" if is_fortran else "C"
        )


def _reconstruct(subtype: Any, shape: Any, code: Any) -> _Array:
    """Stand for `numpy.core.multiarray._reconstruct`, which makes an empty array."""
    return _Array()


def _encode(text: str, encoding: str) -> bytes:
    """Stand for `_codecs.encode`: Python 3 writes bytes this way in the protocol of Python 2."""
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
    """Return the dictionary in a published pickle.

    Keys become text, since Python 2 wrote bytes. Arrays are uint8 and read-only.

    Raises:
        DataError: If the file is truncated or not a pickle, or holds anything but arrays of bytes,
            lists, numbers and strings.
    """
    if path.stat().st_size > _MAX_BYTES:
        raise DataError(
            f"{path} has {path.stat().st_size} bytes; no published file has more than {_MAX_BYTES}"
        )
    try:
        value = _Reader(io.BytesIO(path.read_bytes()), encoding="bytes").load()
        if not isinstance(value, dict):
            raise pickle.UnpicklingError(f"it holds a {type(value).__name__}, not a dictionary")
        entries = {
            _text(key): entry.values if isinstance(entry, _Array) else entry
            for key, entry in value.items()
        }
    except Exception as error:  # for foreign bytes the unpickler raises errors of any type
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(f"{path} is truncated or not a published data file: {reason}") from None
    return entries


def _text(key: object) -> str:
    return key.decode("latin-1") if isinstance(key, bytes) else str(key)
