"""Read Caffe's .caffemodel and ONNX files. Both are protocol buffers.

Only the fields that hold weights are read. Field numbers come from caffe.proto (NetParameter,
LayerParameter, V1LayerParameter, BlobProto) and onnx.proto (ModelProto, GraphProto, TensorProto).

A field is a key (field number and wire type) and a value: a varint, 8 or 4 bytes, or a length and
that many bytes. Arrays of numbers stay in the file and are read from their place.
"""

import mmap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch

from reslearn.interop.stored import FileRegion, StoredTensor, check_file_size

# The largest ResNet has a few thousand layers with a few dozen fields each.
_MAX_FIELDS = 1_000_000
_LONGEST_NAME_BYTES = 1_000
_MAX_DIMENSIONS = 9  # one more than a shape may have, so that longer shapes are refused later
# Wire types.
_VARINT, _EIGHT_BYTES, _LENGTH_DELIMITED, _FOUR_BYTES = 0, 1, 2, 5
# The fields of a TensorProto in which values may lie. Each typed field holds one data type.
_ONNX_RAW_DATA = 9
_ONNX_TYPED_DATA = {4: torch.float32, 10: torch.float64}
_ONNX_DTYPES = {
    1: torch.float32,
    2: torch.uint8,
    3: torch.int8,
    5: torch.int16,
    6: torch.int32,
    7: torch.int64,
    9: torch.bool,
    10: torch.float16,
    11: torch.float64,
    16: torch.bfloat16,
}


class _Field(NamedTuple):
    """A field with content from `start` to `stop`; `value` is the value of a varint, else 0."""

    number: int
    wire_type: int
    start: int
    stop: int
    value: int

    @property
    def is_varint(self) -> bool:
        return self.wire_type == _VARINT

    @property
    def has_length(self) -> bool:
        return self.wire_type == _LENGTH_DELIMITED


@dataclass
class _FieldReader:
    """Reads the fields of a protocol buffer in a memory-mapped file."""

    content: mmap.mmap
    path: Path
    num_fields: int = 0

    def fields(self, start: int, stop: int) -> Iterator[_Field]:
        """Yield the fields between two positions.

        Raises:
            ValueError: If a field is damaged, or the file has too many fields.
        """
        while start < stop:
            self.num_fields += 1
            if self.num_fields > _MAX_FIELDS:
                raise ValueError(f"it has more than {_MAX_FIELDS:,} fields")
            key, start = self._varint(start, stop)
            number, wire_type = key >> 3, key & 7
            if wire_type == _VARINT:
                value, end = self._varint(start, stop)
                yield _Field(number, wire_type, start, end, value)
                start = end
                continue
            if wire_type == _LENGTH_DELIMITED:
                length, start = self._varint(start, stop)
            elif wire_type in (_EIGHT_BYTES, _FOUR_BYTES):
                length = 8 if wire_type == _EIGHT_BYTES else 4
            else:
                raise ValueError(f"damaged at byte {start}: there is no wire type {wire_type}")
            if number == 0 or start + length > stop:
                raise ValueError(
                    f"damaged or truncated at byte {start}: a field is longer than its message"
                )
            yield _Field(number, wire_type, start, start + length, 0)
            start += length

    def inner_fields(self, field: _Field) -> Iterator[_Field]:
        return self.fields(field.start, field.stop)

    def text(self, field: _Field) -> str:
        length = field.stop - field.start
        if length > _LONGEST_NAME_BYTES:
            raise ValueError(f"damaged at byte {field.start}: a name of {length} bytes")
        return self.content[field.start : field.stop].decode("utf-8", errors="replace")

    def lengths(self, field: _Field) -> list[int]:
        """Return the lengths of dimensions: a single varint, or a packed list of varints."""
        if field.is_varint:
            return [field.value]
        values: list[int] = []
        position = field.start
        while position < field.stop and len(values) < _MAX_DIMENSIONS:
            value, position = self._varint(position, field.stop)
            values.append(value)
        return values

    def _varint(self, start: int, stop: int) -> tuple[int, int]:
        """Return the value of a varint and the position after it."""
        value = 0
        for shift in range(0, 70, 7):
            if start >= stop:
                break
            byte = self.content[start]
            start += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value, start
        raise ValueError(f"damaged or truncated at byte {start}")


