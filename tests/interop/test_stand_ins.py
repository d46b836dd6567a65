"""Objects that are not tensors or plain values become inert stand-ins, and the weights are read."""

import argparse
import collections
import datetime
import importlib
import json
import pickle
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from typer.testing import CliRunner

from reslearn import models
from reslearn.cli import app
from reslearn.interop import load_network, read_checkpoint
from reslearn.interop.numpy_pickles import NumpyArray
from reslearn.interop.pickles import read_pickle
from reslearn.interop.stand_ins import StandIn
from reslearn.interop.torch_tensors import TORCH_FUNCTIONS

sys.path.insert(0, str(Path(__file__).parent))
from weight_files import STATE, error_of

# A package that leaves a file behind when it is imported, with classes like those of Lightning.
STRANGER = """
import collections, pathlib
(pathlib.Path(__file__).parent / "imported").touch()
class AttributeDict(dict): pass
class ModelCheckpoint: pass
class ArchivePath:
    def __init__(self, *parts): self.parts = parts
    def __reduce__(self): return ArchivePath, self.parts
class Average:
    def __init__(self, module): self.module = module
Outputs = collections.namedtuple("Outputs", "epoch weights")
"""


@pytest.fixture
def stranger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A package that is imported while a file is written. Reading must not import it again."""
    (tmp_path / "stranger.py").write_text(STRANGER)
    monkeypatch.syspath_prepend(tmp_path)
    yield importlib.import_module("stranger")
    sys.modules.pop("stranger", None)


def forget(stranger: Any) -> None:
    """Forget that the package was imported."""
    sys.modules.pop(stranger.__name__)
    (Path(stranger.__file__).parent / "imported").unlink()


def was_imported(stranger: Any) -> bool:
    marker = Path(stranger.__file__).parent / "imported"
    return marker.exists() or stranger.__name__ in sys.modules


def inspect_json(path: Path) -> dict[str, Any]:
    result = CliRunner().invoke(app, ["inspect", str(path), "--json"])
    assert result.exit_code == 0, result.output
    return dict(json.loads(result.output))


@pytest.fixture
def net() -> models.Network:
    net = models.build("resnet8", num_classes=5, shortcut="B")
    net.train()(torch.randn(4, 3, 8, 8))
    return net.eval()


FOREIGN_OBJECTS: dict[str, Callable[[Any], dict[str, Any]]] = {
    "AttributeDict": lambda package: {"hyper_parameters": package.AttributeDict(lr=0.1, arch="x")},
    "ModelCheckpoint": lambda package: {
        "callbacks": {package.ModelCheckpoint: {"best_model_score": torch.tensor(0.9)}}
    },
    "ArchivePath": lambda package: {"hyper_parameters": {"root": package.ArchivePath("/", "data")}},
}


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
@pytest.mark.parametrize("name", FOREIGN_OBJECTS)
def test_a_file_with_foreign_objects_loads_and_lists_them(
    name: str, zipped: bool, stranger: Any, net: models.Network, tmp_path: Path
) -> None:
    """Lightning's files hold hyper-parameters in a class of its own, callbacks and paths."""
    path = tmp_path / "lightning.ckpt"
    content = {"epoch": 12, "state_dict": net.state_dict(), **FOREIGN_OBJECTS[name](stranger)}
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    forget(stranger)
    image = torch.rand(2, 3, 8, 8)
    assert torch.equal(load_network(path)(image), net(image))
    inspection = inspect_json(path)
    assert f"stranger.{name}" in inspection["unknown_objects"]
    assert inspection["entry"] == "state_dict"
    text = CliRunner().invoke(app, ["inspect", str(path)]).output
    assert f"unknown objects, not imported or run: stranger.{name}" in text
    assert not was_imported(stranger)


