"""Mutated files of every format: one line of error or a table, no import, bounded memory.

The quick test mutates a few hundred files, and `make test-slow` 10,000, or as many as
RESLEARN_MUTATED_FILES says. `-s` prints how many still had a table of tensors, and a network.

A file is mutated as a whole. In a zip archive the pickle is mutated too, and the archive is written
again around it, since its checksum would reveal the change.
"""

import argparse
import codecs
import collections
import contextlib
import io
import itertools
import os
import pathlib
import pickle
import pickletools
import random
import re
import resource
import struct
import sys
import warnings
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from reslearn import models
from reslearn.interop import WeightsError, identify_checkpoint, read_checkpoint
from reslearn.interop.load import load_network
from reslearn.interop.stated import stated_input

sys.path.insert(0, str(Path(__file__).parent))
from weight_files import STATE, WRITERS

NUM_QUICK = 20  # mutated files of each original
NUM_SLOW = int(os.environ.get("RESLEARN_MUTATED_FILES", "10000"))  # of all originals together
MOST_GROWTH_BYTES = 600 * 2**20
EXTREMES = (b"\0", b"\xff", b"\x7f", b"\x80", b"\xff\xff\xff\xff", b"\xff\xff\xff\x7f", b"\0\0\0\0")
# Instructions of pickles that combine what lies on the stack.
INSTRUCTIONS = (
    *(bytes([code]) for code in b"Rb\x81\x92oQsuae\x90\x91t\x85\x86\x87dl()]}\x8fN012\x93\x94."),
    *(b"h\0", b"h\1", b"q\0", b"K\2", b"P1\n", b"\x82\1", b"\x8b\xff\xff\xff\x7f"),
    *(b"cos\nsystem\n", b"cbuiltins\nexec\n", b"(ios\nsystem\n"),
)
NUMBERS = (b"0", b"1", b"-1", b"7", b"4611686018427387904", b"18446744073709551615", b"1e400")
TEXTS = (b'"F64"', b'"BOOL"', b'"a.bias"', b'"shape"', b"null", b"[]")


def write_module(path: Path, *, zipped: bool) -> None:
    """Write a whole module and objects of many kinds beside it."""
    objects = {
        "net": nn.DataParallel(nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2))),
        "args": argparse.Namespace(lr=0.1, root=pathlib.PurePosixPath("/data")),
        "values": [{1, 2}, collections.deque([1]), np.array(["a", "b"]), np.float32(1)],
        "optimizer": {"state": {0: {"step": torch.ones(())}}, "param_groups": [{"lr": 0.1}]},
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.save(objects, path, _use_new_zipfile_serialization=zipped)


def write_network(path: Path) -> None:
    net = models.build("resnet8", num_classes=2, shortcut="B", in_channels=1)
    torch.save({"state_dict": net.state_dict(), "epoch": 3}, path)


def write_pickle(path: Path, protocol: int) -> None:
    arrays = {name: value.numpy() for name, value in STATE.items()}
    objects = {"model": arrays, "values": [{1}, b"\xff", 1e9, -(2**70), np.array(["a"])]}
    path.write_bytes(pickle.dumps(objects, protocol=protocol))


ORIGINALS: dict[str, tuple[str, Callable[[Path], None]]] = {
    **WRITERS,
    "module, zip": (".pth", lambda path: write_module(path, zipped=True)),
    "module, legacy": (".pth", lambda path: write_module(path, zipped=False)),
    "network": (".pth", write_network),
    **{
        f"pickle, protocol {protocol}": (".pkl", lambda path, p=protocol: write_pickle(path, p))
        for protocol in range(pickle.HIGHEST_PROTOCOL + 1)
    },
}


