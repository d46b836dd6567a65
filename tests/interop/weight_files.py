"""Writers of small weight files, one for each format that is read."""

import argparse
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch

from reslearn.interop import WeightsError, read_checkpoint
from reslearn.interop.dialect import dialects
from reslearn.interop.write import _write_caffe

STATE = {
    "a.weight": torch.arange(24.0).reshape(2, 3, 4),
    "a.bias": torch.tensor([1.0, float("nan")]),
    "b.count": torch.tensor(7),
}


def write_torch_zip(path: Path) -> None:
    optimizer = {"state": {0: {"momentum_buffer": torch.ones(3)}}, "param_groups": [{"lr": 0.1}]}
    arguments = argparse.Namespace(lr=0.1)
    torch.save(
        {
            "state_dict": STATE,
            "optimizer": optimizer,
            "args": arguments,
            "best": np.float64(3.5),
            "size": torch.Size([2]),
        },
        path,
    )


def write_legacy(path: Path) -> None:
    torch.save({"state_dict": STATE}, path, _use_new_zipfile_serialization=False)


def write_arrays(path: Path) -> None:
    state = {name: value.numpy() for name, value in STATE.items()}
    path.write_bytes(pickle.dumps({"model": state, "__author__": "x"}, protocol=2))


def write_caffe_model(path: Path) -> None:
    _write_caffe(path, {"a.0": STATE["a.weight"], "a.1": STATE["a.bias"]}, dialects()["caffe"])


def write_onnx(path: Path, state: dict[str, torch.Tensor] = STATE) -> None:
    """Write the first tensor as a list of numbers, and the others as bytes."""
    onnx = pytest.importorskip("onnx", reason="pip install 'reslearn[test]' brings onnx")
    tensors = [onnx.numpy_helper.from_array(value.numpy(), name) for name, value in state.items()]
    name, value = next(iter(state.items()))
    tensors[0] = onnx.helper.make_tensor(
        name, onnx.TensorProto.FLOAT, value.shape, value.flatten().tolist()
    )
    onnx.save(onnx.helper.make_model(onnx.helper.make_graph([], "g", [], [], tensors)), path)


def write_hdf5(path: Path) -> None:
    h5py = pytest.importorskip("h5py", reason="pip install 'reslearn[weights]' brings h5py")
    with h5py.File(path, "w") as file:
        for name, value in STATE.items():
            file["model_weights/" + name.replace(".", "/") + ":0"] = value.numpy()


WRITERS: dict[str, tuple[str, Callable[[Path], None]]] = {
    "torch zip": (".pth", write_torch_zip),
    "legacy torch": (".pth", write_legacy),
    "pickle of arrays": (".pkl", write_arrays),
    "safetensors": (".safetensors", lambda path: safetensors.torch.save_file(STATE, path)),
    "caffemodel": (".caffemodel", write_caffe_model),
    "ONNX": (".onnx", write_onnx),
    "HDF5": (".h5", write_hdf5),
}


def error_of(path: Path) -> str:
    """Return the one-line error for a file that must be refused."""
    with pytest.raises(WeightsError) as raised:
        read_checkpoint(path)
    text = str(raised.value)
    assert text.startswith(str(path)) and text.isprintable() and len(text) < 700
    return text