def write_whole(path: Path, net: nn.Module, form: str) -> str:
    """Save a whole module in one of the forms; return the entry that holds it."""
    if form == "in a dict":
        torch.save({"epoch": 3, "net": net}, path)
        return "net"
    whole = nn.DataParallel(net) if form == "DataParallel" else net
    torch.save(whole, path, _use_new_zipfile_serialization=form != "legacy")
    return ""


@pytest.mark.parametrize("form", ["zip", "legacy", "DataParallel", "in a dict"])
@pytest.mark.filterwarnings("ignore:Couldn't retrieve source code")
def test_a_pickled_module_is_read_as_its_state_dict(form: str, tmp_path: Path) -> None:
    net = nn.Sequential(
        nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4), nn.Sequential(nn.Linear(4, 2))
    )
    net[2].register_buffer("scale", torch.ones(2, 2), persistent=False)
    entry = write_whole(tmp_path / "module.pth", net, form)
    tensors = read_checkpoint(tmp_path / "module.pth").entries[entry]
    prefix = "module." if form == "DataParallel" else ""
    expected = {prefix + name: tensor for name, tensor in net.state_dict().items()}
    assert list(tensors) == list(expected)
    for name, tensor in expected.items():
        assert torch.equal(tensors[name].read(), tensor)


@pytest.mark.parametrize("form", ["zip", "legacy", "DataParallel"])
@pytest.mark.filterwarnings("ignore:Couldn't retrieve source code")
def test_a_pickled_network_computes_the_same(
    form: str, net: models.Network, tmp_path: Path
) -> None:
    write_whole(tmp_path / "network.pth", net, form)
    image = torch.rand(2, 3, 8, 8)
    assert torch.equal(load_network(tmp_path / "network.pth")(image), net(image))
    unknown_objects = inspect_json(tmp_path / "network.pth")["unknown_objects"]
    assert "torch.nn.modules.conv.Conv2d" in unknown_objects


def test_weights_inside_unknown_objects_are_read(
    stranger: Any, net: models.Network, tmp_path: Path
) -> None:
    """The weights may be a dict of another class, an attribute, or a named tuple."""
    state = dict(net.state_dict())
    path = tmp_path / "objects.pth"
    content = {
        "dict": stranger.AttributeDict(state),
        "average": stranger.Average(net),
        "outputs": stranger.Outputs(3, state),
    }
    torch.save(content, path)
    forget(stranger)
    entries = read_checkpoint(path).entries
    assert list(entries) == ["dict", "average.module", "outputs.1"]
    for tensors in entries.values():
        assert set(tensors) == set(state)
        assert torch.equal(tensors["head.fc.weight"].read(), state["head.fc.weight"])
    assert not was_imported(stranger)


OPTIMIZER = {"state": {0: {"exp_avg": torch.ones(2, 2), "exp_avg_sq": torch.ones(2, 2)}}}
PLACES: dict[str, tuple[Any, list[str]]] = {
    "a list": ([STATE, {**OPTIMIZER, "param_groups": []}], ["0"]),
    "a tuple": ((7, STATE), ["1"]),
    "a list in a dict": ({"models": [STATE, STATE]}, ["models.0", "models.1"]),
    "four dicts": ({"a": {"b": {"c": STATE}}}, ["a.b.c"]),
    "fastai": (
        {"model": STATE, "opt": {"state": [OPTIMIZER["state"][0]], "hypers": []}},
        ["model"],
    ),
}


@pytest.mark.parametrize("kind", PLACES)
def test_tables_are_read_in_lists_tuples_and_deeper_dicts(kind: str, tmp_path: Path) -> None:
    content, entries = PLACES[kind]
    torch.save(content, tmp_path / "x.pth")
    checkpoint = read_checkpoint(tmp_path / "x.pth")
    assert list(checkpoint.entries) == entries
    assert set(checkpoint.entries[entries[0]]) == set(STATE)


