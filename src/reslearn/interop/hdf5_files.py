"""Read Keras' .h5 files. They need h5py: `pip install 'reslearn[weights]'`."""

from pathlib import Path
from typing import Any

import numpy
import torch
from torch import Tensor

from reslearn.interop.stored import (
    DTYPES,
    StoredTensor,
    WeightsError,
    check_file_size,
    check_shape,
    first_line,
)

_MAX_PARTS = 100_000
# A saved model keeps its weights in this group; a file of weights keeps them at the top.
_WEIGHTS_GROUP = "model_weights/"
# Keras 2 appended TensorFlow's output number to the names of weights.
_OUTPUT_NUMBER = ":0"


def read_hdf5(path: Path) -> dict[str, StoredTensor]:
    """Return the data sets by name, such as "layer/layer/kernel".

    Links to other files are not followed, and compressed data sets are refused. Keras writes
    neither.

    Raises:
        ValueError, OSError: If the file is damaged.
        WeightsError: If h5py is not installed.
    """
    file_size = check_file_size(path)
    h5py = import_h5py(path)
    tensors: dict[str, StoredTensor] = {}
    num_parts = 0

    def visit(name: str | bytes, part: Any) -> None:
        nonlocal num_parts
        if not isinstance(name, str):  # h5py passes bytes if a name is not valid UTF-8
            raise ValueError(f"{name[:40]!r} is not a valid name")
        num_parts += 1
        if num_parts > _MAX_PARTS:
            raise ValueError(f"it has more than {_MAX_PARTS:,} parts")
        if isinstance(part, h5py.Dataset) and part.dtype.name in DTYPES:
            key = name.removeprefix(_WEIGHTS_GROUP).removesuffix(_OUTPUT_NUMBER)
            tensors[key] = _stored(path, name, part, file_size)

    with h5py.File(path, "r") as file:
        file.visititems(visit)
    return tensors


def import_h5py(path: Path) -> Any:
    """Return the module h5py; raise WeightsError with the install command if it is missing."""
    try:
        import h5py
    except ModuleNotFoundError:
        raise WeightsError(
            f"{path}: HDF5 files need h5py; install it with: pip install 'reslearn[weights]'"
        ) from None
    return h5py


def _stored(path: Path, name: str, dataset: Any, file_size: int) -> StoredTensor:
    if dataset.external or dataset.is_virtual or dataset.compression is not None:
        raise ValueError(f"{name!r} is compressed or lies in another file")
    shape = check_shape(tuple(dataset.shape or ()))
    if dataset.id.get_storage_size() != dataset.nbytes or dataset.nbytes > file_size:
        raise ValueError(f"{name!r} does not have the number of bytes that its shape needs")
    dtype = DTYPES[dataset.dtype.name]
    return StoredTensor(shape=shape, dtype=dtype, read=lambda: _read(path, name))


def _read(path: Path, name: str) -> Tensor:
    """Read a data set; raise WeightsError if HDF5 cannot read its values."""
    try:
        with import_h5py(path).File(path, "r") as file:
            return torch.from_numpy(numpy.asarray(file[name][()])).contiguous()
    except (OSError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise WeightsError(f"{path}: {name!r} cannot be read: {first_line(error)}") from None
