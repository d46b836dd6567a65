"""CIFAR in its four published layouts; truncated, foreign and hostile files; the real set."""

import io
import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from reslearn.data import DataError, load, split
from reslearn.data.cifar import CIFAR10, CIFAR100, Cifar, CifarLayout
from reslearn.data.unpickle import read_pickle


class Python2Pickler(pickle._Pickler):  # type: ignore[name-defined,misc]
    """Write like numpy in Python 2: byte strings, old module names, `align` as a number."""

    dispatch: ClassVar = dict(pickle._Pickler.dispatch)  # type: ignore[attr-defined]

    def save_bytes(self, value: bytes) -> None:
        self.write(pickle.BINSTRING + len(value).to_bytes(4, "little") + value)
        self.memoize(value)

    def save_global(self, value: Any, name: str | None = None) -> None:
        module = value.__module__.replace("numpy._core", "numpy.core")
        self.write(pickle.GLOBAL + f"{module}\n{value.__name__}\n".encode())
        self.memoize(value)

    def save_ndarray(self, value: np.ndarray) -> None:
        function, arguments, state = value.__reduce__()
        self.save_reduce(function, (arguments[0], arguments[1], b"b"), state, obj=value)

    def save_dtype(self, value: np.dtype[Any]) -> None:
        self.save_reduce(np.dtype, (value.str.encode()[1:], 0, 1), value.__reduce__()[2], obj=value)

    dispatch[bytes] = save_bytes
    dispatch[type(np.zeros(0).__reduce__()[0])] = save_global
    dispatch[type] = save_global
    dispatch[np.ndarray] = save_ndarray
    dispatch[type(np.dtype(np.uint8))] = save_dtype


def python2(value: object) -> bytes:
    stream = io.BytesIO()
    Python2Pickler(stream, protocol=2).dump(value)
    return stream.getvalue()


def python3(value: object) -> bytes:
    return pickle.dumps(value, protocol=2)


def make_content(cifar: Cifar, num_images: int = 4) -> dict[str, tuple[np.ndarray, list[int]]]:
    """Return planes [N, 3072] and labels for each file of the Python layout."""
    random = np.random.default_rng(0)
    layout = cifar.layouts[0]
    return {
        name: (
            random.integers(0, 256, (num_images, 3072), dtype=np.uint8),
            random.integers(0, cifar.num_classes, num_images).tolist(),
        )
        for name in (*layout.train, layout.test)
    }


def write_python(folder: Path, cifar: Cifar, dump: Callable[[object], bytes] = python3) -> Path:
    layout = cifar.layouts[0]
    folder = folder / layout.folder
    folder.mkdir(parents=True)
    key, names_key = (
        (b"labels", b"label_names") if cifar is CIFAR10 else (b"fine_labels", b"fine_label_names")
    )
    for name, (planes, labels) in make_content(cifar).items():
        (folder / name).write_bytes(
            dump({b"data": planes, key: labels, b"batch_label": b"example"})
        )
    names = [f"kind{label}".encode() for label in range(cifar.num_classes)]
    (folder / layout.classes).write_bytes(dump({names_key: names}))
    return folder


def write_binary(folder: Path, cifar: Cifar) -> Path:
    layout = cifar.layouts[1]
    folder = folder / layout.folder
    folder.mkdir(parents=True)
    for (planes, labels), name in zip(
        make_content(cifar).values(), (*layout.train, layout.test), strict=True
    ):
        columns = [np.array(labels, np.uint8)[:, None], planes]
        if cifar is CIFAR100:
            columns.insert(0, np.zeros((len(labels), 1), np.uint8))  # the coarse label
        np.concatenate(columns, axis=1).tofile(folder / name)
    (folder / layout.classes).write_text(
        "\n".join(f"kind{label}" for label in range(cifar.num_classes)) + "\n\n"
    )
    return folder


