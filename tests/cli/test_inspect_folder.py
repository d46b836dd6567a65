"""`reslearn inspect FOLDER`: verdict first, one line per finding, and a status for scripts."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from reslearn.survey import run as survey_run

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A folder without findings: two splits, two classes, no picture alike."""
    rng = np.random.default_rng(0)
    for split, number in (("train", 20), ("test", 10)):
        for name in ("cat", "dog"):
            place = tmp_path / "photos" / split / name
            place.mkdir(parents=True)
            for index in range(number):
                cells = rng.integers(0, 256, (6, 6, 3), dtype=np.uint8)
                Image.fromarray(cells).resize((64, 60)).save(place / f"{index:03d}.jpg")
    return tmp_path / "photos"


def test_a_good_folder_is_status_0(photos: Path, reslearn: Run) -> None:
    status, out, err = reslearn("inspect", photos)
    assert (status, err) == (0, "")
    lines = out.splitlines()
    assert lines[0] == f"{photos}: 60 images in 2 classes: train 40, test 20"
    assert lines[1].startswith("no findings, in ")
    assert "Add a folder validation/" in out
    assert any(line.split() == ["cat", "20", "10", "30"] for line in lines)


def test_an_error_is_one_line_first_and_status_1(photos: Path, reslearn: Run) -> None:
    shutil.copy(photos / "train/cat/003.jpg", photos / "test/cat/copy.jpg")
    status, out, _ = reslearn("inspect", photos)
    lines = out.splitlines()
    assert status == 1
    assert lines[1].startswith("1 error, 1 warning")
    assert lines[3].startswith(
        "error    1 test image of 21 (4.8 %) has an exact copy in train. Remove"
    )
    assert set(lines[4].split()) == {"test/cat/copy.jpg", "=", "train/cat/003.jpg"}


def test_json_and_page_in_one_run(photos: Path, tmp_path: Path, reslearn: Run) -> None:
    page = tmp_path / "page.html"
    status, out, _ = reslearn("inspect", photos, "--json", "--html", page)
    assert status == 0
    assert json.loads(out)["counts"]["test"] == {"cat": 10, "dog": 10}
    assert "data:image/jpeg;base64," in page.read_text(encoding="utf-8")


def test_worker_processes_examine_large_folders(
    photos: Path, reslearn: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = json.loads(reslearn("inspect", photos, "--workers", "1", "--json")[1])
    monkeypatch.setattr(survey_run, "MIN_IMAGES_FOR_POOL", 1)
    pooled = json.loads(reslearn("inspect", photos, "--workers", "2", "--json")[1])
    assert pooled | {"seconds": 0} == alone | {"seconds": 0}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["photos", "--shortcut", "B"], ["photos is a folder of images", "--shortcut"]),
        (["resnet20", "--html", "page.html"], ["resnet20 is no folder of images", "--html"]),
        (["photos", "--html", "."], ["--html . is a folder"]),
        (["photos", "--html", "no/page.html"], ["no/page.html", "no folder no"]),
        (["empty"], ["empty has no pictures", "class folders"]),
        (["absent.csv"], ["absent.csv"]),
        (["photos", "--workers", "0"], ["--workers", "0"]),
    ],
    ids=" ".join,
)
def test_wrong_use_is_one_line(
    photos: Path,
    reslearn: Run,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    words: list[str],
) -> None:
    monkeypatch.chdir(photos.parent)
    (photos.parent / "empty").mkdir()
    status, _, err = reslearn("inspect", *arguments)
    assert status == 2
    assert len(err.splitlines()) == 1
    for word in words:
        assert word in err


def test_a_hostile_name_reaches_no_terminal(photos: Path, reslearn: Run) -> None:
    (photos / "train/cat/000.jpg").rename(photos / "train/cat/\x1b[31m.jpg")
    (photos / "train/cat/\x1b[31m.jpg").write_bytes(b"")
    _, out, _ = reslearn("inspect", photos)
    assert "\x1b" not in out
    assert r"\x1b[31m.jpg" in out
