"""A tiny run for all tests of analysis: plain8 on digits, 20 steps, snapshots at steps 0 and 10."""

from pathlib import Path

import pytest

from reslearn import recipes
from reslearn.runs import RunFolder
from reslearn.train import Machine, train_recipe


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    overrides = [
        "model.name=plain8",
        'schedule.duration="20 steps"',
        "schedule.kind=constant",
        "data.train_images=300",
        "seed=3",
    ]
    snapshots = 'evaluation.snapshots=["0 steps", "10 steps"]'
    folder: Path = tmp_path_factory.mktemp("runs") / "plain8"
    train_recipe(
        recipes.load("digits", overrides=[*overrides, snapshots]), folder, Machine(threads=1)
    )
    return RunFolder.open(folder)
