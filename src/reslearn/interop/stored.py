"""Checkpoints whose tensors are read lazily from their place in the file.

Every reader of a foreign format returns these classes. Shape and dtype of a tensor are known at
once; its values are read on request. So inspecting a checkpoint with optimizer state costs no
more than reading its table of contents. Every size that a file claims is checked against the size
of the file before memory is allocated.
"""

import math
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from reslearn.terminal import printable_line

# The largest networks of the catalog (resnet1202, wide_resnet101_2) have 0.5 GB of weights. With
# momentum, second moments and an average of the weights, a checkpoint has 2 GB.
LARGEST_FILE_BYTES = 8 * 2**30
LARGEST_DIMENSIONS = 8
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
_WORD_SEPARATORS = re.compile(r"[._:]")
_AVERAGE_WORDS = frozenset(
    ["ema", "avg", "teacher", "momentum", "averaged", "shadow", "swa", "polyak", "target"]
)


LayerSettings = Mapping[str, tuple[int, ...] | float]
"""Settings of a layer by torch's names: "stride", "padding", "dilation" and "eps"."""


class WeightsError(ValueError):
    """A weight file cannot be read or used. The message is one line and names the file.

    The message may quote the file. Line breaks and terminal control characters are escaped.
    """

    def __init__(self, message: str) -> None:
        super().__init__(printable_line(message))