def mutated_bytes(draw: random.Random, content: bytes, donor: bytes) -> bytes:
    """Return content with one to four changes: bytes, pieces, numbers, instructions."""
    changed = bytearray(content)
    for _ in range(draw.randint(1, 4)):
        start = draw.randrange(len(changed) + 1)
        length = min(draw.choice((1, 1, 2, 4, 8, 60)), len(changed) - start)
        piece = bytes(changed[start : start + length])
        change = draw.randrange(7)
        if change == 0:
            piece = bytes(draw.randrange(256) for _ in piece)
        elif change == 1:
            piece = b""
        elif change == 2:
            piece = piece * draw.choice((2, 3, 200))
        elif change == 3:
            piece = draw.choice(INSTRUCTIONS) + piece
        elif change == 4:
            piece = draw.choice(EXTREMES)
        elif change == 5:
            first = draw.randrange(len(donor))
            piece = donor[first : first + draw.choice((4, 30, 300))]
        else:
            del changed[start + draw.choice((0, 0, 100)) :]
            continue
        changed[start : start + length] = piece
    return bytes(changed)


def instructions_of(content: bytes) -> list[tuple[int, int]]:
    """Return where the instructions of the pickles begin and end that a file begins with."""
    places: list[tuple[int, int]] = []
    file = io.BytesIO(content)
    with contextlib.suppress(ValueError):  # the numbers of a legacy file follow the pickles
        while file.tell() < len(content):
            starts = [position for _, _, position in pickletools.genops(file)]
            places += itertools.pairwise([*starts, file.tell()])
    return places


def mutated_instructions(draw: random.Random, content: bytes, donor: bytes) -> bytes:
    """Return pickles with instructions removed, repeated, exchanged and inserted."""
    places = instructions_of(content)
    pieces = [content[start:stop] for start, stop in places]
    donated = [donor[start:stop] for start, stop in instructions_of(donor)] or list(INSTRUCTIONS)
    for _ in range(draw.randint(1, 5)):
        index, second = draw.randrange(len(pieces)), draw.randrange(len(pieces))
        pieces[index] = draw.choice(
            (
                b"",
                pieces[index] * draw.choice((2, 3, 200)),
                pieces[second],
                draw.choice(INSTRUCTIONS) + pieces[index],
                draw.choice(INSTRUCTIONS),
                draw.choice(donated) + pieces[index],
            )
        )
    return b"".join(pieces) + content[places[-1][1] :]


def mutated_pickle(draw: random.Random, content: bytes, donor: bytes) -> bytes:
    change = mutated_bytes if draw.random() < 0.3 else mutated_instructions
    return change(draw, content, donor)


def mutated_zip(draw: random.Random, content: bytes, donor: bytes) -> bytes:
    """Return an archive of torch with a mutated pickle and valid checksums."""
    target = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as source, zipfile.ZipFile(target, "w") as archive:
        for name in source.namelist():
            part = source.read(name)
            if name.endswith("/data.pkl"):
                part = mutated_pickle(draw, part, donor)
            archive.writestr(name, part)
    return target.getvalue()


def mutated_header(draw: random.Random, content: bytes) -> bytes:
    """Return a safetensors file with other names and numbers in its header, and its length."""
    (length,) = struct.unpack("<Q", content[:8])
    header = content[8 : 8 + length]
    tokens = list(re.finditer(rb"\d+|\"[^\"]*\"", header))
    for token in sorted(draw.sample(tokens, 2), key=lambda token: -token.start()):
        replacement = draw.choice(NUMBERS if token[0].isdigit() else TEXTS)
        header = header[: token.start()] + replacement + header[token.end() :]
    return struct.pack("<Q", len(header)) + header + content[8 + length :]


def mutate(draw: random.Random, content: bytes, donor: bytes) -> bytes:
    if content.startswith(b"PK") and draw.random() < 0.8:
        return mutated_zip(draw, content, donor)
    if content[8:9] == b"{" and draw.random() < 0.8:
        return mutated_header(draw, content)
    if content.startswith(b"\x80") and draw.random() < 0.8:
        return mutated_pickle(draw, content, donor)
    return mutated_bytes(draw, content, donor)


