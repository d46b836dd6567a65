"""`reslearn bench load FOLDER`: the paths from photos to batches. No test asserts a time."""

import json
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import pytest
from benchmarks import photo_loader
from typer.testing import CliRunner

from reslearn import data
from reslearn.cli import app

Make = Callable[..., Path]


@pytest.fixture(scope="module")
def photos(make_pictures: Make, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_pictures(tmp_path_factory.mktemp("photos"), train=6, test=2)


def test_every_path_is_measured(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        photo_loader, "_timed", lambda batches, *_: (len(list(islice(batches, 2))), 4)
    )
    arguments = ["bench", "load", str(photos), "--workers", "1", "--rounds", "2", "-b", "4"]
    result = CliRunner().invoke(app, [*arguments, "--size-px", "16", "--json"])
    assert result.exit_code == 0, result.output
    rows = json.loads(result.stdout)
    assert [row["path"] for row in rows] == ["files", "memory", "DataLoader", "decoding"]
    assert [row["images_per_second"] for row in rows] == [2] * 4
    assert [row["share_of_decoding_pct"] for row in rows] == [100] * 4
    table = photo_loader.table([photo_loader.PhotoRow(**row) for row in rows])
    assert "2 images/s,   4.00 ms of CPU per image,  1.00 times the DataLoader" in table


def test_the_plain_crop_lies_inside() -> None:
    for size in ((40, 30), (300, 20)):
        for _ in range(50):
            left_px, top_px, right_px, bottom_px = photo_loader.random_crop(*size)
            assert 0 <= left_px < right_px <= size[0]
            assert 0 <= top_px < bottom_px <= size[1]


def test_photos_are_enlarged(photos: Path, tmp_path: Path) -> None:
    photo_loader.enlarge(photos, tmp_path, megapixels=0.02, num_photos=9)
    large = data.load(tmp_path, stream=True)
    assert len(large.train) == 9
    pixels, _ = large.train[0]
    assert pixels.shape[0] * pixels.shape[1] == pytest.approx(20_000, rel=0.05)
    assert set(large.classes) == set(data.load(photos, stream=True).classes)


def test_a_missing_folder_is_one_line() -> None:
    result = CliRunner().invoke(app, ["bench", "load", "no-such-folder"])
    assert "no-such-folder is no folder" in str(result.exception)
