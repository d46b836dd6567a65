"""docs/augmentation.md: its example runs, and the recipe has its keys."""

import re
import tomllib
from pathlib import Path

import pytest
from PIL import Image

from reslearn.recipes import Augmentation

PAGE = (Path(__file__).parents[2] / "docs/augmentation.md").read_text(encoding="utf-8")


def test_the_example_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    examples = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)
    assert len(examples) == 1
    exec(compile(examples[0], "augmentation.md", "exec"), {})
    assert capsys.readouterr().out == "(8, 3, 64, 64) (8, 2)\n"
    with Image.open("augmented.png") as sheet:
        assert sheet.size == (8 * 64, 64)


def test_the_table_names_every_key() -> None:
    (table,) = re.findall(r"```toml\n(.*?)```", PAGE, flags=re.DOTALL)
    values = tomllib.loads(table)["augment"]
    assert set(values) == set(Augmentation.model_fields)
    values["crop_area"] = tuple(values["crop_area"])
    Augmentation.model_validate(values, strict=True)
