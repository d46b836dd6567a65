"""One network on many processes makes the steps of one process with as many parts of a batch.

The processes are real and communicate by gloo. Equal bits: weights, momentum, averages of weights,
readings, decisions. Equal up to rounding: evaluations, since shares of the images form other
batches. Different: the running statistics of batch norm, which process 0 computes over its share.
"""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchrun_processes
from torch import nn
from torchrun_processes import on_processes

from reslearn import data
from reslearn.recipes import Recipe, RecipeError
from reslearn.runs import RunError, RunFolder
from reslearn.train import Machine, train_recipe

Small = Callable[..., Recipe]
Outcome = Callable[[Path], dict[str, Any]]
EVERYTHING = (
    "schedule.warm_up_lr=0.01",
    "schedule.warm_up_error_pct=85",
    "data.validation_images=101",
    "train.ema=0.9",
    "train.label_smoothing=0.1",
    "evaluation.batch_norm=exact",
    "train.batch_size=24",
)


def values(outcomes: list[tuple[str, Any]]) -> list[Any]:
    assert [kind for kind, _ in outcomes] == ["value"] * len(outcomes), outcomes
    return [value for _, value in outcomes]


def last(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = torch.load(
        RunFolder.open(folder).checkpoints()[-1], weights_only=True
    )
    return content


def assert_same_bits(ours: dict[str, Any], theirs: dict[str, Any]) -> None:
    assert ours.keys() == theirs.keys()
    assert [name for name in ours if not torch.equal(ours[name], theirs[name])] == []


# With three processes the order of sums matters, which includes all that two processes do.
@pytest.mark.parametrize("count", [pytest.param(2, marks=pytest.mark.slow), 3])
def test_processes_make_the_steps_of_one_process_with_as_many_parts(
    count: int, small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        torchrun_processes.calibration, "LIKELIHOOD_RATIO", torchrun_processes.EVERY_TEMPERATURE
    )
    everything = (*EVERYTHING, "evaluation.batch_norm=moving")
    results = values(
        on_processes(count, torchrun_processes.train, small(*everything), tmp_path / "many")
    )
    alone = train_recipe(
        small(*everything, f"train.accumulate={count}"), tmp_path / "one", Machine(threads=1)
    )
    assert results == [results[0]] * count
    many, one = last(tmp_path / "many"), last(tmp_path / "one")
    assert_same_bits(many["model"], one["model"])  # running statistics too
    assert_same_bits(many["average"]["network"], one["average"]["network"])
    momenta = [
        [state["momentum_buffer"] for state in each["optimizer"]["state"].values()]
        for each in (many, one)
    ]
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(*momenta, strict=True))
    lines = [
        [{**line, "seconds": 0} for line in RunFolder.open(tmp_path / name).metrics("train")]
        for name in ("many", "one")
    ]
    assert lines[0] == lines[1]
    assert results[0]["warmed_up_at_step"] == alone["warmed_up_at_step"] is not None
    for field in ("test_top1_error_pct", "train_top1_error_pct", "validation_top1_error_pct"):
        assert results[0][field] == alone[field]
        loss = field.replace("top1_error_pct", "loss")
        assert loss not in alone or results[0][loss] == pytest.approx(alone[loss], rel=1e-6)
    assert results[0]["temperature"] == pytest.approx(alone["temperature"], rel=2e-4)
    assert RunFolder.open(tmp_path / "many").environment["numerics"]["processes"] == count


@pytest.fixture(scope="module")
def killed(small: Small, tmp_path_factory: pytest.TempPathFactory) -> tuple[Recipe, Path]:
    """Return a recipe and a run of it whose three processes were killed after 6 of 11 steps."""
    recipe = small(*EVERYTHING, "train.accumulate=2", "evaluation.batch_norm=moving")
    folder = tmp_path_factory.mktemp("processes") / "killed"
    outcomes = on_processes(3, torchrun_processes.train, recipe, folder, killed_after=6)
    assert [kind for kind, _ in outcomes] == ["Killed"] * 3
    return recipe, folder


def test_killed_processes_resume_bit_for_bit(
    killed: tuple[Recipe, Path], outcome: Outcome, tmp_path: Path
) -> None:
    """With three processes the order of sums matters. Batch-norm statistics are included."""
    recipe, out = killed[0], shutil.copytree(killed[1], tmp_path / "killed")
    values(on_processes(3, torchrun_processes.train, recipe, tmp_path / "unbroken"))
    results = values(on_processes(3, torchrun_processes.train, recipe, out, resume=True))
    assert results[0]["resumed_at"] == [4]
    assert outcome(out) == outcome(tmp_path / "unbroken")
    # The complete run is returned unchanged.
    again = on_processes(3, torchrun_processes.train, recipe, out, resume=True)
    assert values(again) == results


def test_run_resumes_only_with_its_number_of_processes(killed: tuple[Recipe, Path]) -> None:
    recipe, folder = killed
    message = (
        "the run began on 3 processes, but this is 1 process: "
        "continue with: torchrun --nproc-per-node 3 -m reslearn train --resume"
    )
    with pytest.raises(RunError, match=message):
        train_recipe(recipe, folder, Machine(threads=1), resume=True)


