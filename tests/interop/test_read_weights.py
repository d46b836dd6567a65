"""Files of weights: what each writer writes comes back; what is truncated, foreign, huge or hostile is one line, and nothing is run."""

import argparse
import contextlib
import io
import os
import pickle
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from reslearn.interop import WeightsError, identify_checkpoint, read_checkpoint
from reslearn.interop.dialect import dialects
from reslearn.interop.write import _write_caffe

STATE = {
    "a.weight": torch.arange(24.0).reshape(2, 3, 4),
    "a.bias": torch.tensor([1.0, float("nan")]),
    "b.count": torch.tensor(7),
}


def torch_zip(path: Path) -> None:
    optimizer = {"state": {0: {"momentum_buffer": torch.ones(3)}}, "param_groups": [{"lr": 0.1}]}
    settings_ = argparse.Namespace(lr=0.1)
    torch.save(
        {
            "state_dict": STATE,
            "optimizer": optimizer,
            "args": settings_,
            "best": np.float64(3.5),
            "size": torch.Size([2]),
        },
        path,
    )


def legacy(path: Path) -> None:
    torch.save({"state_dict": STATE}, path, _use_new_zipfile_serialization=False)


def arrays(path: Path) -> None:
    path.write_bytes(
        pickle.dumps(
            {"model": {name: value.numpy() for name, value in STATE.items()}, "__author__": "x"},
            protocol=2,
        )
    )


def caffe(path: Path) -> None:
    _write_caffe(path, {"a.0": STATE["a.weight"], "a.1": STATE["a.bias"]}, dialects()["caffe"])


def onnx_file(path: Path, state: dict[str, torch.Tensor] = STATE) -> None:
    """The first tensor as a list of numbers, the others as bytes."""
    onnx = pytest.importorskip("onnx", reason="pip install 'reslearn[test]' brings onnx")
    tensors = [onnx.numpy_helper.from_array(value.numpy(), name) for name, value in state.items()]
    name, value = next(iter(state.items()))
    tensors[0] = onnx.helper.make_tensor(
        name, onnx.TensorProto.FLOAT, value.shape, value.flatten().tolist()
    )
    onnx.save(onnx.helper.make_model(onnx.helper.make_graph([], "g", [], [], tensors)), path)


def hdf5(path: Path) -> None:
    h5py = pytest.importorskip("h5py", reason="pip install 'reslearn[weights]' brings h5py")
    with h5py.File(path, "w") as file:
        for name, value in STATE.items():
            file["model_weights/" + name.replace(".", "/") + ":0"] = value.numpy()


WRITERS: dict[str, tuple[str, Callable[[Path], None]]] = {
    "torch zip": (".pth", torch_zip),
    "legacy torch": (".pth", legacy),
    "pickle of arrays": (".pkl", arrays),
    "safetensors": (".safetensors", lambda path: safetensors.torch.save_file(STATE, path)),
    "caffemodel": (".caffemodel", caffe),
    "ONNX": (".onnx", onnx_file),
    "HDF5": (".h5", hdf5),
}


@pytest.mark.parametrize("container", WRITERS)
def test_what_was_written_comes_back(container: str, tmp_path: Path) -> None:
    suffix, write = WRITERS[container]
    path = tmp_path / f"weights{suffix}"
    write(path)
    checkpoint = read_checkpoint(path)
    tensors = checkpoint.entries[checkpoint.default_entry()]
    assert checkpoint.container == container
    renamed = {
        "caffemodel": {"a.0": "a.weight", "a.1": "a.bias"},
        "HDF5": {name.replace(".", "/"): name for name in STATE},
    }
    names = renamed.get(container, {name: name for name in STATE})
    assert set(tensors) == set(names)
    for theirs, ours in names.items():
        assert (tensors[theirs].shape, tensors[theirs].dtype) == (
            tuple(STATE[ours].shape),
            STATE[ours].dtype,
        )
        torch.testing.assert_close(
            tensors[theirs].read(), STATE[ours], rtol=0, atol=0, equal_nan=True
        )
    if container == "torch zip":
        assert checkpoint.has_optimizer
        assert checkpoint.other_keys == ("optimizer", "args", "best", "size")


def test_an_onnx_file_for_inference_is_told_what_is_the_matter(tmp_path: Path) -> None:
    onnx_file(tmp_path / "x.onnx", {"onnx::Conv_193": torch.zeros(8, 3, 3, 3)})
    with pytest.raises(WeightsError, match="exporters fold batch norm"):
        identify_checkpoint(read_checkpoint(tmp_path / "x.onnx"))


