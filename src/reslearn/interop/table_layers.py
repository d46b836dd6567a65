"""The layers of a table of tensors, recognized by shape: convolutions, batch norms and matrices."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from reslearn.interop.stored import StoredTensor

LayerPath = tuple[str, ...]
LayerKind = Literal["convolution", "norm", "matrix"]

MIN_KERNELS = 3  # tensors of four dimensions in a table with a network
_SEPARATORS = re.compile(r"[./]")
_LONGEST_PATH = 24
# Names of a layer's tensors in other frameworks, and torch's name.
_LEAVES = {
    "weight": "weight",
    "kernel": "weight",
    "gamma": "weight",
    "bias": "bias",
    "beta": "bias",
    "running_mean": "running_mean",
    "moving_mean": "running_mean",
    "_mean": "running_mean",
    "mean": "running_mean",
    "running_var": "running_var",
    "moving_variance": "running_var",
    "moving_var": "running_var",
    "_variance": "running_var",
    "var": "running_var",
    "num_batches_tracked": "num_batches_tracked",
}

_PADDLE_LEAF = "._mean"  # Paddle's matrices are [inputs, outputs]
_PARAMETERS = _LEAVES.keys() - {"mean", "var", "_mean", "_variance", "num_batches_tracked"}


def may_hold_network(table: Mapping[str, StoredTensor]) -> bool:
    """Return whether a table has enough convolutions for a network."""
    return sum(len(stored.shape) == 4 for stored in table.values()) >= MIN_KERNELS


@dataclass(frozen=True, kw_only=True)
class TableLayer:
    """A layer of a table.

    Attributes:
        path: The parts of its name, such as ("layer1", "0", "conv1").
        names: The names in the file of its tensors, by torch's names: "weight", "bias", ...
        shape: The shape of its weight; of a batch norm, its channels [C].
        is_transposed: Whether the file has its matrix as [inputs, outputs]; `shape` is then turned.
    """

    path: LayerPath
    kind: LayerKind
    names: Mapping[str, str]
    shape: tuple[int, ...]
    is_transposed: bool = False

    @property
    def label(self) -> str:
        """The name in the file of a tensor that stands for the layer in messages."""
        return self.names.get("weight", ".".join(self.path))

    @property
    def is_spatial(self) -> bool:
        """Whether it is a convolution with a kernel larger than 1 x 1."""
        return self.kind == "convolution" and self.shape[2:] != (1, 1)


def paths_above(path: LayerPath) -> Iterator[LayerPath]:
    """Yield the paths that contain a path, the nearest first and the empty one last."""
    for length in range(len(path) - 1, -1, -1):
        yield path[:length]


def path_of(name: str) -> LayerPath:
    """Return the parts of a tensor's name, without the last."""
    return tuple(_SEPARATORS.split(name)[:-1])


def leaf_of(name: str) -> str:
    """Return torch's name of the last part of a tensor's name: "weight" for "gamma"."""
    last_part = _SEPARATORS.split(name)[-1]
    return _LEAVES.get(last_part, last_part)


def is_parameter(name: str) -> bool:
    """Return whether a tensor has a name that layers give to their tensors."""
    return _SEPARATORS.split(name)[-1] in _PARAMETERS


def layers_of(tensors: Mapping[str, StoredTensor]) -> list[TableLayer]:
    """Return the layers of a table in the order of the file."""
    modules: dict[LayerPath, dict[str, str]] = {}
    for name in tensors:
        path, leaf = path_of(name), leaf_of(name)
        if len(path) <= _LONGEST_PATH and leaf in _LEAVES:
            modules.setdefault(path, {}).setdefault(leaf, name)
    has_transposed = any(name.endswith(_PADDLE_LEAF) for name in tensors)
    layers = []
    for path, names in modules.items():
        shapes = {leaf: tensors[name].shape for leaf, name in names.items()}
        kind = _kind(shapes)
        if kind is not None:
            shape = shapes["running_mean" if kind == "norm" else "weight"]
            is_transposed = has_transposed and kind == "matrix"
            layers.append(
                TableLayer(
                    path=path,
                    kind=kind,
                    names=names,
                    shape=shape[::-1] if is_transposed else shape,
                    is_transposed=is_transposed,
                )
            )
    return layers


def _kind(shapes: Mapping[str, tuple[int, ...]]) -> LayerKind | None:
    mean, weight = shapes.get("running_mean", ()), shapes.get("weight", ())
    if 0 in weight or 0 in mean:
        return None
    if len(mean) == 1 and mean == shapes.get("running_var"):
        return "norm"
    if len(weight) == 4:
        return "convolution"
    return "matrix" if len(weight) == 2 else None


def in_natural_order(layers: Sequence[TableLayer]) -> list[TableLayer]:
    """Return the layers by name, with numbers in names compared as numbers: 2 before 10."""
    return sorted(layers, key=lambda layer: [natural_key(part) for part in layer.path])


def natural_key(part: str) -> list[tuple[bool, int, str]]:
    """Return a key of texts and numbers: numbers are compared as numbers, and precede texts."""
    pieces = re.split(r"([0-9]+)", part)
    return [
        (False, int(piece[:18]), "") if piece.isdecimal() and piece.isascii() else (True, 0, piece)
        for piece in pieces
    ]
