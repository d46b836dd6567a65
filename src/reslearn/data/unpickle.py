"""Pickles that are a published data format (CIFAR), read without letting them run anything.

A pickle may name any function to be called; here it can name the five that arrays are made of, and no arrays of objects.
"""

import _codecs
import io
import pickle
from pathlib import Path
from typing import Any

import numpy as np

from reslearn.data.errors import DataError

_LARGEST_BYTES = 400_000_000  # the largest published batch (CIFAR-100's `train`) has 155 MB


def _dtype(code: Any, align: Any = False, copy: Any = True) -> np.dtype[Any]:
    """`numpy.dtype` for plain numbers; published pickles say 0 and 1 where numpy now wants False and True."""
    dtype: np.dtype[Any] = np.dtype(code, align=bool(align), copy=bool(copy))
    if dtype.kind not in "buif":
        raise pickle.UnpicklingError(f"an array of {dtype}")
    return dtype


_RECONSTRUCT = np.zeros(0).__reduce__()[0]
_ALLOWED: dict[tuple[str, str], Any] = {
    ("numpy.core.multiarray", "_reconstruct"): _RECONSTRUCT,
    ("numpy._core.multiarray", "_reconstruct"): _RECONSTRUCT,
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): _dtype,
    ("_codecs", "encode"): _codecs.encode,
}


class _Reader(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ALLOWED:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}")
        return _ALLOWED[module, name]


def read_pickle(path: Path) -> dict[str, Any]:
    """The dictionary in a published pickle, keys as text (Python 2 wrote bytes).

    Raises:
        DataError: where the file is truncated, foreign, or asks for anything but arrays, lists, numbers and strings.
    """
    if path.stat().st_size > _LARGEST_BYTES:
        raise DataError(f"{path} has {path.stat().st_size} bytes; no published file has more than {_LARGEST_BYTES}")
    try:
        value = _Reader(io.BytesIO(path.read_bytes()), encoding="bytes").load()
    except Exception as error:  # foreign bytes make the unpickler raise anything, whatever it is they are not what was asked for
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(f"{path} is truncated or no published data file: {reason}") from None
    if not isinstance(value, dict):
        raise DataError(f"{path} is no published data file: it holds a {type(value).__name__}, not a dictionary")
    return {key.decode("latin-1") if isinstance(key, bytes) else str(key): entry for key, entry in value.items()}
