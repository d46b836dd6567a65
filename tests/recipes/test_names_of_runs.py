"""A run keeps its name, the hash of its recipe, when the schema grows: committed results must still be found."""

import importlib
import json
from pathlib import Path

import pytest

from reslearn import recipes
from reslearn.recipes.load import difference, recipe_hash

RESULTS = Path(__file__).parents[2] / "results"
NAMED = [path for path in sorted(RESULTS.rglob("recipe.json")) if path.parent.parent.name == "runs"]


@pytest.mark.parametrize("path", NAMED, ids=lambda path: path.parent.name)
def test_a_committed_run_has_the_hash_of_its_recipe_as_of_today(path: Path) -> None:
    kept = json.loads(path.read_text(encoding="utf-8"))
    assert path.parent.name.endswith(recipe_hash(kept))
    today = recipes.from_dict(kept, source=str(path)).to_dict()
    assert recipe_hash(today) == recipe_hash(kept)
    assert difference(kept, today) == []


def test_a_key_that_came_later_counts_only_where_it_says_something_new(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(
        importlib.import_module("reslearn.recipes.load"), "_ADDED_LATER", {"train.new": False}
    )
    old, same, other = (
        {"train": {"lr": 1}},
        {"train": {"lr": 1, "new": False}},
        {"train": {"lr": 1, "new": True}},
    )
    assert recipe_hash(old) == recipe_hash(same) != recipe_hash(other)
    assert difference(old, same) == []
    assert difference(old, other) == ["train.new: false -> true"]
