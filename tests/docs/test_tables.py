"""The tables of README.md and docs/weights.md are what runs and dialect files say, and change with them."""

import importlib.util
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from reslearn.interop import dialects

ROOT = Path(__file__).parents[2]


def _tables():  # type: ignore[no-untyped-def]
    spec = importlib.util.spec_from_file_location("results_tables", ROOT / "results" / "tables.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", ["README.md", "docs/weights.md"])
def test_a_page_agrees_with_what_it_is_made_from(name: str) -> None:
    made = _tables().page(ROOT / name)
    assert (ROOT / name).read_text(encoding="utf-8") == made, (
        "python results/tables.py brings it up to date"
    )


def test_marks_that_are_gone_are_an_error() -> None:
    with pytest.raises(ValueError, match="end of dialects --> must stand there once each"):
        _tables().between("<!-- dialects: made by results/tables.py -->", "dialects", "")


def test_a_dialect_that_is_added_is_a_row_of_both_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    tables = _tables()
    more = {**dialects(), "more": replace(dialects()["hf"], title="somebody's", example="resnet34")}
    monkeypatch.setattr(tables, "dialects", lambda: more)
    assert (
        "| `more` | somebody's | .safetensors, .pth | in, out | resnet34, option B |\n"
        in tables.dialects_table(sources=False)
    )
    assert (
        "| `more` | somebody's | .safetensors, .pth | in, out | resnet34, option B | transformers"
        in tables.dialects_table(sources=True)
    )


def test_a_number_that_was_edited_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copy = tmp_path / "results"
    shutil.copytree(ROOT / "results" / "cifar-fast" / "seed0", copy / "cifar-fast" / "seed0")
    tables = _tables()
    monkeypatch.setattr(tables, "RESULTS", copy)
    before = tables.results_table(copy)
    path = copy / "cifar-fast" / "seed0" / "result.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "test_top1_error_pct": 1.23}))
    assert tables.results_table(copy).count("\n") == before.count("\n") - 1, (
        "a run that was changed after its end is in no table"
    )
    assert "1.23" not in tables.results_table(copy)


def test_the_demo_of_the_readme_is_the_one_that_is_committed() -> None:
    claims = {
        one["claim"]: one
        for one in json.loads((ROOT / "results" / "demo" / "claims.json").read_text())["claims"]
    }
    rows = re.findall(
        r"^\| (C\d+) [^|]*\| ([^|]*) \| ([^|]*) \|$",
        (ROOT / "README.md").read_text(encoding="utf-8"),
        re.MULTILINE,
    )
    assert len(rows) >= 6
    for claim, measured, verdict in rows:
        assert verdict == claims[claim]["outcome"]
        assert (series := re.findall(r"\d+\.\d+", measured)) or claim in ("C4", "C9")
        assert [number for number in series if number not in claims[claim]["measured"]] == []


def test_no_weights_are_committed() -> None:
    assert not [
        path for pattern in ("*.pt", "*.safetensors") for path in (ROOT / "results").rglob(pattern)
    ]