@pytest.mark.parametrize("cifar", [CIFAR10, CIFAR100], ids=lambda cifar: cifar.name)
def test_all_layouts_give_the_same_arrays(tmp_path: Path, cifar: Cifar) -> None:
    folders = [
        write_python(tmp_path / "python3", cifar),
        write_python(tmp_path / "python2", cifar, python2),
        write_binary(tmp_path / "binary", cifar),
    ]
    files = make_content(cifar)
    planes = np.concatenate([files[name][0] for name in cifar.layouts[0].train])
    loaded = [load(cifar.name, data_dir=folder) for folder in folders]
    for dataset in loaded:
        np.testing.assert_array_equal(
            dataset.train.pixels, planes.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
        )
        assert dataset.test.labels.tolist() == files[cifar.layouts[0].test][1]
        assert dataset.classes == tuple(f"kind{label}" for label in range(cifar.num_classes))
        assert (dataset.name, dataset.size_px, dataset.channels) == (cifar.name, 32, 3)
    assert len({dataset.fingerprint for dataset in loaded}) == 1


def test_the_folder_may_be_the_layout_or_its_parent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_python(tmp_path, CIFAR10)
    expected = load("cifar10", data_dir=folder).fingerprint
    assert load("cifar10", data_dir=tmp_path).fingerprint == expected
    assert load(folder).fingerprint == expected
    assert load(str(tmp_path)).name == "cifar10"
    monkeypatch.setenv("RESLEARN_DATA", str(tmp_path))
    assert load("cifar10").fingerprint == expected
    (tmp_path / "empty").mkdir()
    assert load("cifar10", data_dir=tmp_path / "empty").fingerprint == expected
    with pytest.raises(DataError, match=r"--data-dir .*/absent: no such folder"):
        load("cifar10", data_dir=tmp_path / "absent")
    monkeypatch.delenv("RESLEARN_DATA")
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(
        DataError,
        match=r"put https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz .* into "
        r".*/.cache/reslearn/data",
    ):
        load("cifar10")
    (tmp_path / ".cache/reslearn").mkdir(parents=True)
    (tmp_path / ".cache/reslearn/data").symlink_to(tmp_path)
    assert load("cifar10").fingerprint == expected


def test_smaller_images_are_means_over_areas(tmp_path: Path) -> None:
    folder = write_binary(tmp_path, CIFAR10)
    full, half = load("cifar10", data_dir=folder), load("cifar10", data_dir=folder, size_px=16)
    assert half.size_px == 16
    means = full.train.pixels.numpy().reshape(-1, 16, 2, 16, 2, 3).mean((2, 4))
    np.testing.assert_array_equal(half.train.pixels, np.floor(means + 0.5))
    assert half.fingerprint != full.fingerprint
    with pytest.raises(
        DataError, match=r"size_px = 20: cifar10 has 32 x 32 pixels; allowed are 32, 16, 8, 4, 2$"
    ):
        load("cifar10", data_dir=folder, size_px=20)


def message_of(action: Callable[[], object]) -> str:
    with pytest.raises(DataError) as caught:
        action()
    assert "\n" not in str(caught.value)
    assert caught.value.__cause__ is None
    return str(caught.value)


def test_an_incomplete_folder_is_refused_with_the_missing_files(tmp_path: Path) -> None:
    folder = write_python(tmp_path, CIFAR10)
    (folder / "data_batch_3").unlink()
    message = message_of(lambda: load("cifar10", data_dir=tmp_path))
    assert "lacks data_batch_3" in message
    assert "https://www.cs.toronto.edu" in message


@given(keep=st.floats(0, 0.999))
def test_truncated_pickles_are_refused_in_one_line(
    tmp_path_factory: pytest.TempPathFactory, keep: float
) -> None:
    whole = python2({b"data": np.zeros((2, 3072), np.uint8), b"labels": [1, 2]})
    path = tmp_path_factory.mktemp("cut") / "data_batch_1"
    path.write_bytes(whole[: int(keep * len(whole))])
    assert "truncated or not a published data file" in message_of(lambda: read_pickle(path))