def test_each_image_is_evaluated_once(small: Small) -> None:
    """An odd number of images is neither padded nor cut."""
    recipe = small("data.validation_images=101")
    ours, theirs = values(on_processes(2, torchrun_processes.evaluate, recipe))
    alone = torchrun_processes.evaluate(recipe)
    assert ours == theirs
    assert {name: metrics.num_images for name, metrics in ours.items()} == {
        "train": 150,
        "validation": 101,
        "test": 360,
    }
    for name, metrics in ours.items():
        assert (metrics.top1_error_pct, metrics.top5_error_pct) == (
            alone[name].top1_error_pct,
            alone[name].top5_error_pct,
        )
        assert metrics.loss == pytest.approx(alone[name].loss, rel=1e-7)


def test_synchronized_batch_norm_equals_batch_norm_of_all_images() -> None:
    cases = []
    for norm in (nn.BatchNorm2d(5).double(), nn.BatchNorm1d(3).double()):
        nn.init.normal_(norm.weight), nn.init.normal_(norm.bias)
        shape = (6, 5, 3, 4) if isinstance(norm, nn.BatchNorm2d) else (8, 3)
        x = 3 + 2 * torch.randn(shape, dtype=torch.float64)
        cases.append((x, torch.randn(shape, dtype=torch.float64), norm))
    shares = values(on_processes(2, torchrun_processes.normalize, cases))
    for (x, targets, norm), ours, theirs in zip(cases, *shares, strict=True):
        full_batch = x.clone().requires_grad_()
        y = norm(full_batch)
        (y * targets).sum().backward()
        assert full_batch.grad is not None
        assert norm.weight.grad is not None and norm.bias.grad is not None
        expected = {"y": y.detach(), "x": full_batch.grad}
        for name, value in expected.items():
            np.testing.assert_allclose(
                np.concatenate([ours[name], theirs[name]]), value.numpy(), rtol=1e-12, atol=1e-13
            )
        of_both = {
            "weight": norm.weight.grad,
            "bias": norm.bias.grad,
            **dict(norm.named_buffers()),
        }
        for name, value in of_both.items():
            np.testing.assert_array_equal(ours[name], theirs[name])
            if name != "num_batches_tracked":
                np.testing.assert_allclose(ours[name], value.numpy(), rtol=1e-12, atol=1e-13)


def test_processes_with_synchronized_batch_norm_train_like_one_process(
    small: Small, tmp_path: Path
) -> None:
    recipe = small(
        "train.sync_batch_norm=true", "schedule.duration=6 steps", "evaluation.recompute_images=0"
    )
    values(on_processes(2, torchrun_processes.train, recipe, tmp_path / "two"))
    with pytest.warns(
        UserWarning, match="train.sync_batch_norm has no effect, since there is only one process"
    ):
        train_recipe(recipe, tmp_path / "one", Machine(threads=1))
    two, one = last(tmp_path / "two")["model"], last(tmp_path / "one")["model"]
    # Running statistics too. Over six steps, float32 sums in another order differ a little.
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, rtol=1e-4, atol=1e-5)


def test_only_one_process_reports_an_error(small: Small, tmp_path: Path) -> None:
    first, *others = on_processes(
        3, torchrun_processes.train, small("train.accumulate=2"), tmp_path / "run"
    )
    assert first == (
        "ValueError",
        "train.batch_size = 20 cannot be shared equally by 3 processes, each in accumulate = 2 "
        "parts: set a multiple of 6",
    )
    assert others == [("SystemExit", "2")] * 2
    assert not (tmp_path / "run").exists()
    first, *others = on_processes(
        2,
        torchrun_processes.train,
        small("optimizer.lr=1e9", "train.checkpoint_every_seconds=60"),
        tmp_path / "run",
    )
    assert first[0] == "NonFiniteLossError" and "there is no checkpoint yet" in first[1]
    assert others == [("SystemExit", "2")]
    assert RunFolder(tmp_path / "run").divergence == first[1]


def test_shares_together_are_the_batch() -> None:
    digits = data.load("digits").train
    preprocess = data.Preprocess.fit(digits)
    options: dict[str, Any] = {
        "batch_size": 12,
        "seed": 3,
        "start_step": 119,
    }  # the epoch ends within the batch
    full_batch = next(data.train_batches(digits, preprocess, **options))
    parts = [
        next(data.train_batches(digits, preprocess, **options, share=(which, 3)))
        for which in range(3)
    ]
    for place in (0, 1):
        assert torch.equal(torch.cat([part[place] for part in parts]), full_batch[place])
    with pytest.raises(ValueError, match="batch_size = 12 cannot be divided into 5 equal parts"):
        data.train_batches(digits, preprocess, **options, share=(0, 5))


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["train.sync_batch_norm=true", "train.compile=on"],
            "sync_batch_norm = true cannot be compiled",
        ),
        (["train.sync_batch_norm=true", "model.checkpoint_activations=true"], "cannot be combined"),
    ],
)
def test_settings_that_exclude_each_other(overrides: list[str], message: str, small: Small) -> None:
    with pytest.raises(RecipeError, match=message):
        small(*overrides)
