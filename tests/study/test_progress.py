"""The progress of a run is read from its newest metrics."""

import pytest

from reslearn import recipes
from reslearn.study.progress import fraction_done


@pytest.mark.parametrize(
    ("duration", "fraction"), [("10 epochs", 0.25), ("200 steps", 0.5), ("50 steps", 1.0)]
)
def test_the_fraction_counts_in_the_unit_of_the_recipe(duration: str, fraction: float) -> None:
    recipe = recipes.load(
        "digits", overrides=[f"schedule.duration={duration}", "schedule.milestones=[]"]
    )
    assert fraction_done(recipe, {"step": 100, "epoch": 2.5}) == fraction
    assert fraction_done(recipe, None) == 0
