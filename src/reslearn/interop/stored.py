"""A tensor that lies in a file: its shape and type are known, its numbers are read when they are asked for.

All readers of foreign files give these, so that a look at a checkpoint with optimizer state costs no more than its table of contents,
and whatever a file claims is checked against its size before memory is taken.
"""

import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

# The largest network of the catalogue (resnet1202 or wide_resnet101_2, 0.5 GB) with momentum, second moments and an average: 2 GB.
LARGEST_FILE_BYTES = 8 * 2**30
LARGEST_DIMENSIONS = 8


class WeightsError(ValueError):
    """A file of weights that cannot be read or used; the message is one line and names the file.

    It may quote the file: what would end the line, or a terminal would obey, is written as Python writes it in a text.
    """

    def __init__(self, message: str) -> None:
        super().__init__(
            "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in message)
        )


@dataclass(frozen=True, kw_only=True)
class Stored:
    """A tensor in a file. `read` gives a contiguous copy of its own."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    read: Callable[[], Tensor] = field(repr=False)

    @property
    def num_values(self) -> int:
        return math.prod(self.shape)


@dataclass(frozen=True, kw_only=True)
class Region:
    """So many bytes of a file from an offset on."""

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
    ) -> Stored:
        """A tensor in this region, from its value `first` on. ValueError where it would reach beyond the region.

        A tensor may not claim more values than the region holds: an expanded one (stride 0) would take memory that no file accounts for.
        """
        size, steps = (
            checked_shape(shape),
            contiguous_stride(shape) if stride is None else tuple(int(step) for step in stride),
        )
        held = self.num_bytes // dtype.itemsize
        if len(steps) != len(size) or not all(0 <= step < 2**63 for step in steps) or first < 0:
            raise ValueError(
                f"a tensor of shape {size} with strides {steps} from {first} on cannot be"
            )
        num_values = math.prod(size)
        span = (
            1 + sum((length - 1) * step for length, step in zip(size, steps, strict=True))
            if num_values
            else 0
        )
        if first + span > held or num_values > held:
            raise ValueError(
                f"a tensor of shape {size} reaches beyond the {held} values that the file holds for it"
            )
        start, count = self.offset + first * dtype.itemsize, span * dtype.itemsize

        def read() -> Tensor:
            if not count:
                return torch.empty(size, dtype=dtype)
            with self.path.open("rb") as file:
                file.seek(start)
                content = bytearray(file.read(count))
            if len(content) != count:
                raise WeightsError(f"{self.path}: truncated while it was read")
            return torch.frombuffer(content, dtype=dtype).as_strided(size, steps).contiguous()

        return Stored(shape=size, dtype=dtype, read=read)


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """What a file holds. `entries`: each table of named tensors by where it lay ("" for the file itself, "state_dict", "model_ema", ...).

    others: the names beside them at the top of the file. container: in words, "torch zip", "safetensors", ...
    """

    path: Path
    container: str
    entries: Mapping[str, Mapping[str, Stored]]
    others: tuple[str, ...] = ()
    metadata: Mapping[str, str] = field(default_factory=dict)

    @property
    def ema(self) -> tuple[str, ...]:
        """Tables that are an average of the weights, by their name."""
        return tuple(name for name in self.entries if is_average(name))

    @property
    def has_optimizer(self) -> bool:
        return any("optim" in name.lower() for name in self.others)

    def main(self) -> str:
        """The table that is meant unless another is named: the first that is no average, else the first."""
        return next(
            (name for name in self.entries if not is_average(name)), next(iter(self.entries))
        )


def is_average(name: str) -> bool:
    """model_ema, state_dict_ema, ema_state_dict, averaged_model, ..."""
    return "ema" in name.lower().replace(".", "_").split("_") or "average" in name.lower()


def checked_size(path: Path, largest: int = LARGEST_FILE_BYTES) -> int:
    """The size of a file in bytes. WeightsError where there is none, it is a folder, empty or too large."""
    try:
        if path.is_dir():
            raise WeightsError(f"{path}: a folder, not a file of weights")
        size = os.stat(path).st_size
    except OSError as error:
        raise WeightsError(f"{path}: {error.strerror or error}") from None
    if size == 0:
        raise WeightsError(f"{path}: the file is empty")
    if size > largest:
        raise WeightsError(
            f"{path}: {size:,} bytes; no checkpoint of a network here has more than {largest:,}"
        )
    return size


def checked_shape(shape: Sequence[int]) -> tuple[int, ...]:
    """ValueError for what is no shape."""
    size = tuple(shape)
    of_numbers = all(
        isinstance(length, int) and not isinstance(length, bool) and 0 <= length < 2**63
        for length in size
    )
    if len(size) > LARGEST_DIMENSIONS or not of_numbers:
        raise ValueError(f"{str(size)[:80]} is no shape of a tensor")
    return size


def contiguous_stride(shape: Sequence[int]) -> tuple[int, ...]:
    """Steps between neighbors, the last dimension lying together."""
    steps, step = [], 1
    for length in reversed(shape):
        steps.append(step)
        step *= max(length, 1)
    return tuple(reversed(steps))


def one_line(error: BaseException) -> str:
    """What went wrong, without further lines and of bounded length."""
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0][:300]
