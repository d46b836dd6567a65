"""Weight files of every format are read; a damaged file is read or raises WeightsError."""

import contextlib
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from reslearn.interop import WeightsError, identify_checkpoint, read_checkpoint

sys.path.insert(0, str(Path(__file__).parent))
from weight_files import STATE, WRITERS, write_onnx


@pytest.mark.parametrize("container", WRITERS)
def test_written_tensors_are_read_back(container: str, tmp_path: Path) -> None:
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
    for name, original_name in names.items():
        stored, expected = tensors[name], STATE[original_name]
        assert (stored.shape, stored.dtype) == (tuple(expected.shape), expected.dtype)
        torch.testing.assert_close(stored.read(), expected, rtol=0, atol=0, equal_nan=True)
    if container == "torch zip":
        assert checkpoint.has_optimizer
        assert checkpoint.other_keys == ("optimizer", "args", "best", "size")


def test_error_for_an_onnx_file_exported_for_inference_explains_folding(tmp_path: Path) -> None:
    write_onnx(tmp_path / "x.onnx", {"onnx::Conv_193": torch.zeros(8, 3, 3, 3)})
    with pytest.raises(WeightsError, match="exporters fold batch norm"):
        identify_checkpoint(read_checkpoint(tmp_path / "x.onnx"))


def test_views_of_one_storage_and_other_types(tmp_path: Path) -> None:
    """Shared storages, transposed tensors and 16-bit dtypes are read as contiguous tensors."""
    shared = torch.arange(12.0)
    state = {
        "part": shared[4:10].reshape(2, 3).t(),
        "all": shared,
        "half": shared.half(),
        "bfloat16": shared.bfloat16(),
        "empty": torch.empty(0, 3),
    }
    for number, zipped in enumerate((True, False)):
        path = tmp_path / f"{number}.pth"
        torch.save(state, path, _use_new_zipfile_serialization=zipped)
        tensors = read_checkpoint(path).entries[""]
        for name, value in state.items():
            assert torch.equal(tensors[name].read(), value) and tensors[name].read().is_contiguous()


_CONTENT: dict[str, bytes] = {}


def content_of(container: str, folder: Path) -> bytes:
    """Return the bytes of a file in this format. The file is written once."""
    if container not in _CONTENT:
        suffix, write = WRITERS[container]
        path = folder / f"original{suffix}"
        write(path)
        _CONTENT[container] = path.read_bytes()
    return _CONTENT[container]


def read_completely(path: Path) -> None:
    """Read all tensors. The only exception may be WeightsError."""
    with contextlib.suppress(WeightsError):
        checkpoint = read_checkpoint(path)
        for tensors in checkpoint.entries.values():
            for stored in tensors.values():
                assert stored.read().shape == stored.shape


QUICK = settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.mark.parametrize("container", list(WRITERS))
@QUICK
@given(share=st.floats(0, 1, exclude_max=True))
def test_truncated_file(container: str, tmp_path: Path, share: float) -> None:
    content = content_of(container, tmp_path)
    path = tmp_path / f"cut{WRITERS[container][0]}"
    path.write_bytes(content[: int(share * len(content))])
    read_completely(path)


@pytest.mark.parametrize("container", list(WRITERS))
@QUICK
@given(
    places=st.lists(
        st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), min_size=1, max_size=6
    )
)
def test_file_with_changed_bytes(
    container: str, tmp_path: Path, places: list[tuple[float, int]]
) -> None:
    content = bytearray(content_of(container, tmp_path))
    for share, value in places:
        content[int(share * len(content))] = value
    path = tmp_path / f"changed{WRITERS[container][0]}"
    path.write_bytes(content)
    read_completely(path)


@QUICK
@given(
    content=st.binary(max_size=200),
    suffix=st.sampled_from([".pth", ".pkl", ".safetensors", ".caffemodel", ".onnx"]),
)
def test_arbitrary_bytes(tmp_path: Path, content: bytes, suffix: str) -> None:
    for beginning in (b"", b"\x80\x02", b"PK\x03\x04"):
        path = tmp_path / f"any{suffix}"
        path.write_bytes(beginning + content)
        read_completely(path)
