"""Caffe's .caffemodel and ONNX: both are protocol buffers, of which the few fields that hold weights are read here.

Numbers of the fields: caffe.proto (NetParameter, LayerParameter, V1LayerParameter, BlobProto) and onnx.proto (ModelProto, GraphProto,
TensorProto). The format: a field is a key (number and wire type), then a varint, 8 or 4 bytes, or a length and so many bytes. Arrays
of numbers are read from their place in the file.
"""

import mmap
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import torch

from reslearn.interop.stored import Region, Stored, checked_size

_LARGEST_NUMBER_OF_FIELDS = (
    1_000_000  # the largest ResNet has a few thousand layers with a few dozen each
)
_LARGEST_NAME_BYTES = 1_000
_ONNX_TYPES = {
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
# In which field of a TensorProto the numbers of a type lie where they are not in raw_data (9).
_ONNX_FLOATS, _ONNX_DOUBLES, _ONNX_RAW = 4, 10, 9


@dataclass
class _Reader:
    """Fields of a protocol buffer, between two places of a mapped file."""

    content: mmap.mmap
    path: Path
    num_fields: int = field(default=0)

    def fields(self, start: int, stop: int) -> Iterator[tuple[int, int, int, int]]:
        """(number, wire type, first place of the content, place after it); for a varint the first place is its value."""
        while start < stop:
            self.num_fields += 1
            if self.num_fields > _LARGEST_NUMBER_OF_FIELDS:
                raise ValueError("it has more fields than any network")
            key, start = self._varint(start, stop)
            number, kind = key >> 3, key & 7
            if kind == 0:
                value, start = self._varint(start, stop)
                yield number, kind, value, start
                continue
            if kind == 2:
                length, start = self._varint(start, stop)
            elif kind in (1, 5):
                length = 8 if kind == 1 else 4
            else:
                raise ValueError(f"damaged at byte {start}: no wire type {kind}")
            if number == 0 or start + length > stop:
                raise ValueError(
                    f"damaged or truncated at byte {start}: a field reaches beyond what holds it"
                )
            yield number, kind, start, start + length
            start += length

    def text(self, start: int, stop: int) -> str:
        if stop - start > _LARGEST_NAME_BYTES:
            raise ValueError(f"damaged at byte {start}: a name of {stop - start} bytes")
        return self.content[start:stop].decode("utf-8", errors="replace")

    def numbers(self, start: int, stop: int) -> list[int]:
        """A packed list of varints, of which a shape has few."""
        found: list[int] = []
        while start < stop and len(found) <= 8:
            value, start = self._varint(start, stop)
            found.append(value)
        return found

    def _varint(self, start: int, stop: int) -> tuple[int, int]:
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


def read_caffe(path: Path) -> dict[str, Stored]:
    """Blobs by "layer.index". ValueError where the file is no caffemodel."""
    size = checked_size(path)
    tensors: dict[str, Stored] = {}
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        reader = _Reader(content, path)
        for number, kind, start, stop in reader.fields(0, size):
            if kind == 2 and number in (2, 100):  # layers of V1, and of today
                name_field, blob_field = (4, 6) if number == 2 else (1, 7)
                name, blobs = "", []
                for inner, inner_kind, first, last in reader.fields(start, stop):
                    if inner == name_field and inner_kind == 2:
                        name = reader.text(first, last)
                    elif inner == blob_field and inner_kind == 2:
                        blobs.append(_blob(reader, first, last))
                for index, blob in enumerate(blobs):
                    if f"{name}.{index}" in tensors:
                        raise ValueError(f"it has two layers called {name!r}")
                    tensors[f"{name}.{index}"] = blob
    return tensors


def _blob(reader: _Reader, start: int, stop: int) -> Stored:
    """A BlobProto: its shape, today's or the four numbers of old, and its float or double numbers."""
    shape: list[int] | None = None
    old = {1: 1, 2: 1, 3: 1, 4: 1}
    data: tuple[torch.dtype, int, int] | None = None
    for number, kind, first, last in reader.fields(start, stop):
        if number in (5, 8):
            if kind != 2 or data is not None:
                raise ValueError("it holds numbers that are not packed")
            data = (torch.float32 if number == 5 else torch.float64, first, last)
        elif number == 7 and kind == 2:
            shape = []
            for inner, inner_kind, begin, end in reader.fields(first, last):
                if inner == 1:
                    shape += [begin] if inner_kind == 0 else reader.numbers(begin, end)
        elif number in old and kind == 0:
            old[number] = first
    dtype, first, last = data if data is not None else (torch.float32, start, start)
    if shape is None:
        shape = list(old.values())
        while len(shape) > 1 and shape[0] == 1:  # a vector was written as 1 x 1 x 1 x n
            del shape[0]
    stored = Region(path=reader.path, offset=first, num_bytes=last - first).tensor(dtype, shape)
    if stored.num_values * dtype.itemsize != last - first:
        raise ValueError(
            f"it holds a blob of shape {tuple(shape)} with {last - first} bytes of numbers"
        )
    return stored


def read_onnx(path: Path) -> dict[str, Stored]:
    """The initializers of the graph by name. ValueError where the file is no ONNX model, or keeps its numbers in other files."""
    size = checked_size(path)
    tensors: dict[str, Stored] = {}
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        reader = _Reader(content, path)
        for number, kind, start, stop in reader.fields(0, size):
            if number == 7 and kind == 2:  # graph
                for inner, inner_kind, first, last in reader.fields(start, stop):
                    if inner == 5 and inner_kind == 2:  # initializer
                        name, tensor = _initializer(reader, first, last)
                        if name in tensors:
                            raise ValueError(f"it has two initializers called {name!r}")
                        tensors[name] = tensor
    return tensors


def _initializer(reader: _Reader, start: int, stop: int) -> tuple[str, Stored]:
    """A TensorProto."""
    name, shape, kind_of_numbers = "", list[int](), 0
    data: tuple[int, int, int] | None = None
    for number, kind, first, last in reader.fields(start, stop):
        if number == 1:
            shape += [first] if kind == 0 else reader.numbers(first, last)
        elif number == 2 and kind == 0:
            kind_of_numbers = first
        elif number == 8 and kind == 2:
            name = reader.text(first, last)
        elif number == 13 or (number == 14 and kind == 0 and first != 0):
            raise ValueError(f"it keeps the numbers of {name!r} in another file")
        elif number in (_ONNX_RAW, _ONNX_FLOATS, _ONNX_DOUBLES) and kind == 2 and last > first:
            data = (number, first, last)
    dtype = _ONNX_TYPES.get(kind_of_numbers)
    packed = {_ONNX_FLOATS: torch.float32, _ONNX_DOUBLES: torch.float64}
    if dtype is None or (data is not None and packed.get(data[0], dtype) != dtype):
        raise ValueError(
            f"it holds {name!r} as numbers of type {kind_of_numbers}, which is no type of weights"
        )
    _, first, last = data if data is not None else (0, start, start)
    stored = Region(path=reader.path, offset=first, num_bytes=last - first).tensor(dtype, shape)
    return name, stored
