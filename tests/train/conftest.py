"""Runs of seconds: resnet8 and plain8 on a few digits, a reading every third step, a checkpoint at every reading."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from reslearn import recipes
from reslearn.runs import RunFolder

sys.path.insert(
    0, str(Path(__file__).parent)
)  # for one_of_many.py, which other processes import too

SMALL = (
    "model.name=resnet8",
    "schedule.kind=constant",
    "schedule.duration=11 steps",
    "optimizer.lr=0.05",
    "data.train_images=150",
    "train.batch_size=20",
    "train.read_every_steps=3",
    "train.checkpoint_every_seconds=0",
    "evaluation.recompute_images=60",
    "evaluation.every=4 steps",
)


@pytest.fixture(scope="session")
def small() -> Callable[..., recipes.Recipe]:
    """`small("optimizer.lr=1e9")`: the small recipe with overrides."""
    return lambda *overrides: recipes.load("digits", overrides=[*SMALL, *overrides])


@pytest.fixture(scope="session")
def small_flags() -> list[str]:
    """The same on the command line."""
    return ["digits", *(part for override in SMALL for part in ("--set", override))]


@pytest.fixture(scope="session")
def outcome() -> Callable[[Path], dict[str, Any]]:
    """All that a run computed, as comparable values: weights by their bytes, lines and results without seconds."""

    def read(path: Path) -> dict[str, Any]:
        folder = RunFolder.open(path)
        last = torch.load(folder.checkpoints()[-1], map_location="cpu", weights_only=True)
        without = {"seconds", "metrics_bytes"}
        return {
            "lines": [
                {key: value for key, value in line.items() if key != "seconds"}
                for line in folder.metrics()
            ],
            "result": {
                key: value
                for key, value in folder.result.items()
                if key not in ("seconds", "resumed_at", "checksum")
            },
            "last": plain({key: value for key, value in last.items() if key not in without}),
            "recipe": json.dumps(folder.recipe),
        }

    return read


def plain(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return str(value.dtype), tuple(value.shape), value.contiguous().numpy().tobytes()
    if isinstance(value, dict):
        return {key: plain(inner) for key, inner in value.items()}
    return [plain(inner) for inner in value] if isinstance(value, (list, tuple)) else value