@dataclass(frozen=True, kw_only=True)
class StoredTensor:
    """A tensor in a file. `read()` returns its values as a new contiguous tensor."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    read: Callable[[], Tensor] = field(repr=False)

    @property
    def num_values(self) -> int:
        return math.prod(self.shape)


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """The content of a weight file.

    Attributes:
        container: The file format in words, such as "torch zip" or "safetensors".
        entries: State dicts by their place in the file: "" for the file itself, "state_dict",
            "model_ema", ...
        other_keys: Top-level names in the file that hold no state dict.
        small_tables: Tables with too few matrices for a network, by place; one may be a head.
        unknown_objects: Names of the functions and classes in a pickle that stand-ins replace.
        metadata: The text metadata of a safetensors file.
        texts: Short texts in a pickle, by place, such as "arch" and "args.arch".
        class_lists: Lists of class names in a pickle, by place, such as "meta.CLASSES".
        layer_settings: Settings of the layers of pickled modules, by entry and by the layer's name.
        shards: The files that hold the tensors, if `path` is only an index of them.
    """

    path: Path
    container: str
    entries: Mapping[str, Mapping[str, StoredTensor]]
    other_keys: tuple[str, ...] = ()
    small_tables: Mapping[str, Mapping[str, StoredTensor]] = field(default_factory=dict)
    unknown_objects: tuple[str, ...] = ()
    metadata: Mapping[str, str] = field(default_factory=dict)
    texts: Mapping[str, str] = field(default_factory=dict)
    class_lists: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    layer_settings: Mapping[str, Mapping[str, LayerSettings]] = field(default_factory=dict)
    shards: tuple[Path, ...] = ()

    @property
    def averages(self) -> tuple[str, ...]:
        """Names of the entries that hold an average of the weights."""
        return tuple(name for name in self.entries if is_average(name))

    @property
    def has_optimizer(self) -> bool:
        return any("optim" in name.lower() for name in self.other_keys)

    def default_entry(self) -> str:
        """Return the first entry that is not an average, or the first entry if all are."""
        for name in self.entries:
            if not is_average(name):
                return name
        return next(iter(self.entries))


def is_average(name: str) -> bool:
    """Return whether a name of an entry, or a beginning of names, says that it averages weights.

    Examples are model_ema, state_dict_ema, averaged_model, teacher and module.encoder_k.
    """
    lowered = name.lower()
    words = _WORD_SEPARATORS.split(lowered)
    return not _AVERAGE_WORDS.isdisjoint(words) or "average" in lowered or "encoder_k" in lowered


@dataclass(frozen=True, kw_only=True)
class FileRegion:
    """`num_bytes` bytes of a file, starting at `offset`."""

    path: Path
    offset: int
    num_bytes: int

    def tensor(
        self,
        dtype: torch.dtype,
        shape: Sequence[int],
        *,
        first: int = 0,
        stride: Sequence[int] | None = None,
    ) -> StoredTensor:
        """Describe a tensor that lies in this region.

        Args:
            first: Index of the tensor's first value in the region, in values and not in bytes.
            stride: In values; by default the tensor is contiguous.

        Raises:
            ValueError: If the tensor reaches beyond the region, or has more values than the region.
                An expanded tensor (stride 0) is refused too: it is small in a file and may be huge
                in memory.
        """
        size = check_shape(shape)
        stride = contiguous_stride(shape) if stride is None else stride
        steps = tuple(int(step) for step in stride)
        if len(steps) != len(size) or not all(0 <= step < 2**63 for step in steps) or first < 0:
            raise ValueError(
                f"shape {size}, strides {steps} and offset {first} do not describe a tensor"
            )
        capacity = self.num_bytes // dtype.itemsize
        num_values = math.prod(size)
        span = _num_spanned_values(size, steps)
        if first + span > capacity or num_values > capacity:
            raise ValueError(
                f"a tensor of shape {size} reaches beyond the {capacity} values stored for it"
            )
        start, num_bytes = self.offset + first * dtype.itemsize, span * dtype.itemsize

        def read() -> Tensor:
            if not num_bytes:
                return torch.empty(size, dtype=dtype)
            with self.path.open("rb") as file:
                file.seek(start)
                content = bytearray(file.read(num_bytes))
            if len(content) != num_bytes:
                raise WeightsError(f"{self.path}: the file was truncated while it was being read")
            return torch.frombuffer(content, dtype=dtype).as_strided(size, steps).contiguous()

        return StoredTensor(shape=size, dtype=dtype, read=read)


def _num_spanned_values(shape: tuple[int, ...], stride: tuple[int, ...]) -> int:
    """Return the number of values from the first to the last value of a tensor, both included."""
    if not math.prod(shape):
        return 0
    return 1 + sum((length - 1) * step for length, step in zip(shape, stride, strict=True))


def check_file_size(path: Path, largest: int = LARGEST_FILE_BYTES) -> int:
    """Return the size of a file in bytes.

    Raises:
        WeightsError: If there is no such file, or if it is a folder, empty or larger than
            `largest` bytes.
    """
    try:
        if path.is_dir():
            raise WeightsError(
                f"{path} is a folder, not a weight file, and has no model.safetensors; name the "
                "file in it"
            )
        size = os.stat(path).st_size
    except OSError as error:
        raise WeightsError(f"{path}: {error.strerror or error}") from None
    if size == 0:
        raise WeightsError(f"{path}: the file is empty")
    if size > largest:
        raise WeightsError(
            f"{path} has {size:,} bytes; a weight file of this format may have {largest:,}"
        )
    return size


def check_shape(shape: Sequence[int]) -> tuple[int, ...]:
    """Return `shape` as a tuple; raise ValueError if it is not the shape of a tensor."""
    size = tuple(shape)
    if len(size) > LARGEST_DIMENSIONS:
        raise ValueError(f"a tensor has at most {LARGEST_DIMENSIONS} dimensions, not {len(size)}")
    for length in size:
        # A shape in a hostile file may hold objects that are too deep to be printed.
        if not isinstance(length, int) or isinstance(length, bool):
            raise ValueError(f"the shape of a tensor holds a {type(length).__name__}")
        if not 0 <= length < 2**63:
            raise ValueError(f"{str(length)[:80]} is not the length of a dimension")
    if math.prod(max(length, 1) for length in size) >= 2**63:
        raise ValueError("the shape of a tensor is larger than any memory")
    return size


def contiguous_stride(shape: Sequence[int]) -> tuple[int, ...]:
    """Return the strides, in values, of a contiguous tensor of this shape."""
    steps, step = [], 1
    for length in reversed(shape):
        steps.append(step)
        step *= max(length, 1)
    return tuple(reversed(steps))


def first_line(error: BaseException) -> str:
    """Return the first line of an error message, at most 300 characters of it."""
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0][:300]


def abbreviate(names: Sequence[str], limit: int) -> str:
    """Return names as text: the first `limit` of them and the number of further ones."""
    text = ", ".join(names[:limit])
    return f"{text} and {len(names) - limit} more" if len(names) > limit else text


def first_not_finite(tensors: Mapping[str, Tensor]) -> str | None:
    """Return the name of the first tensor with a value that is NaN or infinite; else None."""
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
            return name
    return None
