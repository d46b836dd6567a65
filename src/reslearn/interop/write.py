"""Write weights in the names, the layout and the file format of another project."""

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
from reslearn.interop.hdf5_files import import_h5py
from reslearn.interop.stored import WeightsError
from reslearn.models import Network
from reslearn.switches import SWITCHES

_CONTAINERS = {
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


def write_weights(
    net: Network, path: Path | str, dialect: Dialect, *, with_head: bool = True
) -> None:
    """Write `net` as a file that the project of `dialect` loads.

    Args:
        path: Its suffix selects the file format, which must be one that the project reads.
        with_head: Write the head, if the project has one.

    Raises:
        ValueError: If the suffix does not fit, or the project has no such network.
        WeightsError: If the file cannot be written.
    """
    path = Path(path)
    container = _CONTAINERS.get(path.suffix)
    if container not in dialect.containers:
        suffixes = [suffix for suffix, name in _CONTAINERS.items() if name in dialect.containers]
        raise ValueError(
            f"{path}: files of dialect {dialect.name} are written as {', '.join(suffixes)}"
        )
    tensors = foreign_state_dict(net, dialect, with_head=with_head)
    write = _WRITERS[container]
    write_atomically(path, lambda temporary_path: write(temporary_path, tensors, dialect))


def foreign_state_dict(
    net: Network, dialect: Dialect, *, with_head: bool = True
) -> dict[str, Tensor]:
    """Return the state dict of `net` in the names and the layout of the dialect.

    Raises:
        ValueError: If the project has no such network, or would compute another function with it.
    """
    _check_switches(net, dialect)
    tensors: dict[str, Tensor] = {}
    for name, tensor in net.state_dict().items():
        layer, leaf = name.rsplit(".", 1)
        is_omitted_head = name.startswith("head.fc.") and not (with_head and dialect.has_head)
        if leaf in dialect.missing or is_omitted_head:
            continue
        foreign_name = dialect.foreign_name(name)
        if foreign_name is None:
            raise ValueError(f"dialect {dialect.name} has no name for {name} of {net.name}")
        value = tensor.detach().cpu()
        tensors[foreign_name] = dialect.convert_layout(name, value, to_native=False)
        # These tensors are needed by the project and have no effect.
        if leaf == "running_var" and "bn.factor" in dialect.written_extra:
            tensors[str(dialect.foreign_name(f"{layer}.factor"))] = torch.ones(1)
        if leaf == "weight" and "conv.bias" in dialect.written_extra and tensor.ndim == 4:
            tensors[str(dialect.foreign_name(f"{layer}.bias"))] = torch.zeros(tensor.shape[0])
    return tensors


def differing_switches(net: Network, dialect: Dialect) -> dict[str, tuple[Any, ...]]:
    """Return the switches of `net` whose values the project's networks do not have.

    Returns:
        For each of these switches, the values that the networks of the project have.
    """
    has_bottlenecks = any("body.conv3" in name for name, _ in net.named_modules())
    differences: dict[str, tuple[Any, ...]] = {}
    for key, value in dialect.spec.items():
        values = tuple(value) if isinstance(value, list) else (value,)
        has_effect = SWITCHES[key].applies(
            has_bottlenecks=has_bottlenecks, shortcut=net.spec["shortcut"]
        )
        if has_effect and net.spec[key] not in values:
            differences[key] = values
    return differences


def _check_switches(net: Network, dialect: Dialect) -> None:
    """Raise ValueError if a switch of `net` is not among the switches of the dialect's networks."""
    for key, values in differing_switches(net, dialect).items():
        raise ValueError(
            f"dialect {dialect.name} has no {net.name} with {key}={net.spec[key]!r}, "
            f"only {' or '.join(map(repr, values))}; "
            "the project would compute another function with these weights"
        )


def write_atomically(path: Path, write: Callable[[Path], Any]) -> None:
    """Let `write` create a temporary file beside `path`, then rename it.

    If the disk is full or the process is killed, the previous content of `path` stays.
    """
    if not path.parent.is_dir():
        raise WeightsError(f"{path}: there is no folder {path.parent}")
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".writing-") as directory:
        temporary_path = Path(directory) / path.name
        write(temporary_path)
        with temporary_path.open("rb") as file:
            os.fsync(file.fileno())
        temporary_path.replace(path)


def _write_torch(path: Path, tensors: Mapping[str, Tensor], dialect: Dialect) -> None:
    state = OrderedDict(tensors)
    torch.save({dialect.wrapper: state} if dialect.wrapper else state, path)


def _write_safetensors(path: Path, tensors: Mapping[str, Tensor], dialect: Dialect) -> None:
    safetensors.torch.save_file(dict(tensors), path, {"format": "pt"})


def _write_arrays(path: Path, tensors: Mapping[str, Tensor], dialect: Dialect) -> None:
    """Write a pickle of numpy arrays, as Detectron2's model zoo does."""
    content = {
        "model": {name: tensor.numpy() for name, tensor in tensors.items()},
        "__author__": "reslearn",
        "matching_heuristics": True,
    }
    path.write_bytes(pickle.dumps(content, protocol=4))


def _write_hdf5(path: Path, tensors: Mapping[str, Tensor], dialect: Dialect) -> None:
    """Write a file as `save_weights` of Keras 2 does.

    Each layer is a group that lists the names of its weights. The file lists the names of the
    layers.
    """
    h5py = import_h5py(path)
    layers: dict[str, list[str]] = {}
    with h5py.File(path, "w") as file:
        for name, tensor in tensors.items():
            layer, _, name_in_layer = name.partition("/")
            layers.setdefault(layer, []).append(f"{name_in_layer}:0")
            file.create_dataset(f"{name}:0", data=tensor.numpy())
        for layer, weights in layers.items():
            file[layer].attrs["weight_names"] = [weight.encode() for weight in weights]
        file.attrs["layer_names"] = [layer.encode() for layer in layers]
        file.attrs["backend"], file.attrs["keras_version"] = "tensorflow", "2.0"


def _write_caffe(path: Path, tensors: Mapping[str, Tensor], dialect: Dialect) -> None:
    """Write a NetParameter with one LayerParameter per layer: its name, and its blobs by index."""
    layers: dict[str, dict[int, Tensor]] = {}
    for name, tensor in tensors.items():
        layer, _, blob_index = name.rpartition(".")
        layers.setdefault(layer, {})[int(blob_index)] = tensor
    content = bytearray(_protobuf_field(1, b"reslearn"))
    for layer, blobs in layers.items():
        body = _protobuf_field(1, layer.encode())
        for index in sorted(blobs):
            body += _protobuf_field(7, _caffe_blob(blobs[index]))
        content += _protobuf_field(100, body)
    path.write_bytes(content)


def _caffe_blob(tensor: Tensor) -> bytes:
    shape = b"".join(_varint(length) for length in tensor.shape)
    values = tensor.float().contiguous().numpy().astype("<f4").tobytes()
    return _protobuf_field(7, _protobuf_field(1, shape)) + _protobuf_field(5, values)


def _protobuf_field(number: int, content: bytes) -> bytes:
    """Return a length-delimited field of a protocol buffer."""
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
