"""A network's weights in the names, layout and container of another project, written whole or not at all."""

import os
import pickle
import struct
import tempfile
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from reslearn.interop.dialect import Dialect
from reslearn.interop.stored import WeightsError
from reslearn.models import Network
from reslearn.switches import SWITCHES

_SUFFIXES = {
    ".pth": "pth",
    ".pt": "pth",
    ".th": "pth",
    ".bin": "pth",
    ".safetensors": "safetensors",
    ".pkl": "pkl",
    ".caffemodel": "caffemodel",
    ".h5": "h5",
    ".hdf5": "h5",
}


def renamed(net: Network, dialect: Dialect, *, with_head: bool = True) -> dict[str, Tensor]:
    """The state of `net` as the project has it, without a head where that has none.

    ValueError where the project has no such network, or would compute otherwise.
    """
    _check_switches(net, dialect)
    tensors: dict[str, Tensor] = {}
    for name, tensor in net.state_dict().items():
        if name.rsplit(".", 1)[-1] in dialect.missing or (
            name.startswith("head.fc.") and not (with_head and dialect.has_head)
        ):
            continue
        theirs = dialect.theirs(name)
        if theirs is None:
            raise ValueError(f"{dialect.name} has no name for {name} of {net.name}")
        tensors[theirs] = dialect.change(name, tensor.detach().cpu(), to_ours=False)
        layer, leaf = name.rsplit(".", 1)
        if leaf == "running_var" and "bn.factor" in dialect.written_extra:
            tensors[str(dialect.theirs(f"{layer}.factor"))] = torch.ones(1)
        if leaf == "weight" and "conv.bias" in dialect.written_extra and tensor.ndim == 4:
            tensors[str(dialect.theirs(f"{layer}.bias"))] = torch.zeros(tensor.shape[0])
    return tensors


def write_weights(
    net: Network, path: Path | str, dialect: Dialect, *, with_head: bool = True
) -> None:
    """Write `net` as a file that the project loads. The container follows the suffix of `path`: of those that the project reads."""
    path = Path(path)
    container = _SUFFIXES.get(path.suffix)
    if container not in dialect.containers:
        allowed = ", ".join(
            suffix for suffix, kind in _SUFFIXES.items() if kind in dialect.containers
        )
        raise ValueError(f"{path}: {dialect.name} is written as {allowed}")
    tensors = renamed(net, dialect, with_head=with_head)
    _WRITERS[container](path, tensors, dialect)


def written_aside(path: Path, write: Callable[[Path], Any]) -> None:
    """Let `write` make a file beside `path`, then give it that name: a full disk or a kill leaves what was there before."""
    if not path.parent.is_dir():
        raise WeightsError(f"{path}: there is no folder {path.parent}")
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".writing-") as aside:
        made = Path(aside) / path.name
        write(made)
        with made.open("rb") as file:
            os.fsync(file.fileno())
        made.replace(path)


def _check_switches(net: Network, dialect: Dialect) -> None:
    """Whatever the project's networks have by definition, this one must have."""
    bottleneck = any("body.conv3" in name for name, _ in net.named_modules())
    for key, value in dialect.spec.items():
        allowed = value if isinstance(value, list) else [value]
        has_effect = SWITCHES[key].applies(
            has_bottlenecks=bottleneck, shortcut=net.spec["shortcut"]
        )
        if has_effect and net.spec[key] not in allowed:
            raise ValueError(
                f"{dialect.name} has no {net.name} with {key}={net.spec[key]!r}, only {' or '.join(map(repr, allowed))}: "
                "it would compute something else with these weights"
            )


def _write_torch(path: Path, tensors: Mapping[str, Tensor], dialect: Dialect) -> None:
    state = OrderedDict(tensors)
    written_aside(
        path, lambda made: torch.save({dialect.wrapper: state} if dialect.wrapper else state, made)
    )


def _write_safetensors(path: Path, tensors: Mapping[str, Tensor], dialect: Dialect) -> None:
    written_aside(
        path, lambda made: safetensors.torch.save_file(dict(tensors), made, {"format": "pt"})
    )


def _write_arrays(path: Path, tensors: Mapping[str, Tensor], dialect: Dialect) -> None:
    content = {
        "model": {name: tensor.numpy() for name, tensor in tensors.items()},
        "__author__": "reslearn",
        "matching_heuristics": True,
    }
    written_aside(path, lambda made: made.write_bytes(pickle.dumps(content, protocol=4)))


def _write_hdf5(path: Path, tensors: Mapping[str, Tensor], dialect: Dialect) -> None:
    """As Keras' save_weights of old: a group a layer with the names of its weights, and the names of the layers at the top."""
    try:
        import h5py
    except ModuleNotFoundError:
        raise WeightsError(
            f"{path}: an HDF5 file needs h5py: pip install 'reslearn[weights]'"
        ) from None

    def write(made: Path) -> None:
        layers: dict[str, list[str]] = {}
        with h5py.File(made, "w") as file:
            for name, tensor in tensors.items():
                layer, _, inner = name.partition("/")
                layers.setdefault(layer, []).append(f"{inner}:0")
                file.create_dataset(f"{name}:0", data=tensor.numpy())
            for layer, weights in layers.items():
                file[layer].attrs["weight_names"] = [weight.encode() for weight in weights]
            file.attrs["layer_names"] = [layer.encode() for layer in layers]
            file.attrs["backend"], file.attrs["keras_version"] = "tensorflow", "2.0"

    written_aside(path, write)


def _write_caffe(path: Path, tensors: Mapping[str, Tensor], dialect: Dialect) -> None:
    """NetParameter with a LayerParameter for each layer: its name, and its blobs in the order of their index."""
    layers: dict[str, dict[int, Tensor]] = {}
    for name, tensor in tensors.items():
        layer, _, index = name.rpartition(".")
        layers.setdefault(layer, {})[int(index)] = tensor
    content = bytearray(_field(1, b"reslearn"))
    for layer, blobs in layers.items():
        body = _field(1, layer.encode()) + b"".join(
            _field(7, _blob(blobs[index])) for index in sorted(blobs)
        )
        content += _field(100, body)
    written_aside(path, lambda made: made.write_bytes(content))


def _blob(tensor: Tensor) -> bytes:
    shape = b"".join(_varint(length) for length in tensor.shape)
    return _field(7, _field(1, shape)) + _field(
        5, tensor.float().contiguous().numpy().astype("<f4").tobytes()
    )


def _field(number: int, content: bytes) -> bytes:
    """A field of a protocol buffer with a length."""
    return _varint(number << 3 | 2) + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    parts = []
    while value > 0x7F:
        parts.append(value & 0x7F | 0x80)
        value >>= 7
    return struct.pack(f"{len(parts) + 1}B", *parts, value)


_WRITERS: dict[str, Callable[[Path, Mapping[str, Tensor], Dialect], None]] = {
    "pth": _write_torch,
    "safetensors": _write_safetensors,
    "pkl": _write_arrays,
    "h5": _write_hdf5,
    "caffemodel": _write_caffe,
}
