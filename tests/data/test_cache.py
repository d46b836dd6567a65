"""The cache of a decoded set: decoded once, mapped into memory, and checked by fingerprint."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from reslearn.data.cache import load_cached
from reslearn.data.images import ImageData, Images, fingerprint


def make_dataset(seed: int = 0) -> ImageData:
    generator = torch.Generator().manual_seed(seed)
    train, test = (
        Images(
            torch.randint(0, 256, (number, 4, 4, 3), dtype=torch.uint8, generator=generator),
            torch.arange(number) % 3,
        )
        for number in (7, 5)
    )
    return ImageData(
        name="example",
        classes=("a", "b", "ü"),
        train=train,
        test=test,
        fingerprint=fingerprint([train, test]),
    )


def fail_if_decoded() -> ImageData:
    pytest.fail("it was decoded again")


@pytest.fixture
def source(tmp_path: Path) -> list[Path]:
    paths = [tmp_path / name for name in ("part-1", "part-2")]
    for path in paths:
        path.write_text(path.name)
    return paths


def assert_equal(actual: ImageData, expected: ImageData) -> None:
    assert (actual.name, actual.classes, actual.fingerprint, actual.validation) == (
        expected.name,
        expected.classes,
        expected.fingerprint,
        None,
    )
    for part in ("train", "test"):
        assert torch.equal(getattr(actual, part).pixels, getattr(expected, part).pixels)
        assert torch.equal(getattr(actual, part).labels, getattr(expected, part).labels)


def test_a_set_is_decoded_once_and_then_mapped(source: list[Path]) -> None:
    first = load_cached(source, "4px", make_dataset)
    second = load_cached(source, "4px", fail_if_decoded)
    for dataset in (first, second):
        assert_equal(dataset, make_dataset())
    if Path("/proc/self/maps").exists():
        assert (
            str(source[0].parent / ".reslearn-4px.safetensors")
            in Path("/proc/self/maps").read_text()
        )
    assert sorted(path.name for path in source[0].parent.iterdir()) == [
        ".reslearn-4px.safetensors",
        "part-1",
        "part-2",
    ]
    assert_equal(
        load_cached(source, "2px", lambda: make_dataset(seed=1)), make_dataset(seed=1)
    )  # another label is another file


def change_source(source: list[Path], cache: Path) -> None:
    source[1].write_text("another")


def change_time(source: list[Path], cache: Path) -> None:
    os.utime(source[1], ns=(1, 1))


def truncate(source: list[Path], cache: Path) -> None:
    cache.write_bytes(cache.read_bytes()[:-1])


def flip_a_bit(source: list[Path], cache: Path) -> None:
    content = bytearray(cache.read_bytes())
    content[-1] ^= 1
    cache.write_bytes(content)


def empty(source: list[Path], cache: Path) -> None:
    cache.write_bytes(b"")


@pytest.mark.parametrize("damage", [change_source, change_time, truncate, flip_a_bit, empty])
def test_a_stale_or_damaged_cache_is_replaced(
    damage: Callable[[list[Path], Path], None], source: list[Path]
) -> None:
    load_cached(source, "4px", lambda: make_dataset(seed=1))
    damage(source, source[0].parent / ".reslearn-4px.safetensors")
    assert_equal(load_cached(source, "4px", make_dataset), make_dataset())
    assert_equal(load_cached(source, "4px", fail_if_decoded), make_dataset())


def test_without_a_writable_folder_the_set_is_decoded(source: list[Path]) -> None:
    (source[0].parent / ".reslearn-4px.safetensors").mkdir()
    for _ in range(2):
        assert_equal(load_cached(source, "4px", make_dataset), make_dataset())
    assert not list(source[0].parent.glob("*.part"))


def test_an_error_while_decoding_leaves_no_file(source: list[Path]) -> None:
    def broken() -> ImageData:
        raise ValueError("part-2 is truncated")

    with pytest.raises(ValueError, match="part-2 is truncated"):
        load_cached(source, "4px", broken)
    assert len(list(source[0].parent.iterdir())) == 2