@given(content=st.binary(max_size=200))
def test_foreign_bytes_are_refused_in_one_line(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    path = tmp_path_factory.mktemp("foreign") / "data_batch_1"
    path.write_bytes(content)
    message_of(lambda: CIFAR10.layouts[0].read(path, 10))


class Hostile:
    def __init__(self, action: Callable[..., object], *arguments: object) -> None:
        self.action, self.arguments = action, arguments

    def __reduce__(self) -> tuple[Any, ...]:
        return self.action, self.arguments


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_pickles_cannot_run_code(tmp_path: Path, protocol: int) -> None:
    path, trace = tmp_path / "data_batch_1", tmp_path / "ran"
    for action, arguments in [
        (os.system, (f"touch {trace}",)),
        (eval, ("1",)),
        (getattr, ("", "join")),
        (np.load, (str(path),)),
    ]:
        path.write_bytes(pickle.dumps({b"data": Hostile(action, *arguments)}, protocol=protocol))
        assert "it asks for" in message_of(lambda: read_pickle(path))
    for array in (np.array([[1]], dtype=object), np.array(["text"]), np.zeros(2, "u1,u1")):
        path.write_bytes(pickle.dumps({b"data": array}, protocol=protocol))
        message_of(lambda: read_pickle(path))
    assert not trace.exists()


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ([1, 2], "a list, not a dictionary"),
        ({b"data": np.zeros((2, 3072), np.float32), b"labels": [0, 1]}, "'f4', not of bytes"),
        ({b"data": np.zeros((2, 100), np.uint8), b"labels": [0, 1]}, "`data` is not uint8"),
        ({b"data": np.zeros((0, 3072), np.uint8), b"labels": []}, "`data` is not uint8"),
        (
            {b"data": np.zeros((2, 3072), np.uint8), b"labels": [0]},
            "`labels` is not a list of 2 numbers",
        ),
        (
            {b"data": np.zeros((2, 3072), np.uint8), b"labels": [0, "1"]},
            "`labels` is not a list of 2 numbers",
        ),
        (
            {b"data": np.zeros((2, 3072), np.uint8), b"labels": [0, 10]},
            "labels 0 to 10; allowed are 0 to 9",
        ),
        ({b"data": np.zeros((2, 3072), np.uint8), b"labels": [0, 2**70]}, "not class numbers"),
        ({b"data": np.zeros((2, 3072), np.uint8)}, "`labels` is not"),
    ],
)
def test_structure_is_checked(tmp_path: Path, value: object, reason: str) -> None:
    folder = write_python(tmp_path, CIFAR10)
    (folder / "data_batch_2").write_bytes(python2(value))
    message = message_of(lambda: load("cifar10", data_dir=tmp_path))
    assert reason in message
    assert "data_batch_2" in message


def test_truncated_binary_and_wrong_class_names(tmp_path: Path) -> None:
    folder = write_binary(tmp_path, CIFAR100)
    (folder / "fine_label_names.txt").write_text("one two")
    assert "names 2 classes; cifar100 has 100" in message_of(
        lambda: load("cifar100", data_dir=tmp_path)
    )
    (folder / "train.bin").write_bytes((folder / "train.bin").read_bytes()[:-5])
    assert "not a whole number of records of 3074" in message_of(
        lambda: load("cifar100", data_dir=tmp_path)
    )


def test_each_layout_has_its_published_address() -> None:
    layouts: list[CifarLayout] = [*CIFAR10.layouts, *CIFAR100.layouts]
    assert len({layout.md5 for layout in layouts}) == 4
    assert all(
        layout.address == f"https://www.cs.toronto.edu/~kriz/{layout.archive}" for layout in layouts
    )
    assert replace(layouts[0], site="x/").address == "x/cifar-10-python.tar.gz"


@pytest.mark.slow
def test_real_cifar10(tmp_path: Path) -> None:
    unpack = Path(__file__).parents[3] / "shared" / "data" / "unpack-cifar10"
    if not unpack.is_file():
        pytest.skip(f"no {unpack}")
    subprocess.run([sys.executable, str(unpack), str(tmp_path)], check=True, capture_output=True)
    dataset = split(load("cifar10", data_dir=tmp_path), 5000)
    assert dataset.validation is not None
    assert (len(dataset.train), len(dataset.validation), len(dataset.test)) == (
        45_000,
        5_000,
        10_000,
    )
    assert torch.bincount(dataset.test.labels).tolist() == [1000] * 10
    assert dataset.classes[3] == "cat"
    assert dataset.test.labels[0] == 3
    assert dataset.train.labels[:4].tolist() == [6, 9, 9, 4]
    assert dataset.fingerprint == "804876dd0acf5ac2"
