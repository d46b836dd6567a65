"""Tensors of torch in a pickle: references to storages, which lie beside the pickle.

`TORCH_FUNCTIONS` has the functions with which torch writes tensors, parameters, sizes and devices.
Tensors of kinds that weights do not have, such as quantized ones, become stand-ins.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from reslearn.interop.numpy_pickles import NumpyArray
from reslearn.interop.stand_ins import CallContext, PickledName, describe, named, refuse
from reslearn.interop.stored import DTYPES, LARGEST_DIMENSIONS, FileRegion, StoredTensor

_STORAGE_DTYPES = {
    "FloatStorage": "float32",
    "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16",
    "DoubleStorage": "float64",
    "LongStorage": "int64",
    "IntStorage": "int32",
    "ShortStorage": "int16",
    "CharStorage": "int8",
    "ByteStorage": "uint8",
    "BoolStorage": "bool",
    "UntypedStorage": "uint8",
}
# Bytes per value of storages whose tensors are not read. In a legacy file their size decides
# where the next storage lies.
_UNREAD_STORAGE_BYTES = {
    "ComplexFloatStorage": 8,
    "ComplexDoubleStorage": 16,
    "QInt8Storage": 1,
    "QUInt8Storage": 1,
    "QInt32Storage": 4,
    "QUInt4x2Storage": 1,
    "QUInt2x4Storage": 1,
}


@dataclass(frozen=True, eq=False)
class StorageType:
    """The type of a storage, or a dtype.

    Attributes:
        dtype: None if tensors of this type are not read.
        num_bytes: Bytes per value.
    """

    dtype: torch.dtype | None
    num_bytes: int


@dataclass(frozen=True, eq=False)
class StorageReference:
    """A reference to a storage, or to the part of a storage that begins at value `first`."""

    type: StorageType
    key: str
    first: int
    num_values: int


@dataclass(frozen=True, eq=False, kw_only=True)
class TensorReference:
    """A tensor as the pickle describes it, before its storage is located in the file."""

    storage: StorageReference
    dtype: torch.dtype
    first: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]


def locate(value: Any, regions: Mapping[str, FileRegion]) -> StoredTensor | None:
    """Return the tensor that `value` describes; None if it describes no tensor.

    Args:
        regions: Where the storages lie in the file, by key.

    Raises:
        ValueError: If the tensor reaches beyond its storage.
    """
    if isinstance(value, NumpyArray):
        return value.stored
    if not isinstance(value, TensorReference):
        return None
    storage = value.storage
    region = regions.get(storage.key)
    if region is None:
        raise ValueError(f"it lacks storage {storage.key[:80]!r}, which its pickle refers to")
    start = storage.first * storage.type.num_bytes
    num_bytes = storage.num_values * storage.type.num_bytes
    if start + num_bytes > region.num_bytes:
        raise ValueError(f"storage {storage.key[:80]!r} is shorter than its pickle says")
    part = FileRegion(path=region.path, offset=region.offset + start, num_bytes=num_bytes)
    return part.tensor(value.dtype, value.shape, first=value.first, stride=value.stride)


def resolve_reference(persistent_id: Any) -> StorageReference | PickledName:
    """Check torch's reference to a storage: ("storage", type, key, device, number of values).

    In the legacy format a sixth item may describe a part of a storage: (key, first value, number of
    values). That format refers to the class of a module too: ("module", class, file, source code).
    """
    if not isinstance(persistent_id, tuple) or len(persistent_id) < 4:
        refuse("it refers to something that is not the storage of a tensor")
    kind, target = persistent_id[:2]
    if kind == "module" and isinstance(target, PickledName):
        return target
    is_storage = kind == "storage" and len(persistent_id) in (5, 6)
    if not is_storage or not isinstance(target, StorageType):
        refuse(f"it refers to {describe(target)}, which is not the storage of a tensor")
    key, num_values, first = persistent_id[2], persistent_id[4], 0
    if not isinstance(key, str):
        refuse("it refers to a storage without a name")
    if len(persistent_id) == 6 and persistent_id[5] is not None:
        _, first, num_values = persistent_id[5]
    if not isinstance(num_values, int) or not isinstance(first, int) or num_values < 0 or first < 0:
        refuse("it refers to a storage without a valid size")
    return StorageReference(target, key, first, num_values)


def _rebuild_tensor(
    context: CallContext, storage: Any, first: Any, shape: Any, stride: Any, *_arguments: Any
) -> Any:
    """Stand in for `torch._utils._rebuild_tensor_v2`; return a reference."""
    if not isinstance(storage, StorageReference) or not isinstance(first, int):
        refuse("it holds a tensor without a storage")
    if not isinstance(shape, tuple) or not isinstance(stride, tuple):
        refuse("it holds a tensor without a shape")
    if len(shape) > LARGEST_DIMENSIONS or len(stride) != len(shape):
        refuse("it holds a tensor whose shape and strides do not fit")
    if not all(isinstance(value, int) for value in (*shape, *stride)):
        refuse("it holds a tensor whose shape is not made of integers")
    if storage.type.dtype is None:
        return context.stand_in("torch.Tensor of a type that weights do not have", ())
    return TensorReference(
        storage=storage, dtype=storage.type.dtype, first=first, shape=shape, stride=stride
    )


def _rebuild_typed_tensor(
    context: CallContext, storage: Any, first: Any, shape: Any, stride: Any, *arguments: Any
) -> Any:
    """Stand in for `torch._utils._rebuild_tensor_v3`.

    Its storage holds bytes, and the dtype is an argument. `arguments` are requires_grad, hooks,
    the dtype, and arguments that are ignored.
    """
    reference = _rebuild_tensor(context, storage, first, shape, stride)
    dtype = arguments[2] if len(arguments) > 2 else None
    if isinstance(dtype, PickledName):  # a dtype that is not read, such as float8_e4m3fn
        return context.stand_in(f"torch.Tensor of type {dtype.text}", ())
    if not isinstance(dtype, StorageType) or dtype.dtype is None:
        refuse("it holds a tensor of an unknown dtype")
    if not isinstance(reference, TensorReference):
        return reference
    return TensorReference(
        storage=reference.storage,
        dtype=dtype.dtype,
        first=first,
        shape=reference.shape,
        stride=reference.stride,
    )


def _rebuild_subclass(
    context: CallContext, function: Any, _type: Any, arguments: Any, *_state: Any
) -> Any:
    """Stand in for `torch._tensor._rebuild_from_type_v2`: a tensor of a subclass."""
    return context.call(function, arguments)


def _first_argument(context: CallContext, *arguments: Any) -> Any:
    """Stand in for functions that make a tensor of a tensor, such as `_rebuild_parameter`."""
    return arguments[0] if arguments else context.stand_in("torch.Tensor", ())


def _size(_context: CallContext, shape: Any = ()) -> tuple[Any, ...]:
    """Stand in for `torch.Size`; return a plain tuple."""
    if not isinstance(shape, tuple):
        refuse("it holds a torch.Size that is not a tuple")
    return shape


def _storage_types() -> dict[tuple[str, str], StorageType]:
    """Return the types of storages and the dtypes, by module and name."""
    types = {name: DTYPES[dtype] for name, dtype in _STORAGE_DTYPES.items()} | DTYPES
    return {
        **{("torch", name): StorageType(dtype, dtype.itemsize) for name, dtype in types.items()},
        **{
            ("torch", name): StorageType(None, size) for name, size in _UNREAD_STORAGE_BYTES.items()
        },
        ("torch.storage", "UntypedStorage"): StorageType(torch.uint8, 1),
    }


_UTILS = ("torch._utils",)

TORCH_FUNCTIONS: Mapping[tuple[str, str], PickledName | StorageType] = {
    **_storage_types(),
    **named(_UTILS, "_rebuild_tensor", _rebuild_tensor),
    **named(_UTILS, "_rebuild_tensor_v2", _rebuild_tensor),
    **named(_UTILS, "_rebuild_tensor_v3", _rebuild_typed_tensor),
    **named(_UTILS, "_rebuild_parameter", _first_argument),
    **named(_UTILS, "_rebuild_parameter_with_state", _first_argument),
    # Checkpoints of TPUs hold arrays of numpy in these.
    **named(_UTILS, "_rebuild_device_tensor_from_numpy", _first_argument),
    **named(_UTILS, "_rebuild_device_tensor_from_cpu_tensor", _first_argument),
    **named(_UTILS, "_rebuild_xla_tensor", _first_argument),
    **named(("torch._tensor",), "_rebuild_from_type_v2", _rebuild_subclass),
    **named(("torch.nn.parameter",), "Parameter", _first_argument),
    **named(("torch",), "Tensor", None),
    **named(("torch",), "Size", _size),
    **named(("torch",), "device", _first_argument),
}
