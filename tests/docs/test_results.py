"""README's table is what the committed runs say, and it changes with them."""

import importlib.util
import json
import shutil
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def _tables():  # type: ignore[no-untyped-def]
    spec = importlib.util.spec_from_file_location("results_tables", ROOT / "results" / "tables.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_readme_agrees_with_the_runs() -> None:
    tables, text = _tables(), (ROOT / "README.md").read_text(encoding="utf-8")
    assert tables.readme(text, tables.results_table()) == text, "python results/tables.py brings it up to date"


def test_a_number_that_was_edited_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copy = tmp_path / "results"
    shutil.copytree(ROOT / "results" / "cifar-fast" / "seed0", copy / "cifar-fast" / "seed0")
    tables = _tables()
    monkeypatch.setattr(tables, "RESULTS", copy)
    before = tables.results_table(copy)
    path = copy / "cifar-fast" / "seed0" / "result.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "test_top1_error_pct": 1.23}))
    assert "1.23" in tables.results_table(copy) and "1.23" not in before


def test_no_weights_are_committed() -> None:
    assert not [path for pattern in ("*.pt", "*.safetensors") for path in (ROOT / "results").rglob(pattern)]