def test_tensors_without_a_matrix_are_no_network(net: models.Network, tmp_path: Path) -> None:
    """pytorch/examples writes best_acc1 as a tensor of one number, beside the weights."""
    path = tmp_path / "model_best.pth.tar"
    content = {
        "best_acc1": torch.tensor(69.76),
        "metrics": {"top1": torch.tensor(69.76), "top5": torch.tensor(89.1)},
        "class_weights": torch.ones(1, 5),
        "state_dict": {f"module.{name}": tensor for name, tensor in net.state_dict().items()},
        "optimizer": {"state": {}, "param_groups": []},
    }
    torch.save(content, path)
    checkpoint = read_checkpoint(path)
    assert checkpoint.default_entry() == "state_dict"
    assert checkpoint.other_keys == ("best_acc1", "metrics", "class_weights", "optimizer")
    assert inspect_json(path)["prefix"] == "module."
    torch.save({"best_acc1": torch.tensor(69.76)}, path)
    assert list(read_checkpoint(path).entries) == [""]


VALUES: dict[str, tuple[Any, Any]] = {
    "set": ({1, "a"}, {1, "a"}),
    "frozenset": (frozenset({1, "a"}), {1, "a"}),
    "deque": (collections.deque([1, 2], maxlen=5), [1, 2]),
    "OrderedDict": (collections.OrderedDict(a=1), {"a": 1}),
    "defaultdict": (collections.defaultdict(list, a=[1]), {"a": [1]}),
    "Counter": (collections.Counter("aab"), {"a": 2, "b": 1}),
    "datetime": (datetime.datetime(2020, 2, 3, 4, 5, 6), datetime.datetime(2020, 2, 3, 4, 5, 6)),
    "UTC": (
        datetime.datetime(2020, 2, 3, tzinfo=datetime.UTC),
        datetime.datetime(2020, 2, 3, tzinfo=datetime.UTC),
    ),
    "date": (datetime.date(2020, 2, 3), datetime.date(2020, 2, 3)),
    "timedelta": (datetime.timedelta(seconds=3), datetime.timedelta(seconds=3)),
    "TorchVersion": (torch.torch_version.TorchVersion("2.1.0"), "2.1.0"),
    "bytes": (b"\x00\xff", b"\x00\xff"),
    "bytearray": (bytearray(b"\x00\xff"), b"\x00\xff"),
    "number of numpy": (np.float64(3.5), 3.5),
    "size": (torch.Size([2, 3]), (2, 3)),
}


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("name", VALUES)
def test_values_that_checkpoints_hold_are_read(name: str, protocol: int) -> None:
    """Protocol 2 writes Python 2's names, such as __builtin__.set."""
    value, expected = VALUES[name]
    content = pickle.dumps({"value": value}, protocol=protocol)
    functions = {("torch", "Size"): TORCH_FUNCTIONS["torch", "Size"]}
    unpickled = read_pickle(content, functions=functions)
    assert unpickled.value == {"value": expected}
    assert unpickled.unknown_objects == ()


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize(
    "array",
    [np.array(["cat", "Käfer"]), np.array([b"cat", b"dog"]), np.array(["cat", None], dtype=object)],
    ids=["texts", "bytes", "objects"],
)
def test_arrays_of_text_do_not_block_a_file(protocol: int, array: Any, tmp_path: Path) -> None:
    content = {"model": {"w": np.ones((2, 2)), "b": np.ones(2)}, "classes": array}
    (tmp_path / "x.pkl").write_bytes(pickle.dumps(content, protocol=protocol))
    checkpoint = read_checkpoint(tmp_path / "x.pkl")
    assert (list(checkpoint.entries), checkpoint.other_keys) == (["model"], ("classes",))
    classes = read_pickle(pickle.dumps(array, protocol=protocol)).value
    assert isinstance(classes, NumpyArray) and classes.stored is None
    texts = [] if array.dtype == object else list(array.astype(str))
    assert classes.texts() == texts


PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**1023), 2**1023)
    | st.floats(allow_nan=False)
    | st.text()
    | st.binary(),
    lambda inner: (
        st.lists(inner)
        | st.dictionaries(st.text() | st.integers(-(2**62), 2**62), inner)
        | st.tuples(inner, inner)
        | st.lists(st.text()).map(set)
    ),
    max_leaves=20,
)


@settings(max_examples=50, deadline=None)
@given(value=PLAIN, protocol=st.integers(0, pickle.HIGHEST_PROTOCOL))
def test_plain_values_are_read_as_pickle_writes_them(value: Any, protocol: int) -> None:
    assert read_pickle(pickle.dumps(value, protocol=protocol)).value == value


class WithAttributes:
    """An object that every protocol pickles in another way."""

    def __init__(self) -> None:
        self.weight = 3


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_attributes_of_an_object_are_its_state(protocol: int) -> None:
    module = WithAttributes.__module__
    unpickled = read_pickle(pickle.dumps([WithAttributes(), WithAttributes()], protocol=protocol))
    for stand_in in unpickled.value:
        assert isinstance(stand_in, StandIn)
        assert (stand_in.name, stand_in.state) == (f"{module}.WithAttributes", {"weight": 3})
    assert unpickled.unknown_objects == (f"{module}.WithAttributes",)


def test_instructions_for_old_classes_give_stand_ins() -> None:
    """Python 2 wrote instances of old classes with INST and OBJ."""
    for content in (b"(K\x01imodule\nOld\n.", b"(cmodule\nOld\nK\x01o."):
        unpickled = read_pickle(content)
        assert unpickled.value.name == "module.Old"
        assert unpickled.value.arguments == (1,)


@pytest.mark.parametrize(
    ("entry", "name"),
    [
        ("code/__torch__.py", "a TorchScript archive"),
        ("archive_format", "an archive of torch.export"),
    ],
)
def test_an_archive_that_is_a_program_has_a_message_of_its_own(
    entry: str, name: str, tmp_path: Path
) -> None:
    """torch compresses the code in such an archive."""
    path = tmp_path / "program.pt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps({}))
        archive.writestr(f"archive/{entry}", "x" * 1000, zipfile.ZIP_DEFLATED)
    text = error_of(path)
    assert text.startswith(f"{path}: {name}, which is a program")
    assert ".state_dict" in text


def test_names_of_python_2_and_3_have_the_same_functions() -> None:
    for name in ("set", "frozenset", "dict", "list"):
        old, new = (
            read_pickle(f"c{module}\n{name}\n.".encode()).value
            for module in ("__builtin__", "builtins")
        )
        assert old.function is new.function


def test_short_texts_beside_the_weights_are_read(stranger: Any, tmp_path: Path) -> None:
    """They may state the architecture, as an entry of the file or of its arguments."""
    content = {
        "arch": "resnet18",
        "state_dict": STATE,
        "args": argparse.Namespace(arch="resnet18", lr=0.1),
        "hyper_parameters": stranger.AttributeDict(net="resnet18", notes="x" * 1000),
    }
    torch.save(content, tmp_path / "x.pth")
    texts = read_checkpoint(tmp_path / "x.pth").texts
    assert set(texts) == {"arch", "args.arch", "hyper_parameters.net"}
    assert set(texts.values()) == {"resnet18"}


def test_tensors_and_parameters_with_attributes_are_tensors(tmp_path: Path) -> None:
    """torch writes them with functions of their own, and the attributes beside them."""
    tensor, parameter = torch.ones(2, 2), nn.Parameter(torch.zeros(2, 2))
    tensor.note, parameter.note = "a", "b"  # type: ignore[attr-defined]
    torch.save({"tensor": tensor, "parameter": parameter}, tmp_path / "x.pth")
    checkpoint = read_checkpoint(tmp_path / "x.pth")
    assert torch.equal(checkpoint.entries[""]["tensor"].read(), tensor)
    assert torch.equal(checkpoint.entries[""]["parameter"].read(), parameter)
    assert checkpoint.unknown_objects == ()