def test_views_of_one_storage_and_other_types(tmp_path: Path) -> None:
    """A storage is shared, a tensor is transposed, numbers are bfloat16 and half: read from their place, made contiguous."""
    whole = torch.arange(12.0)
    state = {
        "part": whole[4:10].reshape(2, 3).t(),
        "all": whole,
        "half": whole.half(),
        "brain": whole.bfloat16(),
    }
    state["none"] = torch.empty(0, 3)
    for number, zipped in enumerate((True, False)):
        path = tmp_path / f"{number}.pth"
        torch.save(state, path, _use_new_zipfile_serialization=zipped)
        tensors = read_checkpoint(path).entries[""]
        for name, value in state.items():
            assert torch.equal(tensors[name].read(), value) and tensors[name].read().is_contiguous()


def refused(path: Path) -> str:
    with pytest.raises(WeightsError) as raised:
        read_checkpoint(path)
    text = str(raised.value)
    assert text.startswith(str(path)) and text.isprintable() and len(text) < 700
    return text


class Hostile:
    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.folder / "was run"),)


@pytest.mark.parametrize("save", ["zip", "legacy", "pickle"])
def test_a_file_that_would_run_code_is_refused_and_says_what_it_wanted(
    save: str, tmp_path: Path
) -> None:
    path = tmp_path / "hostile.pkl"
    if save == "pickle":
        path.write_bytes(pickle.dumps({"model": Hostile(tmp_path)}))
    else:
        torch.save({"model": Hostile(tmp_path)}, path, _use_new_zipfile_serialization=save == "zip")
    assert f"would import {os.mkdir.__module__}.mkdir" in refused(path)
    assert not (tmp_path / "was run").exists()


def test_a_whole_module_is_refused_with_what_to_do(tmp_path: Path) -> None:
    torch.save(torch.nn.Linear(2, 2), tmp_path / "module.pth")
    assert (
        "would import torch.nn.modules.linear.Linear" in (text := refused(tmp_path / "module.pth"))
        and "state_dict()" in text
    )


def zipped(
    path: Path, *, compress: bool = False, extra: dict[str, bytes] | None = None, drop: str = ""
) -> None:
    """A torch file made again with other entries."""
    buffer = io.BytesIO()
    torch.save(STATE, buffer)
    with (
        zipfile.ZipFile(buffer) as source,
        zipfile.ZipFile(
            path, "w", zipfile.ZIP_DEFLATED if compress else zipfile.ZIP_STORED
        ) as target,
    ):
        for name in source.namelist():
            if not (drop and name.endswith(drop)):
                target.writestr(name, source.read(name))
        for name, content in (extra or {}).items():
            target.writestr(name, content)


def a_list_of_entries(path: Path) -> None:
    """An archive that says its list of entries is as long as a film: zipfile would make an object of each."""
    length = 33 * 2**20
    with path.open("wb") as file:
        file.write(b"PK\3\4" + b"\0" * 26)
        file.truncate(30 + length)  # a hole
        file.seek(0, os.SEEK_END)
        file.write(struct.pack("<4sQ2H2L4Q", b"PK\6\6", 44, 45, 45, 0, 0, 1, 1, length, 30))
        file.write(struct.pack("<4sLQL", b"PK\6\7", 0, 30 + length, 1))
        file.write(struct.pack("<4s4H2LH", b"PK\5\6", *[0xFFFF] * 4, 0xFFFFFFFF, 0xFFFFFFFF, 0))


FLOATS = b"ctorch\nFloatStorage\n"
STORAGE = b"(X\x07\0\0\0storage" + FLOATS + b"X\x01\0\0\x000X\x03\0\0\0cpuK\x04tQ"
SIZES = b"(K\x02t(K\x01t"  # (2,) and (1,)
TENSOR = b"ctorch._utils\n_rebuild_tensor_v2\n(" + STORAGE + b"K\0" + SIZES + b"\x89NtR"
ATTRIBUTE = b"}X\x05\0\0\0dtypeX\x01\0\0\0xsb"
HUGE = b"\x8a\x09" + b"\xff" * 8 + b"\0"


def table_of(instructions: bytes) -> bytes:
    """{"a": what the instructions make}."""
    return b"}X\x01\0\0\0a" + instructions + b"s"


def torch_zip_of(instructions: bytes) -> Callable[[Path], None]:
    """Four numbers, and a pickle written by hand about them."""

    def write(path: Path) -> None:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("archive/data.pkl", b"\x80\x02" + instructions + b".")
            archive.writestr("archive/data/0", b"\0" * 16)

    return write


def caffe_blob(shape: list[int], numbers: bytes) -> bytes:
    dims = b"".join(struct.pack("B", length) for length in shape)
    blob = (
        b"\x3a"
        + bytes([len(dims) + 2])
        + b"\x0a"
        + bytes([len(dims)])
        + dims
        + b"\x2a"
        + bytes([len(numbers)])
        + numbers
    )
    layer = b"\x0a\x01a\x3a" + bytes([len(blob)]) + blob
    return b"\xa2\x06" + bytes([len(layer)]) + layer