def read_caffe(path: Path) -> dict[str, StoredTensor]:
    """Return the blobs of a .caffemodel by "layer.index".

    Raises:
        ValueError: If the file is damaged or no caffemodel.
    """
    size = check_file_size(path)
    tensors: dict[str, StoredTensor] = {}
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        reader = _FieldReader(content, path)
        for field in reader.fields(0, size):
            # V1LayerParameter is field 2 of NetParameter, LayerParameter is field 100.
            if not field.has_length or field.number not in (2, 100):
                continue
            name_number, blob_number = (4, 6) if field.number == 2 else (1, 7)
            name, blobs = "", []
            for inner in reader.inner_fields(field):
                if inner.number == name_number and inner.has_length:
                    name = reader.text(inner)
                elif inner.number == blob_number and inner.has_length:
                    blobs.append(_caffe_blob(reader, inner))
            for index, blob in enumerate(blobs):
                if f"{name}.{index}" in tensors:
                    raise ValueError(f"it has two layers called {name!r}")
                tensors[f"{name}.{index}"] = blob
    return tensors


def _caffe_blob(reader: _FieldReader, blob: _Field) -> StoredTensor:
    """Describe a BlobProto. Its shape is a BlobShape, or four numbers in old files."""
    shape: list[int] | None = None
    old_shape = {1: 1, 2: 1, 3: 1, 4: 1}
    dtype = torch.float32
    data: _Field | None = None
    for field in reader.inner_fields(blob):
        if field.number in (5, 8):
            if not field.has_length or data is not None:
                raise ValueError("it holds numbers that are not packed")
            dtype, data = (torch.float32 if field.number == 5 else torch.float64), field
        elif field.number == 7 and field.has_length:
            shape = _blob_shape(reader, field)
        elif field.number in old_shape and field.is_varint:
            old_shape[field.number] = field.value
    if shape is None:
        shape = list(old_shape.values())
        while len(shape) > 1 and shape[0] == 1:  # a vector was written as 1 x 1 x 1 x n
            del shape[0]
    region = _region(reader, data, blob)
    stored = region.tensor(dtype, shape)
    if stored.num_values * dtype.itemsize != region.num_bytes:
        raise ValueError(
            f"it holds a blob of shape {tuple(shape)} with {region.num_bytes} bytes of numbers"
        )
    return stored


def _blob_shape(reader: _FieldReader, field: _Field) -> list[int]:
    shape: list[int] = []
    for inner in reader.inner_fields(field):
        if inner.number == 1:
            shape += reader.lengths(inner)
    return shape


def _region(reader: _FieldReader, data: _Field | None, message: _Field) -> FileRegion:
    """Return the region of a data field; an empty region if the message has no data."""
    if data is None:
        return FileRegion(path=reader.path, offset=message.start, num_bytes=0)
    return FileRegion(path=reader.path, offset=data.start, num_bytes=data.stop - data.start)


def read_onnx(path: Path) -> dict[str, StoredTensor]:
    """Return the initializers of the graph by name.

    Raises:
        ValueError: If the file is damaged, no ONNX model, or keeps its numbers in other files.
    """
    size = check_file_size(path)
    tensors: dict[str, StoredTensor] = {}
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        reader = _FieldReader(content, path)
        for field in reader.fields(0, size):
            if field.number != 7 or not field.has_length:  # the graph of a ModelProto
                continue
            for inner in reader.inner_fields(field):
                if inner.number != 5 or not inner.has_length:  # an initializer of a GraphProto
                    continue
                name, tensor = _onnx_initializer(reader, inner)
                if name in tensors:
                    raise ValueError(f"it has two initializers called {name!r}")
                tensors[name] = tensor
    return tensors


def _onnx_initializer(reader: _FieldReader, message: _Field) -> tuple[str, StoredTensor]:
    """Return the name of a TensorProto, and its tensor."""
    name, shape, dtype_code = "", list[int](), 0
    data: _Field | None = None
    for field in reader.inner_fields(message):
        if field.number == 1:
            shape += reader.lengths(field)
        elif field.number == 2 and field.is_varint:
            dtype_code = field.value
        elif field.number == 8 and field.has_length:
            name = reader.text(field)
        elif _is_external(field):
            raise ValueError(f"it keeps the numbers of {name!r} in another file")
        elif _is_data(field):
            data = field
    dtype = _ONNX_DTYPES.get(dtype_code)
    data_dtype = dtype if data is None else _ONNX_TYPED_DATA.get(data.number, dtype)
    if dtype is None or data_dtype != dtype:
        raise ValueError(f"{name!r} has data type {dtype_code}, which weights do not have")
    return name, _region(reader, data, message).tensor(dtype, shape)


def _is_external(field: _Field) -> bool:
    """Return whether a field of a TensorProto (13 or 14) says that its data lie in another file."""
    return field.number == 13 or (field.number == 14 and field.is_varint and field.value != 0)


def _is_data(field: _Field) -> bool:
    is_data_field = field.number == _ONNX_RAW_DATA or field.number in _ONNX_TYPED_DATA
    return is_data_field and field.has_length and field.stop > field.start
