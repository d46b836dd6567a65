"""Twenty steps of two recipes give recorded losses, within one part in ten thousand.

The tolerance is for kernels, which differ between machines. A change that moves the losses changes
what every recipe trains. If that is intended, write the files again and say so in the commit:
RESLEARN_WRITE_GOLDEN=1 python -m pytest tests/golden
"""

import os
from pathlib import Path

import pytest

from reslearn import recipes
from reslearn.runs import RunFolder
from reslearn.train import Machine, train_recipe

OVERRIDES = (
    "schedule.duration=20 steps",
    'schedule.milestones=["12 steps"]',
    "train.read_every_steps=1",
    "train.precision=fp32",
    "train.compile=off",
    "evaluation.recompute_images=0",
    "data.train_images=500",
)
GOLDEN = {
    "plain8": ("model.name=plain8",),
    "resnet8": (
        "model.name=resnet8",
        "optimizer.lr=0.05",
        "optimizer.nesterov=true",
        "optimizer.decay=weights",
        "data.mean=per-channel",
    ),
}


@pytest.mark.parametrize("name", GOLDEN)
def test_losses_of_twenty_steps_are_the_recorded_ones(name: str, tmp_path: Path) -> None:
    train_recipe(
        recipes.load("digits", overrides=[*OVERRIDES, *GOLDEN[name]]),
        tmp_path / "run",
        Machine(device="cpu", threads=1),
    )
    losses = [line["loss"] for line in RunFolder.open(tmp_path / "run").metrics("train")]
    file = Path(__file__).with_name(f"digits-{name}.txt")
    if os.environ.get("RESLEARN_WRITE_GOLDEN"):
        file.write_text("".join(f"{loss:.8f}\n" for loss in losses), encoding="utf-8")
    golden = [float(line) for line in file.read_text(encoding="utf-8").splitlines()]
    assert len(golden) == len(losses) >= 19  # the last reading covers two steps
    assert losses == pytest.approx(golden, rel=1e-4)
