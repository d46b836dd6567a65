"""The registry, the embedded digits, and splitting off validation images."""

from pathlib import Path

import pytest
import torch

from reslearn.data import (
    DataError,
    ImageData,
    UnknownDataError,
    load,
    locate,
    names,
    split,
)


@pytest.fixture(scope="module")
def digits() -> ImageData:
    return load("digits")


def test_digits(digits: ImageData) -> None:
    assert (len(digits.train), len(digits.test), digits.validation) == (1437, 360, None)
    assert (digits.size_px, digits.channels, digits.classes) == (8, 1, tuple("0123456789"))
    assert int(digits.train.pixels.max()) == 255
    assert len(digits.train.pixels.unique()) == 17
    assert int(torch.bincount(digits.test.labels).min()) >= 34
    assert digits.fingerprint == "20f5b98c2b728826"  # recorded results depend on this split


def test_smaller_digits() -> None:
    assert load("digits", size_px=4).size_px == 4
    with pytest.raises(
        DataError, match=r"size_px = 16: digits has 8 x 8 pixels; allowed are 8, 4, 2"
    ):
        load("digits", size_px=16)


def test_split_takes_the_last_training_images(digits: ImageData) -> None:
    parts = split(digits, 200)
    assert parts.validation is not None
    assert torch.equal(
        torch.cat([parts.train.pixels, parts.validation.pixels]), digits.train.pixels
    )
    assert len(parts.validation) == 200
    assert parts.fingerprint == digits.fingerprint
    assert parts.test is digits.test
    for wrong in (-1, 1437):
        with pytest.raises(
            DataError, match=f"validation_images = {wrong}: .*allowed are 0 to 1436"
        ):
            split(digits, wrong)


def test_evenly_spaced_images(digits: ImageData) -> None:
    assert digits.train.evenly_spaced(5000) is digits.train
    assert torch.equal(digits.train.evenly_spaced(3).labels, digits.train.labels[[0, 479, 958]])
    with pytest.raises(DataError, match="number of images = 0"):
        digits.train.evenly_spaced(0)


def test_names_have_a_line_each() -> None:
    assert list(names()) == ["digits", "cifar10", "cifar100"]
    assert all(line and "\n" not in line for line in names().values())


@pytest.mark.parametrize(
    ("name", "hint"),
    [("CIFAR-10", "'cifar10'"), ("digit", "'digits'"), ("cifar1000", "'cifar100'")],
)
def test_unknown_names_get_a_hint(name: str, hint: str) -> None:
    with pytest.raises(UnknownDataError, match=f"no data called '{name}', did you mean {hint}"):
        load(name)


def test_names_that_are_neither_source_nor_folder(tmp_path: Path) -> None:
    with pytest.raises(
        UnknownDataError,
        match="no data called 'imagenet': there are digits, cifar10, cifar100, or any folder",
    ):
        load("imagenet")
    with pytest.raises(UnknownDataError, match=f"no folder {tmp_path}/absent; allowed are"):
        load(tmp_path / "absent")
    (tmp_path / "file").write_text("x")
    with pytest.raises(DataError, match="is a file; allowed are"):
        load(tmp_path / "file")


def test_the_images_of_a_run_are_found_from_any_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, photos = tmp_path / "runs" / "photos", tmp_path / "photos"
    run.mkdir(parents=True)
    (run / "recipe.json").write_text("{}")
    photos.mkdir()
    monkeypatch.chdir(tmp_path)
    assert locate("photos", run=run) == "photos"
    monkeypatch.chdir("/")
    assert locate("photos", run=run) == str(photos), "and not the run of the same name"
    (tmp_path / "digits").mkdir()
    for name in ("digits", "nowhere", "/photos"):
        assert locate(name, run=run) == name
