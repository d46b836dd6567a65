"""Hand-made pickles that attack the reader: nothing is called, memory and time stay small."""

import contextlib
import pickle
import struct
import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from reslearn.interop import (
    WeightsError,
    pickle_machine,
    pickles,
    read_checkpoint,
    stand_ins,
    tables,
)
from reslearn.interop.numpy_pickles import NUMPY_FUNCTIONS, NumpyArray
from reslearn.interop.pickles import read_pickle
from reslearn.interop.stand_ins import PLAIN_FUNCTIONS, ObjectKey, StandIn
from reslearn.interop.tables import find_tables
from reslearn.interop.torch_tensors import TORCH_FUNCTIONS, locate, resolve_reference

STAND_IN = b"cos\nsystem\n)\x81"  # an object of the class os.system


def text(value: str) -> bytes:
    """Return the instruction that puts a text on the stack."""
    content = value.encode()
    return b"X" + struct.pack("<I", len(content)) + content


def read(instructions: bytes) -> Any:
    return read_pickle(b"\x80\x04" + instructions + b".").value


def test_names_and_attributes_of_a_stand_in_are_never_used() -> None:
    """The state gives the object attributes that Python's unpickler would call."""
    attributes = b"".join(
        text(name) + b"cos\nsystem\n"
        for name in (
            "__setstate__",
            "append",
            "extend",
            "add",
            "__reduce__",
            "__call__",
            "__hash__",
        )
    )
    instructions = (
        STAND_IN
        + b"}("
        + attributes
        + b"ub"  # its attributes
        + b"K\x01a(K\x02K\x03e(K\x04\x90"  # append, extend and add
        + b"K\x05K\x06s(K\x07K\x08u"  # items
        + b"}b"  # other attributes
    )
    stand_in = read(instructions)
    assert stand_in.name == "os.system"
    assert stand_in.elements == [1, 2, 3, 4]
    assert stand_in.pairs == {5: 6, 7: 8}
    assert stand_in.state == {}


def test_calls_of_any_depth_give_stand_ins() -> None:
    """A pickle may call what a call returns, as in getattr(os, "system")("a command")."""
    getattr_call = b"cbuiltins\ngetattr\ncos\nsystem\n" + text("__call__") + b"\x86R"
    stand_in = read(getattr_call + text("true") + b"\x85R" + text("again") + b"\x85R")
    assert isinstance(stand_in, StandIn)
    assert (stand_in.name, stand_in.arguments) == ("builtins.getattr", ("again",))


def test_instances_have_no_attributes_that_a_file_could_set() -> None:
    for instance in (StandIn("x"), stand_ins.PickledName("x"), ObjectKey(1)):
        assert not hasattr(instance, "__dict__")


REFUSED = {
    "a call of a number": b"K\x01)R",
    "a call without a tuple": b"cos\nsystem\nK\x01R",
    "an append to a number": b"K\x01K\x02a",
    "an item of a list": b"]K\x01K\x02s",
    "a state of a function": b"ccollections\nOrderedDict\n}b",
    "a key without a value": b"}(K\x01u",
    "a name of numbers": b"K\x01K\x02\x93",
    "an extension": b"\x82\x01",
    "a reference as text": b"P1\n",
    "a reference": b"K\x01Q",
    "a buffer outside": b"\x97",
    "protocol 6": b"\x80\x06N",
    "an empty stack": b"0",
    "a memo of nothing": b"h\x05",
    "a huge number": b"\x8b" + struct.pack("<i", 10**6) + b"\x7f" * 10**6,
    "a set of a number": b"c__builtin__\nset\nK\x01\x85R",
    "a dict of numbers": b"ccollections\nOrderedDict\n](K\x01K\x02e\x85R",
    "an encoding of its own": b"c_codecs\nencode\n" + text("a") + text("zip") + b"\x86R",
    "an array without a type": b"cnumpy.core.numeric\n_frombuffer\n(C\x01aK\x01K\x01tR",
}