def safetensors_with(header: bytes, content: bytes = b"\0" * 16) -> bytes:
    return struct.pack("<Q", len(header)) + header + content


OVERLAP = b'{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"b":{"dtype":"F32","shape":[2],"data_offsets":[4,12]}}'
TWO_LINES = b'{"a\\n\\u001b[2J":{"dtype":"F32","shape":[4],"data_offsets":[0,16]}}'
BOMB = b'{"a":{"dtype":"F32","shape":[4611686018427387904],"data_offsets":[0,16]}}'
# A pickle that numbers an object two billion: the unpickler would take 16 GB for its memo.
MEMO = b"\x80\x02]r\xff\xff\xff\x7f."

FILES: dict[str, tuple[str, bytes | Callable[[Path], None]]] = {
    "empty": ("x.pth", b""),
    "a text": ("x.pth", b"these are no weights"),
    "an empty zip": ("x.pth", lambda path: zipfile.ZipFile(path, "w").close()),
    "a zip of something else": (
        "x.pth",
        lambda path: zipfile.ZipFile(path, "w").writestr("a.txt", "hello"),
    ),
    "a zip bomb": ("x.pth", lambda path: zipped(path, compress=True)),
    "a program": (
        "x.pth",
        lambda path: zipped(
            path, extra={"archive/code/__torch__.py": b"x", "archive/constants.pkl": b"x"}
        ),
    ),
    "numbers missing": ("x.pth", lambda path: zipped(path, drop="data/0")),
    "a huge memo": ("x.pkl", MEMO),
    "a pickle of a list": ("x.pkl", pickle.dumps([1, 2, 3])),
    "a pickle of no tensors": ("x.pkl", pickle.dumps({"a": 1})),
    "an array of objects": ("x.pkl", pickle.dumps({"a": np.array([{}], dtype=object), "b": 1})),
    "a big-endian array": ("x.pkl", pickle.dumps({"a": np.zeros(3, ">f4"), "b": 1}, protocol=2)),
    "a list of entries without end": ("x.pth", a_list_of_entries),
    "more lists than a checkpoint has": ("x.pkl", b"\x80\x02" + b"]" * 2_000_001 + b"."),
    "tuples in tuples, whose hash ends the process": (
        "x.pkl",
        b"\x80\x02})" + b"\x85" * 200_000 + b"Ns.",
    ),
    "the same, each by its number": (
        "x.pkl",
        b"\x80\x02})q\0" + b"0h\0\x85q\0" * 200_000 + b"h\0Ns.",
    ),
    "one text encoded again and again": (
        "x.pkl",
        b"\x80\x02]X\x10\x27\0\0"
        + b"a" * 10_000
        + b"q\x010c_codecs\nencode\nq\x020"
        + b"h\x02h\x01\x85Ra" * 1_000
        + b".",
    ),
    "a function changed": ("x.pth", torch_zip_of(b"c_codecs\nencode\n" + ATTRIBUTE)),
    "a type changed": ("x.pth", torch_zip_of(FLOATS + ATTRIBUTE)),
    "a tensor changed": ("x.pth", torch_zip_of(table_of(TENSOR + ATTRIBUTE))),
    "a shape beyond numbers": (
        "x.pth",
        torch_zip_of(table_of(TENSOR.replace(SIZES, b"(K\0" + HUGE + b"t(K\x01K\x01t"))),
    ),
    "strides beyond numbers": (
        "x.pth",
        torch_zip_of(table_of(TENSOR.replace(SIZES, b"(K\x01t(" + HUGE + b"t"))),
    ),
    "a name of two lines": ("x.pkl", b"\x80\x04\x8c\x04os\n\x1b\x8c\x06sys\x1b[2\x93."),
    "a name of a megabyte": (
        "x.pkl",
        b"\x80\x04X" + struct.pack("<I", 2**20) + b"a" * 2**20 + b"\x8c\x01x\x93.",
    ),
    "a tensor of two lines": ("x.safetensors", safetensors_with(TWO_LINES)),
    "overlapping tensors": ("x.safetensors", safetensors_with(OVERLAP)),
    "a tensor of exabytes": ("x.safetensors", safetensors_with(BOMB)),
    "a header of exabytes": ("x.safetensors", struct.pack("<Q", 2**62) + b"{" * 100),
    "a blob of the wrong length": ("x.caffemodel", caffe_blob([2, 3], b"\0" * 8)),
    "a blob of huge shape": ("x.caffemodel", caffe_blob([127, 127, 127, 127], b"\0" * 8)),
    "a field beyond the end": ("x.caffemodel", b"\xa2\x06\xff\xff\xff\x7f"),
    "no number ends": ("x.onnx", b"\xff" * 64),
    "an HDF5 beginning": ("x.h5", b"\x89HDF\r\n\x1a\n" + b"\0" * 100),
}


