"""Runs of a few seconds: small networks on a few digits, a reading every third step.

A checkpoint is written at every reading.
"""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from reslearn import recipes
from reslearn.runs import RunFolder

# Other processes import torchrun_processes.py and killing.py by name.
sys.path.insert(0, str(Path(__file__).parent))

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
    """Return a function from overrides to the small recipe: `small("optimizer.lr=1e9")`."""
    return lambda *overrides: recipes.load("digits", overrides=[*SMALL, *overrides])


@pytest.fixture(scope="session")
def small_flags() -> list[str]:
    """Return the arguments of `reslearn train` for the small recipe."""
    return ["digits", *(part for override in SMALL for part in ("--set", override))]


@pytest.fixture(scope="session")
def outcome() -> Callable[[Path], dict[str, Any]]:
    """Return a function from a run folder to everything that the run computed.

    The values can be compared: weights as bytes, lines and results without times.
    """

    def read(path: Path) -> dict[str, Any]:
        folder = RunFolder.open(path)
        last = torch.load(folder.checkpoints()[-1], map_location="cpu", weights_only=True)
        times = {"seconds", "metrics_bytes", "metrics_sha256", "run"}
        return {
            "lines": [
                {key: value for key, value in line.items() if key != "seconds"}
                for line in folder.metrics()
            ],
            "result": {
                key: value
                for key, value in folder.result.items()
                if key not in ("seconds", "resumed_at", "sha256", "checksum")
            },
            "last": plain({key: value for key, value in last.items() if key not in times}),
            "recipe": json.dumps(folder.recipe),
        }

    return read


def plain(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return str(value.dtype), tuple(value.shape), value.contiguous().numpy().tobytes()
    if isinstance(value, dict):
        return {key: plain(inner) for key, inner in value.items()}
    return [plain(inner) for inner in value] if isinstance(value, (list, tuple)) else value
