"""Foreign, huge and hostile weight files raise one-line errors, and nothing in them is run."""

import io
import os
import pickle
import struct
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from reslearn.interop import pickles, read_checkpoint

sys.path.insert(0, str(Path(__file__).parent))
from weight_files import STATE, error_of, write_hdf5


class Hostile:
    """An object whose pickle creates a folder when it is loaded."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.folder / "was run"),)


def save_as(container: str, content: dict[str, Any], path: Path) -> None:
    """Save an object as a torch file, or as a pickle of arrays."""
    if container == "pickle":
        arrays = {name: value.numpy() for name, value in content.get("weights", {}).items()}
        path.write_bytes(pickle.dumps({**content, "weights": arrays}))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=container == "zip")


@pytest.mark.parametrize("container", ["zip", "legacy", "pickle"])
def test_a_function_in_a_file_is_named_and_not_run(container: str, tmp_path: Path) -> None:
    path = tmp_path / "hostile.pkl"
    name = f"{os.mkdir.__module__}.mkdir"
    save_as(container, {"model": Hostile(tmp_path)}, path)
    assert f"not imported or run: {name}" in error_of(path)
    save_as(container, {"model": Hostile(tmp_path), "weights": STATE}, path)
    checkpoint = read_checkpoint(path)
    assert set(checkpoint.entries["weights"]) == set(STATE)
    assert checkpoint.unknown_objects == (name,)
    assert not (tmp_path / "was run").exists()


def write_zip(
    path: Path, *, compress: bool = False, extra: dict[str, bytes] | None = None, drop: str = ""
) -> None:
    """Write a torch file with compressed, added or missing entries."""
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


def write_long_directory(path: Path) -> None:
    """Write an archive that claims a list of entries of 33 MiB. zipfile would read all of it."""
    length = 33 * 2**20
    with path.open("wb") as file:
        file.write(b"PK\3\4" + b"\0" * 26)
        file.truncate(30 + length)  # sparse: it takes no space on disk
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


def dict_of(instructions: bytes) -> bytes:
    """Return instructions for {"a": the object that `instructions` create}."""
    return b"}X\x01\0\0\0a" + instructions + b"s"


def torch_zip_of(instructions: bytes) -> Callable[[Path], None]:
    """Return a writer of a torch file with this pickle and a storage of four numbers."""

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


OVERLAP = (
    b'{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},'
    b'"b":{"dtype":"F32","shape":[2],"data_offsets":[4,12]}}'
)
TWO_LINES = b'{"a\\n\\u001b[2J":{"dtype":"F32","shape":[4],"data_offsets":[0,16]}}'
BOMB = b'{"a":{"dtype":"F32","shape":[4611686018427387904],"data_offsets":[0,16]}}'
# This pickle stores an object under number two billion. The memo would take 16 GB.
MEMO = b"\x80\x02]r\xff\xff\xff\x7f."

FILES: dict[str, tuple[str, bytes | Callable[[Path], None]]] = {
    "empty": ("x.pth", b""),
    "a text": ("x.pth", b"these are no weights"),
    "an empty zip": ("x.pth", lambda path: zipfile.ZipFile(path, "w").close()),
    "a zip of something else": (
        "x.pth",
        lambda path: zipfile.ZipFile(path, "w").writestr("a.txt", "hello"),
    ),
    "a zip bomb": ("x.pth", lambda path: write_zip(path, compress=True)),
    "a program": (
        "x.pth",
        lambda path: write_zip(
            path, extra={"archive/code/__torch__.py": b"x", "archive/constants.pkl": b"x"}
        ),
    ),
    "missing storage": ("x.pth", lambda path: write_zip(path, drop="data/0")),
    "a huge memo": ("x.pkl", MEMO),
    "a pickle of a list": ("x.pkl", pickle.dumps([1, 2, 3])),
    "a pickle of no tensors": ("x.pkl", pickle.dumps({"a": 1})),
    "an array of objects": ("x.pkl", pickle.dumps({"a": np.array([{}], dtype=object), "b": 1})),
    "a big-endian array": ("x.pkl", pickle.dumps({"a": np.zeros(3, ">f4"), "b": 1}, protocol=2)),
    "a huge list of entries": ("x.pth", write_long_directory),
    "deeply nested tuples, whose hash crashes the process": (
        "x.pkl",
        b"\x80\x02})" + b"\x85" * 200_000 + b"Ns.",
    ),
    "nested tuples from the memo": (
        "x.pkl",
        b"\x80\x02})q\0" + b"0h\0\x85q\0" * 200_000 + b"h\0Ns.",
    ),
    "one text encoded a thousand times": (
        "x.pkl",
        b"\x80\x02]X\x10\x27\0\0"
        + b"a" * 10_000
        + b"q\x010c_codecs\nencode\nq\x020"
        + b"h\x02h\x01\x85Ra" * 1_000
        + b".",
    ),
    "a function changed": ("x.pth", torch_zip_of(b"c_codecs\nencode\n" + ATTRIBUTE)),
    "a type changed": ("x.pth", torch_zip_of(FLOATS + ATTRIBUTE)),
    "a tensor changed": ("x.pth", torch_zip_of(dict_of(TENSOR + ATTRIBUTE))),
    "a shape beyond 64 bits": (
        "x.pth",
        torch_zip_of(dict_of(TENSOR.replace(SIZES, b"(K\0" + HUGE + b"t(K\x01K\x01t"))),
    ),
    "strides beyond 64 bits": (
        "x.pth",
        torch_zip_of(dict_of(TENSOR.replace(SIZES, b"(K\x01t(" + HUGE + b"t"))),
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
    "an endless varint": ("x.onnx", b"\xff" * 64),
    "only the beginning of HDF5": ("x.h5", b"\x89HDF\r\n\x1a\n" + b"\0" * 100),
}


@pytest.mark.parametrize(
    ("content", "explanation"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "git lfs pull"),
        (b"\n<!DOCTYPE html><html>Sign in</html>", "web page"),
        (b'{"error": "not found"}', "JSON"),
        (b"\x1f\x8b\x08\0\0", "gzip; unpack it first"),
        (b"weights.pth".ljust(257, b"\0") + b"ustar", "a tar archive; unpack it first"),
        (pickle.dumps(None), "it holds None, not a dict of named tensors"),
        (FILES["a zip of something else"][1], "unpack it first"),
        (lambda path: torch.save(torch.zeros(3), path), "it holds a tensor, not a dict"),
        (lambda path: cut_short(path), "download it again"),
    ],
)
def test_what_is_no_weight_file_is_explained(
    content: bytes | Callable[[Path], None], explanation: str, tmp_path: Path
) -> None:
    path = tmp_path / "x.pth"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        content(path)
    assert explanation in error_of(path)


def cut_short(path: Path) -> None:
    torch.save(STATE, path)
    path.write_bytes(path.read_bytes()[:-100])


@pytest.mark.parametrize("name", FILES)
def test_foreign_and_hostile_files_raise_one_line(name: str, tmp_path: Path) -> None:
    if name == "only the beginning of HDF5":
        pytest.importorskip("h5py", reason="pip install 'reslearn[weights]' brings h5py")
    file, content = FILES[name]
    path = tmp_path / file
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        content(path)
    error_of(path)


def test_a_pickle_of_too_many_instructions_raises_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert pickles._MAX_INSTRUCTIONS == 2_000_000
    monkeypatch.setattr(pickles, "_MAX_INSTRUCTIONS", 2_000)
    for num_lists, message in (
        (1_998, "without named tensors"),
        (1_999, "more than 2,000 instructions"),
    ):
        (tmp_path / "x.pkl").write_bytes(b"\x80\x02" + b"]" * num_lists + b".")
        assert message in error_of(tmp_path / "x.pkl")


def test_an_hdf5_name_that_is_not_utf8_raises_one_line(tmp_path: Path) -> None:
    write_hdf5(tmp_path / "x.h5")
    (tmp_path / "x.h5").write_bytes(
        (tmp_path / "x.h5").read_bytes().replace(b"weight:0", b"\xffeight:0")
    )
    assert "is not a valid name" in error_of(tmp_path / "x.h5")


def test_handwritten_pickle_without_the_attack_is_read(tmp_path: Path) -> None:
    """The files above are refused for their attack only, and leave nothing behind.

    An attack could modify a function or a type for the files that are read after it.
    """
    for file, content in FILES.values():
        if file == "x.pth" and callable(content):
            content(tmp_path / file)
            error_of(tmp_path / file)
    torch_zip_of(dict_of(TENSOR))(tmp_path / "good.pth")
    assert torch.equal(
        read_checkpoint(tmp_path / "good.pth").entries[""]["a"].read(), torch.zeros(2)
    )


def test_a_dict_in_many_places_is_read_once(tmp_path: Path) -> None:
    """A file of a few kilobytes can hold a hundred dicts in a hundred places each."""
    inner = {str(number): {"a": np.zeros(1), "b": np.zeros(1)} for number in range(100)}
    (tmp_path / "x.pkl").write_bytes(pickle.dumps({str(number): inner for number in range(100)}))
    assert "more than 1000 dicts" in error_of(tmp_path / "x.pkl")
    (tmp_path / "x.pkl").write_bytes(pickle.dumps({"a": inner["0"], "b": inner["0"]}))
    assert set(read_checkpoint(tmp_path / "x.pkl").entries) == {"a", "b"}


def test_missing_file_and_folder(tmp_path: Path) -> None:
    assert "No such file" in error_of(tmp_path / "absent.pth")
    assert "a folder" in error_of(tmp_path)


def test_a_tensor_larger_than_its_file_is_refused(tmp_path: Path) -> None:
    """An expanded tensor (stride 0) is small in a file and huge in memory."""
    path = tmp_path / "x.pth"
    torch.save({"a": torch.zeros(1).expand(1000, 1000), "b": torch.zeros(1)}, path)
    assert "reaches beyond" in error_of(path)
