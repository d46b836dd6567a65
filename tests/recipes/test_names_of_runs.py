"""Hashes of committed recipes do not change when the schema gets new keys."""

import importlib
import json
from pathlib import Path

import pytest

from reslearn import recipes
from reslearn.recipes.load import difference, recipe_hash

RESULTS = Path(__file__).parents[2] / "results"
NAMED = [path for path in sorted(RESULTS.rglob("recipe.json")) if path.parent.parent.name == "runs"]


@pytest.mark.parametrize("path", NAMED, ids=lambda path: path.parent.name)
def test_a_committed_run_has_the_hash_of_its_recipe(path: Path) -> None:
    committed = json.loads(path.read_text(encoding="utf-8"))
    assert path.parent.name.endswith(recipe_hash(committed))
    resolved = recipes.from_dict(committed, source=str(path)).to_dict()
    assert recipe_hash(resolved) == recipe_hash(committed)
    assert difference(committed, resolved) == []


def test_a_key_that_was_added_later_is_hashed_only_with_a_new_value(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(
        importlib.import_module("reslearn.recipes.load"), "_ADDED_LATER", {"train.new": False}
    )
    old, same, changed = (
        {"train": {"lr": 1}},
        {"train": {"lr": 1, "new": False}},
        {"train": {"lr": 1, "new": True}},
    )
    assert recipe_hash(old) == recipe_hash(same) != recipe_hash(changed)
    assert difference(old, same) == []
    assert difference(old, changed) == ["train.new: false -> true"]