@pytest.mark.parametrize("name", FILES)
def test_foreign_and_hostile_files_are_one_line(name: str, tmp_path: Path) -> None:
    if name == "an HDF5 beginning":
        pytest.importorskip("h5py", reason="pip install 'reslearn[weights]' brings h5py")
    file, content = FILES[name]
    path = tmp_path / file
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        content(path)
    refused(path)


def test_an_hdf5_name_that_is_no_text_is_one_line(tmp_path: Path) -> None:
    hdf5(tmp_path / "x.h5")
    (tmp_path / "x.h5").write_bytes(
        (tmp_path / "x.h5").read_bytes().replace(b"weight:0", b"\xffeight:0")
    )
    assert "is not a valid name" in refused(tmp_path / "x.h5")


def test_what_is_written_by_hand_here_is_read_where_it_is_right(tmp_path: Path) -> None:
    """Else the files above might be refused for another reason; and what they tried leaves nothing for the next."""
    for file, content in FILES.values():
        if file == "x.pth" and callable(content):
            content(tmp_path / file)
            refused(tmp_path / file)
    torch_zip_of(table_of(TENSOR))(tmp_path / "good.pth")
    assert torch.equal(
        read_checkpoint(tmp_path / "good.pth").entries[""]["a"].read(), torch.zeros(2)
    )


def test_one_table_in_many_places_is_gone_through_once(tmp_path: Path) -> None:
    """A hundred tables of a hundred names each, in a hundred places each: a file of a few kilobytes."""
    inner = {str(number): {"a": np.zeros(1), "b": np.zeros(1)} for number in range(100)}
    (tmp_path / "x.pkl").write_bytes(pickle.dumps({str(number): inner for number in range(100)}))
    assert "more than 1000 dicts" in refused(tmp_path / "x.pkl")
    (tmp_path / "x.pkl").write_bytes(pickle.dumps({"a": inner["0"], "b": inner["0"]}))
    assert set(read_checkpoint(tmp_path / "x.pkl").entries) == {"a", "b"}


def test_no_file_and_a_folder(tmp_path: Path) -> None:
    assert "No such file" in refused(tmp_path / "absent.pth")
    assert "a folder" in refused(tmp_path)


def test_a_tensor_may_not_be_larger_than_what_the_file_holds(tmp_path: Path) -> None:
    """An expanded tensor (steps of 0) is small in a file and huge in memory."""
    path = tmp_path / "x.pth"
    torch.save({"a": torch.zeros(1).expand(1000, 1000), "b": torch.zeros(1)}, path)
    assert "reaches beyond" in refused(path)


CONTENT: dict[str, bytes] = {}


def content_of(container: str, folder: Path) -> bytes:
    """What a writer writes, made once."""
    if container not in CONTENT:
        suffix, write = WRITERS[container]
        write(folder / f"made{suffix}")
        CONTENT[container] = (folder / f"made{suffix}").read_bytes()
    return CONTENT[container]


def read_whole(path: Path) -> None:
    """As a user would: everything, or the one error that the command line makes a line of."""
    with contextlib.suppress(WeightsError):
        checkpoint = read_checkpoint(path)
        for tensors in checkpoint.entries.values():
            for stored in tensors.values():
                assert stored.read().shape == stored.shape


QUICK = settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
FUZZED = list(WRITERS)


@pytest.mark.parametrize("container", FUZZED)
@QUICK
@given(share=st.floats(0, 1, exclude_max=True))
def test_truncated_anywhere(container: str, tmp_path: Path, share: float) -> None:
    content = content_of(container, tmp_path)
    path = tmp_path / f"cut{WRITERS[container][0]}"
    path.write_bytes(content[: int(share * len(content))])
    read_whole(path)


@pytest.mark.parametrize("container", FUZZED)
@QUICK
@given(
    places=st.lists(
        st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), min_size=1, max_size=6
    )
)
def test_bytes_changed_anywhere(
    container: str, tmp_path: Path, places: list[tuple[float, int]]
) -> None:
    content = bytearray(content_of(container, tmp_path))
    for share, value in places:
        content[int(share * len(content))] = value
    path = tmp_path / f"changed{WRITERS[container][0]}"
    path.write_bytes(content)
    read_whole(path)


@QUICK
@given(
    content=st.binary(max_size=200),
    suffix=st.sampled_from([".pth", ".pkl", ".safetensors", ".caffemodel", ".onnx"]),
)
def test_any_bytes(tmp_path: Path, content: bytes, suffix: str) -> None:
    for beginning in (b"", b"\x80\x02", b"PK\x03\x04"):
        path = tmp_path / f"any{suffix}"
        path.write_bytes(beginning + content)
        read_whole(path)