@pytest.mark.parametrize("name", REFUSED)
def test_instructions_that_no_file_of_weights_needs_are_refused(name: str) -> None:
    with pytest.raises(pickle.UnpicklingError) as raised:
        read(REFUSED[name])
    assert len(str(raised.value)) <= 300 and str(raised.value).isprintable()


DOUBLED = b")" + b"2\x86" * 200  # a tuple of two equal tuples of two equal tuples, ...
NUMPY_SHAPE = (
    b"cnumpy.core.numeric\n_frombuffer\n(C\x04aaaacnumpy\ndtype\n"
    + text("f4")
    + b"\x85R"
    + DOUBLED
    + b"tR"
)


def test_values_of_endless_text_and_hash_are_neither_printed_nor_hashed() -> None:
    """The hash and the text of a tuple of 200 doublings take 2**200 steps."""
    (key,) = read(b"}" + DOUBLED + b"Ns")
    assert isinstance(key, ObjectKey)
    assert len(read(b"\x8f(" + DOUBLED + b"\x90")) == 1
    calls = (
        b"c_codecs\nencode\n" + text("a") + DOUBLED + b"\x86R",
        b"c_codecs\nencode\n" + DOUBLED + text("latin1") + b"\x86R",
        b"c__builtin__\nset\n" + DOUBLED + b"R",
        b"ctorch.torch_version\nTorchVersion\n" + DOUBLED + b"\x85R",
        DOUBLED + b")R",
        DOUBLED + b"NNs",
        NUMPY_SHAPE,
    )
    for instructions in calls:
        with pytest.raises(pickle.UnpicklingError) as raised:
            read(instructions)
        assert len(str(raised.value)) < 300


def test_objects_of_any_depth_are_read_and_released() -> None:
    assert type(read(b")" + b"\x85" * 200_000)) is tuple
    assert type(read(b"]" * 100_000 + b"a" * 99_999)) is list
    stand_ins_in_stand_ins = b"cos\nsystem\nq\x00)\x81" + b"h\x00)\x81" * 50_000 + b"b" * 50_000
    assert read(stand_ins_in_stand_ins).name == "os.system"


SELF_CONTAINED: dict[str, bytes] = {
    "a dict": b"}q\x00" + text("a") + b"h\x00s",
    "a list": b"]q\x00h\x00a",
    "an object": STAND_IN + b"q\x00}" + text("a") + b"h\x00sb",
    "a module": STAND_IN + b"q\x00}" + text("_modules") + b"}" + text("a") + b"h\x00ssb",
    "lists that hold one list twice": b"]" + b"q\x00]h\x00ah\x00a" * 40,
}


@pytest.mark.parametrize("name", SELF_CONTAINED)
def test_objects_that_contain_themselves_end_the_search(name: str, tmp_path: Path) -> None:
    (tmp_path / "x.pkl").write_bytes(b"\x80\x04" + SELF_CONTAINED[name] + b".")
    with pytest.raises(WeightsError):
        read_checkpoint(tmp_path / "x.pkl")


