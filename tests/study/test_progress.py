"""Reading how far runs are, from files that are being written."""

from pathlib import Path

import pytest

from reslearn import recipes
from reslearn.study.progress import fraction_done, last_record


def test_the_last_whole_training_line_counts(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    assert last_record(path) == {}
    lines = ['{"kind": "train", "step": 1}'] * 1000 + ['{"kind": "train", "step": 2}', '{"kind": "validation", "step": 2}', '{"kind": "tr']
    path.write_text("\n".join(lines))
    assert last_record(path)["step"] == 2
    path.write_text('{"kind": "train", "st')
    assert last_record(path) == {}


@pytest.mark.parametrize(("duration", "fraction"), [("10 epochs", 0.25), ("200 steps", 0.5), ("50 steps", 1.0)])
def test_a_fraction_in_the_unit_of_the_recipe(duration: str, fraction: float) -> None:
    recipe = recipes.load("digits", overrides=[f"schedule.duration={duration}", "schedule.milestones=[]"])
    assert fraction_done(recipe, {"step": 100, "epoch": 2.5}) == fraction
    assert fraction_done(recipe, {}) == 0
