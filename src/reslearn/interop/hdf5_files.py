"""Keras' .h5 files: layers as groups, weights as data sets. h5py is an extra (`pip install 'reslearn[weights]'`)."""

from pathlib import Path
from typing import Any

import numpy
import torch
from torch import Tensor

from reslearn.interop.pickles import DTYPES
from reslearn.interop.stored import Stored, WeightsError, checked_shape, checked_size

_LARGEST_NUMBER_OF_PARTS = 100_000
# A whole model lies below model_weights, saved weights at the top; Keras 2 wrote TensorFlow's output number into names.
_WRAPPER, _OUTPUT_NUMBER = "model_weights/", ":0"


def read_hdf5(path: Path) -> dict[str, Stored]:
    """Data sets by "layer/layer/kernel". ValueError or OSError where the file is damaged; WeightsError where h5py is absent.

    Links to other files are not followed, and compressed data sets refused: Keras writes neither.
    """
    size = checked_size(path)
    try:
        import h5py
    except ModuleNotFoundError:
        raise WeightsError(
            f"{path}: an HDF5 file needs h5py: pip install 'reslearn[weights]'"
        ) from None
    tensors: dict[str, Stored] = {}
    num_parts = 0

    def visit(name: str | bytes, part: Any) -> None:
        nonlocal num_parts
        if not isinstance(name, str):  # h5py gives bytes for what is no UTF-8
            raise ValueError(f"{name[:40]!r} is no name")
        num_parts += 1
        if num_parts > _LARGEST_NUMBER_OF_PARTS:
            raise ValueError("it has more parts than any network")
        if not isinstance(part, h5py.Dataset) or part.dtype.name not in DTYPES:
            return
        if part.external or part.is_virtual or part.compression is not None:
            raise ValueError(f"{name!r} is compressed or lies in another file")
        shape = checked_shape(tuple(part.shape or ()))
        if part.id.get_storage_size() != part.nbytes or part.nbytes > size:
            raise ValueError(f"{name!r} has other than its bytes in the file")
        tensors[name.removeprefix(_WRAPPER).removesuffix(_OUTPUT_NUMBER)] = Stored(
            shape=shape, dtype=DTYPES[part.dtype.name], read=lambda: _read(path, name)
        )

    with h5py.File(path, "r") as file:
        file.visititems(visit)
    return tensors


def _read(path: Path, name: str) -> Tensor:
    import h5py

    with h5py.File(path, "r") as file:
        return torch.from_numpy(numpy.asarray(file[name][()])).contiguous()
