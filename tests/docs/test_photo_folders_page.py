"""docs/photo-folders.md: its code runs, and what it says of numbers and names is in the code."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from reslearn.data.content_split import TEST_SHARE, VALIDATION_SHARE
from reslearn.data.label_file import SPLIT_VALUES
from reslearn.data.pictures import MAX_PIXELS
from reslearn.data.walk import junk_name

PAGE = (Path(__file__).parents[2] / "docs" / "photo-folders.md").read_text(encoding="utf-8")
Make = Callable[..., Path]


def test_the_code_of_the_page_runs(
    make_pictures: Make,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    make_pictures(tmp_path / "photos", train=4, test=2)
    (tmp_path / "photos" / "train" / "red" / "notes.txt").write_text("red")
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)
    assert len(blocks) == 2
    for block in blocks:
        exec(compile(block, "photo-folders.md", "exec"), {})
    output = capsys.readouterr().out
    assert "('blue', 'green', 'red') 12 6" in output
    assert "split folders {'train': {'blue': 4, 'green': 4, 'red': 4}" in output
    assert "red .txt 1" in output


def test_its_numbers_and_names_are_those_of_the_code() -> None:
    assert round(MAX_PIXELS / 1e6) == 179 and "179 million" in PAGE
    shares = (round(100 * (1 - TEST_SHARE - VALIDATION_SHARE)), round(100 * TEST_SHARE))
    assert f"{shares[0]}, {shares[1]} and {shares[1]} %" in PAGE
    for name in ("._x.jpg", "Thumbs.db", "desktop.ini", "@eaDir", "__MACOSX"):
        assert f"`{name}`" in PAGE and junk_name(name) is not None
    assert all(f"`{name}`" in PAGE for name in ("val", "valid")) and "valid" in SPLIT_VALUES
