"""`--dry-run` estimates what a training would need, and writes nothing."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from reslearn import models
from reslearn.recipes import Recipe
from reslearn.runs import RunError, RunFolder
from reslearn.train import Machine, dry_run, plan, train_recipe
from reslearn.train.setup import set_up

Small = Callable[..., Recipe]


def test_plan_of_a_new_run(small: Small, tmp_path: Path) -> None:
    planned = plan(small(), tmp_path / "run", Machine(threads=1))
    counted = models.complexity(models.build("resnet8", num_classes=10, in_channels=1), (1, 8, 8))
    assert (planned.parameters, planned.macs) == (counted.parameters, counted.macs)
    assert (planned.begins_at_step, planned.steps, planned.epochs) == (0, 11, 220 / 150)
    assert planned.minutes is not None
    assert 0 < planned.minutes < 5
    assert planned.memory_mib == pytest.approx(
        planned.weights_mib + planned.activations_mib + planned.images_mib
    )
    assert planned.weights_mib == pytest.approx(3 * 4 * counted.parameters / 2**20)
    assert list(tmp_path.iterdir()) == []
    averaged = plan(
        small("train.ema=0.9", "train.accumulate=4"), tmp_path / "run", Machine(threads=1)
    )
    assert averaged.weights_mib == pytest.approx(planned.weights_mib * 4 / 3)
    assert averaged.activations_mib == pytest.approx(planned.activations_mib / 4)


def test_plan_of_an_existing_run(small: Small, tmp_path: Path) -> None:
    train_recipe(small(), tmp_path, Machine(threads=1))
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    with pytest.raises(RunError, match="add --resume"):
        plan(small(), tmp_path)
    with pytest.raises(RunError, match="another recipe"):
        plan(small("seed=1"), tmp_path, resume=True)
    assert (
        plan(small(), tmp_path, resume=True).begins_at_step,
        plan(small(), tmp_path, resume=True).minutes,
    ) == (11, 0)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before
    RunFolder(tmp_path).checkpoints()[-1].unlink()
    (tmp_path / "result.json").unlink()
    assert plan(small(), tmp_path, resume=True).begins_at_step == 10


def test_step_that_needs_too_much_memory_is_not_timed(
    small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dry_run, "_free_bytes", lambda device: 1e6)
    monkeypatch.setattr(dry_run, "_time_step", lambda setup: pytest.fail("a step was timed"))
    assert plan(small(), tmp_path).minutes is None


def test_memory_with_checkpointed_activations_is_near_the_measured_peak(
    small: Small, tmp_path: Path
) -> None:
    """Measured: resnet1202 at batch 128 peaks at 6,437 MiB, of them 492 before the first step."""
    recipe = small(
        "model.name=resnet1202",
        "model.checkpoint_activations=true",
        "train.batch_size=128",
        "train.precision=fp32",
    )
    setup = set_up(recipe, Machine(device="cpu", threads=1))
    # The measurement used 32 x 32 pixels; digits have 8 x 8.
    activations = 16 * dry_run._activations_bytes(setup) * dry_run._bytes_held_per_byte_kept(setup)
    assert (dry_run._weights_bytes(setup) + activations) / 2**20 == pytest.approx(
        6437 - 492, rel=0.1
    )


def test_long_step_is_timed_once(small: Small, monkeypatch: pytest.MonkeyPatch) -> None:
    setup = set_up(small(), Machine(device="cpu", threads=1))
    ticks = iter(range(0, 1000, 20))
    monkeypatch.setattr("time.perf_counter", lambda: float(next(ticks)))
    assert (dry_run._step_seconds(setup, setup.initial_state()), next(ticks)) == (20.0, 40)


def test_a_step_that_would_take_long_is_estimated_from_smaller_ones(
    small: Small, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A step takes 1 s and 2 s per image, so 8 images take 17 s: too long for the whole batch."""
    setup = set_up(small("train.batch_size=128"), Machine(device="cpu", threads=1))
    timed = []

    def seconds_of(step: object, x: Tensor, y: Tensor) -> float:
        timed.append(len(x))
        return 1 + 2 * len(x)

    monkeypatch.setattr(dry_run, "_seconds_of", seconds_of)
    monkeypatch.setattr(dry_run, "_FIRST_PART_OPERATIONS", 0)
    monkeypatch.setattr(dry_run, "_PART_SECONDS", 8.0)
    assert dry_run._time_step(setup) == (257.0, 8)
    assert timed == [2, 2, 8]


def test_a_quick_step_is_timed_with_the_whole_batch(small: Small) -> None:
    setup = set_up(small(), Machine(device="cpu", threads=1))
    assert dry_run._time_step(setup).num_images == setup.recipe.train.batch_size


def test_the_steps_are_announced(
    small: Small,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("RESLEARN_PROGRESS", "on")
    estimate = plan(small(), tmp_path)
    errors = capsys.readouterr().err
    assert errors.startswith(
        "setting up resnet8 on digits\ntiming a step of 20 images; a batch has 20"
    )
    assert "\ntiming 4 steps of 20 images\n" in errors
    assert estimate.timed_images == estimate.batch_size == 20


@pytest.mark.parametrize("name", ["plain20", "resnet20", "resnet56"])
@pytest.mark.parametrize("recomputed", [False, True])
def test_activations_are_estimated_within_20_percent(
    name: str, recomputed: bool, small: Small
) -> None:
    """Compare with what autograd keeps in the forward pass."""
    recipe = small(
        f"model.name={name}", f"model.checkpoint_activations={recomputed}", "train.batch_size=16"
    )
    setup = set_up(recipe, Machine(device="cpu", threads=1))
    parameters = {tensor.untyped_storage().data_ptr() for tensor in setup.model.parameters()}
    saved: dict[int, torch.UntypedStorage] = {}

    def save(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in parameters:
            saved[storage.data_ptr()] = storage
        return tensor

    x, y = next(setup.train_batches(start_step=0))
    with torch.autograd.graph.saved_tensors_hooks(save, lambda tensor: tensor):
        setup.loss()(setup.model.train()(x), y)
    measured = sum(storage.nbytes() for storage in saved.values())
    estimated = dry_run._activations_bytes(setup)
    if recomputed:
        assert (
            measured * 0.8 < estimated < measured * 2.5
        )  # and one block in full, which forward alone does not show
    else:
        assert estimated == pytest.approx(measured, rel=0.2)
