"""Training on a CUDA device equals training on the CPU, and resumes bit for bit.

The host does not wait for the device between readings. Run with `pytest -m gpu`.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from killing import Killed, until_killed

from reslearn import data, recipes
from reslearn.recipes import Recipe
from reslearn.runs import RunFolder
from reslearn.train import Machine, Reading, evaluate_bundle, loop, numerics, run, train_recipe
from reslearn.train.loop import Batch, Log, LoopSetup
from reslearn.train.step import State

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device"),
]

Small = Callable[..., Recipe]
Outcome = Callable[[Path], dict[str, Any]]
VARIANTS = {
    "augmented": (
        "augment.crop_area=[0.25, 1.0]",
        "augment.policy=trivial",
        "augment.erase=0.5",
        "augment.mixup=0.2",
        "augment.cutmix=1.0",
    ),
    "fp32": (),
    "bf16": ("train.precision=bf16", "schedule.kind=cosine", "schedule.rise=0.3"),
    "parts": ("train.accumulate=2", "train.ema=0.9", "evaluation.batch_norm=exact"),
    "warm-up": (
        "schedule.warm_up_lr=0.01",
        "schedule.warm_up_error_pct=85",
        "data.validation_images=100",
        "train.precision=bf16",
    ),
    "muon": (
        "optimizer.name=muon",
        "optimizer.filter_lr=0.03",
        "optimizer.nesterov=true",
        "optimizer.decay=weights",
    ),
}


def readings(folder: Path, kind: str = "train") -> list[dict[str, Any]]:
    return [
        {key: value for key, value in line.items() if key != "seconds"}
        for line in RunFolder.open(folder).metrics(kind)
    ]


def test_batches_equal_batches_on_the_cpu_bit_for_bit() -> None:
    images = data.load("digits").train
    assert isinstance(images, data.Images)
    preprocess = data.Preprocess.fit(images)
    on_cpu, on_gpu = (
        data.train_batches(images, preprocess, batch_size=100, seed=3, device=device)
        for device in ("cpu", "cuda")
    )
    for _ in range(20):  # more than one epoch
        for expected, value in zip(next(on_cpu), next(on_gpu), strict=True):
            assert torch.equal(value.cpu(), expected)


@pytest.mark.parametrize("variant", ["fp32", "parts", "warm-up", "muon"])
def test_losses_are_near_losses_on_the_cpu(variant: str, small: Small, tmp_path: Path) -> None:
    recipe = small(
        *VARIANTS[variant],
        "train.precision=fp32",
        "schedule.duration=30 steps",
        "train.read_every_steps=1",
    )
    for device in ("cpu", "cuda"):
        train_recipe(recipe, tmp_path / device, Machine(device=device, threads=1))
    losses = [[line["loss"] for line in readings(tmp_path / device)] for device in ("cpu", "cuda")]
    # Sums in another order differ by 1e-7 of their size. Training makes two networks diverge
    # slowly.
    assert losses[0][:5] == pytest.approx(losses[1][:5], rel=1e-4)
    assert losses[0] == pytest.approx(losses[1], rel=5e-2)


@pytest.mark.parametrize("variant", VARIANTS)
def test_replayed_steps_equal_steps_without_a_graph(
    variant: str, small: Small, outcome: Outcome, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = small(*VARIANTS[variant])
    train_recipe(recipe, tmp_path / "replayed", Machine(device="cuda", threads=1))
    assert RunFolder.open(tmp_path / "replayed").environment["numerics"]["replayed"]
    choose = numerics.choose
    monkeypatch.setattr(
        numerics,
        "choose",
        lambda *args, **kwargs: replace(choose(*args, **kwargs), replayed=False),
    )
    train_recipe(recipe, tmp_path / "without-graph", Machine(device="cuda", threads=1))
    assert outcome(tmp_path / "replayed") == outcome(tmp_path / "without-graph")


@pytest.mark.parametrize("variant", VARIANTS)
def test_run_resumes_bit_for_bit(
    variant: str, small: Small, outcome: Outcome, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = small(*VARIANTS[variant])
    for name in ("unbroken", "again"):
        train_recipe(recipe, tmp_path / name, Machine(device="cuda", threads=1))
    assert outcome(tmp_path / "again") == outcome(tmp_path / "unbroken")
    with monkeypatch.context() as patch:
        patch.setattr(run, "train", until_killed(6))
        with pytest.raises(Killed):
            train_recipe(recipe, tmp_path / "broken", Machine(device="cuda", threads=1))
    train_recipe(recipe, tmp_path / "broken", Machine(device="cuda", threads=1), resume=True)
    assert RunFolder.open(tmp_path / "broken").result["resumed_at"]
    assert outcome(tmp_path / "broken") == outcome(tmp_path / "unbroken")


def test_host_waits_only_for_readings(
    small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reading waits for an event, on a copy of the step before. Any other wait is an error."""
    had_reading = []

    def watched(setup: LoopSetup, state: State, log: Log) -> None:
        def batches() -> Iterator[Batch]:
            # The first step records the graph and fills the epoch's table of views.
            yield next(setup.batches)
            while True:
                torch.cuda.set_sync_debug_mode("error")
                yield next(setup.batches)

        add = state.meter.add

        def add_and_allow_waiting(*arguments: Any, **options: Any) -> Reading | None:
            reading = add(*arguments, **options)
            if torch.cuda.get_sync_debug_mode():
                had_reading.append(reading is not None)
            torch.cuda.set_sync_debug_mode("default")
            return reading

        monkeypatch.setattr(state.meter, "add", add_and_allow_waiting)
        loop.train(replace(setup, batches=batches()), state, log)

    monkeypatch.setattr(run, "train", watched)
    recipe = small(
        "schedule.duration=24 steps",
        "train.checkpoint_every_seconds=3600",
        "evaluation.every=100 steps",
        "train.precision=bf16",
    )
    train_recipe(
        recipe, tmp_path / "run", Machine(device="cuda", threads=1)
    )  # 150 images, 20 a step: four epochs
    assert len(had_reading) == 23 and sum(had_reading) == 8


def test_evaluation_is_near_evaluation_on_the_cpu(small: Small, tmp_path: Path) -> None:
    train_recipe(small(), tmp_path / "run", Machine(device="cuda", threads=1))
    (on_gpu,) = readings(tmp_path / "run", "test")
    on_cpu = evaluate_bundle(tmp_path / "run", machine=Machine(device="cpu"))
    assert on_gpu["loss"] == pytest.approx(on_cpu.loss, rel=1e-4)
    assert on_gpu["top1_error_pct"] == pytest.approx(
        on_cpu.top1_error_pct, abs=0.6
    )  # one or two of 360 images


def test_image_files_can_be_read_while_a_step_is_recorded(
    make_pictures: Callable[..., Path], tmp_path: Path
) -> None:
    """Workers read the files and a thread pins memory. Neither disturbs the recording."""
    folder = make_pictures(tmp_path / "pictures", train=8, validation=3, test=4)
    overrides = (
        "model.name=resnet8",
        "data.size_px=16",
        "schedule.duration=9 steps",
        "train.batch_size=6",
        "evaluation.every=3 steps",
    )
    recipe = recipes.load(
        "imagenet",
        overrides=[
            *overrides,
            f'data.name="{folder}"',
            "data.validation_images=0",
            "train.compile=off",
        ],
    )
    train_recipe(recipe, tmp_path / "run", Machine(device="cuda", threads=1, workers=2))
    assert RunFolder.open(tmp_path / "run").environment["numerics"]["replayed"]