@pytest.mark.parametrize(
    "layer", [torch.nn.Linear(1, 1), torch.nn.Identity()], ids=["Linear", "Identity"]
)
def test_a_module_in_many_places_has_a_limit(
    layer: torch.nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sixty levels of two equal modules would have 2**60 layers."""
    for limit in ("_MAX_MODULES", "_MAX_MODULE_TENSORS"):
        assert getattr(tables, limit) == 100_000
        monkeypatch.setattr(tables, limit, 1_000)
    for _ in range(60):
        layer = torch.nn.Sequential(layer, layer)
    torch.save(layer, tmp_path / "x.pth")
    with pytest.raises(WeightsError, match=r"more than 1,000 (tensors|modules)"):
        read_checkpoint(tmp_path / "x.pth")


def test_the_number_of_calls_has_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    assert stand_ins._MAX_CALLS == 500_000
    monkeypatch.setattr(stand_ins, "_MAX_CALLS", 100)
    stand_in = b"cos\nsystem\nq\x00)\x81" + b"0h\x00)\x81" * 99
    assert read(stand_in).name == "os.system"
    with pytest.raises(pickle.UnpicklingError, match="more than 100 objects"):
        read(stand_in + b"0h\x00)\x81")


def test_a_long_name_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    assert pickle_machine._LONGEST_NAME == 1_000
    assert read(text("a" * 500) + text("b" * 500) + b"\x93").text == "a" * 200
    with pytest.raises(pickle.UnpicklingError, match="a text of 1,001 characters"):
        read(text("a" * 501) + text("b" * 500) + b"\x93")


# Pickles that use as much memory as they can for their length. Each takes a number of repetitions.
MEMORY: dict[str, Callable[[int], bytes]] = {
    "empty sets": lambda count: b"(" + b"\x8f" * count,
    "empty dicts": lambda count: b"(" + b"}" * count,
    "dicts of one item": lambda count: b"(" + b"}NNs" * (count // 4),
    "marks": lambda count: b"(" * count,
    "stand-ins": lambda count: b"cos\nsystem\nq\x00(" + b"h\x00)\x81" * (count // 3),
    "stand-ins with items": lambda count: b"cos\nsystem\nq\x00(" + b"h\x00)\x81NNs" * (count // 6),
    "stand-ins with elements": lambda count: (
        b"cos\nsystem\nq\x00(" + b"h\x00)\x81Na" * (count // 5)
    ),
    "a memo": lambda count: b"(" + b")\x94" * (count // 2),
    "one text encoded again and again": lambda count: (
        text("a" * 10_000) + b"q\x01c_codecs\nencode\nq\x02(" + b"h\x02h\x01\x85R" * (count // 4)
    ),
    "one list copied again and again": lambda count: (
        b"]("
        + b"N" * (count // 2)
        + b"eq\x01"
        + b"ccollections\ndeque\nq\x02("
        + b"h\x02h\x01\x85R" * (count // 8)
    ),
    "names": lambda count: (
        b"("
        + b"".join(text("m" * 500) + text(f"n{number}") + b"\x93" for number in range(count // 3))
    ),
    "arrays": lambda count: (
        b"cnumpy.core.multiarray\n_reconstruct\nq\x00(" + b"h\x00)R" * (count // 3)
    ),
}


@pytest.mark.parametrize("name", MEMORY)
def test_memory_is_bounded(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a hundredth of the instructions, a hundredth of the memory: 3 MB.

    At the real limits, 2 million instructions, this is 300 MB beside the file itself.
    """
    monkeypatch.setattr(pickles, "_MAX_INSTRUCTIONS", 20_000)
    monkeypatch.setattr(stand_ins, "_FREE_BYTES", 2**26 // 100)
    monkeypatch.setattr(stand_ins, "_MAX_CALLS", 5_000)
    content = b"\x80\x04" + MEMORY[name](19_900) + b"t."
    tracemalloc.start()
    try:
        read_pickle(content)
    except pickle.UnpicklingError:
        pass
    finally:
        _, peak_bytes = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert peak_bytes < 3_000_000 + 3 * len(content)


GROWTH = """
import pickle, resource, sys
import test_hostile_pickles as hostile
content = b"\\x80\\x04" + hostile.MEMORY[sys.argv[1]](1_999_000) + b"t."
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    hostile.read_pickle(content)
except pickle.UnpicklingError:
    pass
growth = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
print(growth / (2**20 if sys.platform == "darwin" else 2**10), len(content) / 2**20)
"""


@pytest.mark.slow
@pytest.mark.parametrize("name", MEMORY)
def test_memory_is_bounded_at_the_real_limits(name: str) -> None:
    """Files of 2 MB take up to 160 MB, and longer files 3 times their length beside that."""
    result = subprocess.run(
        [sys.executable, "-c", GROWTH, name],
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        check=True,
    )
    growth_mib, content_mib = map(float, result.stdout.split())
    assert growth_mib < 300 + 3 * content_mib


def test_an_array_of_endless_empty_texts_is_not_expanded() -> None:
    """An array of 2**40 texts of no characters takes no bytes."""
    array = read(
        b"cnumpy.core.numeric\n_frombuffer\n(C\x00cnumpy\ndtype\n"
        + text("U0")
        + b"\x85R"
        + b"\x8a\x06\0\0\0\0\0\x01\x85"
        + text("C")
        + b"tR"
    )
    assert array.stored is None and array.texts() == []


def test_a_tensor_of_another_kind_is_a_stand_in(tmp_path: Path) -> None:
    """Complex, quantized and sparse tensors beside the weights do not block the file."""
    weights = {"a": torch.ones(2, 2), "b": torch.ones(2)}
    others = {
        "complex": torch.ones(2, dtype=torch.complex64),
        "float8": torch.ones(2).to(torch.float8_e4m3fn),
        "sparse": torch.eye(2).to_sparse(),
    }
    for zipped in (True, False):
        path = tmp_path / f"{zipped}.pth"
        content = {"others": dict(others), "state_dict": weights}
        if not zipped:
            del content["others"]["float8"]  # the legacy format cannot write it
        torch.save(content, path, _use_new_zipfile_serialization=zipped)
        checkpoint = read_checkpoint(path)
        assert list(checkpoint.entries) == ["state_dict"]
        assert torch.equal(checkpoint.entries["state_dict"]["a"].read(), weights["a"])


def test_arrays_of_a_tpu_are_tensors() -> None:
    """torch_xla writes a tensor as an array of numpy and the function that moves it."""
    array = pickle.dumps(np.ones((2, 2), np.float32), protocol=2)[2:-1]
    arguments = b"(" + array + b"ctorch\nfloat32\n" + text("xla:0") + b"\x89t"
    rebuild = b"ctorch._utils\n_rebuild_device_tensor_from_numpy\n"
    content = b"\x80\x02" + rebuild + arguments + b"R."
    value = read_pickle(content, functions=TORCH_FUNCTIONS).value
    assert torch.equal(value.stored.read(), torch.ones(2, 2))


FUNCTIONS = {**PLAIN_FUNCTIONS, **NUMPY_FUNCTIONS, **TORCH_FUNCTIONS, ("os", "system"): None}
NAMES = [f"c{module}\n{name}\n".encode() for module, name in FUNCTIONS]
SMALL_VALUES = [
    *(bytes([code]) for code in b"N\x88\x89)]}\x8f"),
    *(b"K\x00", b"K\x01", b"K\x02", b"\x8a\x01\xff", b"\x8a\x08" + b"\x7f" * 8, b"C\x04aaaa"),
    *(text(word) for word in ("f4", "U1", "storage", "0", "_modules", "_parameters")),
]
COMBINATIONS = [bytes([code]) for code in b"Rb\x81\x92oQsuae\x90\x91t\x85\x86\x87dl(02\x94"]
ARGUMENTS = st.lists(st.sampled_from(SMALL_VALUES + NAMES), max_size=6).map(b"".join)
CALLS = st.builds(
    lambda name, arguments: name + b"(" + arguments + b"tR", st.sampled_from(NAMES), ARGUMENTS
)
INSTRUCTIONS = st.lists(
    st.sampled_from(SMALL_VALUES + NAMES) | st.sampled_from(COMBINATIONS) | CALLS, max_size=30
)


@settings(max_examples=300, deadline=None)
@given(instructions=INSTRUCTIONS)
def test_any_instructions_give_a_value_or_an_error_of_one_line(instructions: list[bytes]) -> None:
    """Every function is called with arguments of many types, and every object is searched."""
    content = b"\x80\x04" + b"".join(instructions) + b"."
    with contextlib.suppress(pickle.UnpicklingError):
        value = read_pickle(
            content, functions=TORCH_FUNCTIONS, persistent_load=resolve_reference
        ).value
        if isinstance(value, NumpyArray):
            assert isinstance(value.texts(), list)
        with contextlib.suppress(ValueError):
            find_tables(value, lambda part: locate(part, {}))


def test_a_number_in_the_order_of_fortran_is_read() -> None:
    """The flag has no meaning for an array without axes."""
    original = pickle.dumps(np.array(3.0), protocol=2)
    array = original.replace(b"b\x89", b"b\x88")  # the state after the type of the values
    assert array != original
    assert read_pickle(array).value.stored.read().item() == 3.0