class Watch:
    """Records what a process does that reading a file must not do."""

    def __init__(self) -> None:
        self.is_active = False
        self.events: list[str] = []

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self.is_active:
            return
        is_write = event == "open" and isinstance(arguments[1], str) and arguments[1][:1] in "wax"
        forbidden = ("import", "exec", "compile", "os.", "subprocess", "socket", "pickle", "shutil")
        if is_write or event.startswith(forbidden):
            self.events.append(f"{event} {str(arguments)[:200]}")

    @contextlib.contextmanager
    def during(self) -> Iterator[None]:
        self.is_active = True
        try:
            yield
        finally:
            self.is_active = False


WATCH = Watch()


@pytest.fixture(scope="session")
def watch() -> Watch:
    """The watch as an audit hook, which Python cannot remove. Between tests it does nothing."""
    for encoding in ("cp437", "utf-32-le", "raw-unicode-escape"):
        codecs.lookup(encoding)  # Python imports an encoding when it is first used
    sys.addaudithook(WATCH)
    return WATCH


def read_all(path: Path) -> tuple[str, bool]:
    """Read, identify and load a file.

    Returns:
        The error, which may only be a WeightsError, and whether the file had a table of tensors.
    """
    has_table = False
    try:
        checkpoint = read_checkpoint(path)
        has_table = True
        for tensors in checkpoint.entries.values():
            for stored in tensors.values():
                assert stored.read().shape == stored.shape
        for entry in checkpoint.entries:
            identity = identify_checkpoint(checkpoint, entry=entry)
            assert all(line.isprintable() for line in stated_input(identity).lines())
            load_network(identity)
    except WeightsError as error:
        return str(error), has_table
    return "", has_table


def peak_bytes() -> int:
    """Return the most memory that this process has had."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


@pytest.fixture(scope="session")
def originals(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The content of the files that are mutated. Some formats need packages."""
    contents = {}
    for name, (suffix, write) in ORIGINALS.items():
        with contextlib.suppress(pytest.skip.Exception):
            path = tmp_path_factory.mktemp("original") / f"original{suffix}"
            write(path)
            contents[name] = path.read_bytes()
            read_all(path)  # imports what the reader of this format needs
    return contents


def read_mutated(
    name: str, number: int, path: Path, originals: dict[str, bytes], watch: Watch
) -> None:
    """Read mutated files of one original."""
    if name not in originals:
        pytest.skip("pip install 'reslearn[weights,test]' brings h5py and onnx")
    draw = random.Random(f"{name} {number}")
    bytes_before = peak_bytes()
    num_tables = num_networks = 0
    for index in range(number):
        donor = originals[draw.choice(list(originals))]
        path.write_bytes(mutate(draw, originals[name], donor))
        with watch.during():
            error, has_table = read_all(path)
        assert error.isprintable() and len(error) < 1000, f"file {index}"
        assert not watch.events, f"file {index}: {watch.events}"
        num_tables += has_table
        num_networks += not error
    peak_mib = peak_bytes() / 2**20
    print(
        f"{name}: {number} files, {num_tables} with a table, {num_networks} with a network, "
        f"peak {peak_mib:.0f} MiB"
    )
    assert peak_bytes() - bytes_before < MOST_GROWTH_BYTES


@pytest.mark.parametrize("name", ORIGINALS)
def test_mutated_files(
    name: str, tmp_path: Path, originals: dict[str, bytes], watch: Watch
) -> None:
    read_mutated(name, NUM_QUICK, tmp_path / f"x{ORIGINALS[name][0]}", originals, watch)


@pytest.mark.slow
@pytest.mark.parametrize("name", ORIGINALS)
def test_ten_thousand_mutated_files(
    name: str, tmp_path: Path, originals: dict[str, bytes], watch: Watch
) -> None:
    number = -(-NUM_SLOW // len(ORIGINALS))
    read_mutated(name, number, tmp_path / f"x{ORIGINALS[name][0]}", originals, watch)


def test_the_watch_sees_an_import(watch: Watch) -> None:
    with watch.during(), contextlib.suppress(ImportError):
        __import__("no_such_module_of_a_hostile_file")
    assert any("no_such_module" in event for event in watch.events)
    watch.events.clear()
