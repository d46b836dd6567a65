"""A decoded set kept beside its source: the same images, decoded once, held once; and never trusted beyond its fingerprint."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from reslearn.data.cache import load_cached
from reslearn.data.images import ImageData, Images, fingerprint


def made(seed: int = 0) -> ImageData:
    generator = torch.Generator().manual_seed(seed)
    train, test = (
        Images(
            torch.randint(0, 256, (number, 4, 4, 3), dtype=torch.uint8, generator=generator),
            torch.arange(number) % 3,
        )
        for number in (7, 5)
    )
    return ImageData(
        name="made",
        classes=("a", "b", "ü"),
        train=train,
        test=test,
        fingerprint=fingerprint([train, test]),
    )


def must_not() -> ImageData:
    pytest.fail("it was decoded again")


@pytest.fixture
def source(tmp_path: Path) -> list[Path]:
    paths = [tmp_path / name for name in ("part-1", "part-2")]
    for path in paths:
        path.write_text(path.name)
    return paths


def assert_same(ours: ImageData, theirs: ImageData) -> None:
    assert (ours.name, ours.classes, ours.fingerprint, ours.validation) == (
        theirs.name,
        theirs.classes,
        theirs.fingerprint,
        None,
    )
    for part in ("train", "test"):
        assert torch.equal(getattr(ours, part).pixels, getattr(theirs, part).pixels)
        assert torch.equal(getattr(ours, part).labels, getattr(theirs, part).labels)


def test_decoded_once_and_mapped_ever_after(source: list[Path]) -> None:
    first = load_cached(source, "4px", made)
    second = load_cached(source, "4px", must_not)
    for dataset in (first, second):
        assert_same(dataset, made())
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
    assert_same(
        load_cached(source, "2px", lambda: made(seed=1)), made(seed=1)
    )  # another label is another file


def changed(source: list[Path], place: Path) -> None:
    source[1].write_text("another")


def touched(source: list[Path], place: Path) -> None:
    os.utime(source[1], ns=(1, 1))


def truncated(source: list[Path], place: Path) -> None:
    place.write_bytes(place.read_bytes()[:-1])


def flipped(source: list[Path], place: Path) -> None:
    content = bytearray(place.read_bytes())
    content[-1] ^= 1
    place.write_bytes(content)


def emptied(source: list[Path], place: Path) -> None:
    place.write_bytes(b"")


@pytest.mark.parametrize("damage", [changed, touched, truncated, flipped, emptied])
def test_what_does_not_fit_is_made_anew(
    damage: Callable[[list[Path], Path], None], source: list[Path]
) -> None:
    load_cached(source, "4px", lambda: made(seed=1))
    damage(source, source[0].parent / ".reslearn-4px.safetensors")
    assert_same(load_cached(source, "4px", made), made())
    assert_same(load_cached(source, "4px", must_not), made())


def test_where_nothing_can_be_written_it_is_decoded(source: list[Path]) -> None:
    (source[0].parent / ".reslearn-4px.safetensors").mkdir()
    for _ in range(2):
        assert_same(load_cached(source, "4px", made), made())
    assert not list(source[0].parent.glob("*.part"))


def test_an_error_in_the_source_is_the_source_s_and_leaves_no_file(source: list[Path]) -> None:
    def broken() -> ImageData:
        raise ValueError("part-2 is truncated")

    with pytest.raises(ValueError, match="part-2 is truncated"):
        load_cached(source, "4px", broken)
    assert len(list(source[0].parent.iterdir())) == 2
