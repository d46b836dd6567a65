"""`train_recipe`: the files of a run, and one-line errors for runs that cannot continue."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch

from reslearn import data, recipes
from reslearn.cli import commands
from reslearn.evaluate import calibration, evaluate, predict
from reslearn.interop import read_bundle
from reslearn.recipes import Recipe
from reslearn.runs import RunError, RunFolder
from reslearn.train import Machine, NonFiniteLossError, train_recipe
from reslearn.train.setup import check_recipes, set_up

Small = Callable[..., Recipe]
DIVERGES_LATER = (
    "schedule.warm_up_lr=0.01",
    "schedule.warm_up_error_pct=100",
    "optimizer.lr=1e9",
    "train.read_every_steps=2",
)


@pytest.fixture
def finished(small: Small, tmp_path: Path) -> RunFolder:
    train_recipe(small(), tmp_path / "run", Machine(threads=1))
    return RunFolder.open(tmp_path / "run")


def refused(
    kind: type[Exception], small: Small, folder: Path, *overrides: str, **options: Any
) -> str:
    with pytest.raises(kind) as error:
        train_recipe(small(*overrides), folder, resume=True, **options)
    assert "\n" not in str(error.value)
    return str(error.value)


def unfinished(folder: RunFolder) -> Path:
    """Remove the result, as if the run had been killed, and return the newest checkpoint."""
    (folder.path / "result.json").unlink()
    return folder.checkpoints()[-1]


def test_files_of_a_run(finished: RunFolder, small: Small) -> None:
    assert sorted(path.name for path in finished.path.iterdir()) == [
        ".lock",
        "checkpoints",
        "environment.json",
        "metrics.jsonl",
        "model.safetensors",
        "recipe.json",
        "result.json",
    ]
    assert [path.name for path in finished.checkpoints()] == [
        "step-00000010.pt",
        "step-00000011.pt",
    ]
    lines = finished.metrics("train")
    assert [line["step"] for line in lines] == [3, 6, 9, 11]
    assert set(lines[0]) == {
        "kind",
        "step",
        "epoch",
        "images",
        "seconds",
        "loss",
        "top1_error_pct",
        "lr",
    }
    assert (lines[1]["epoch"], lines[1]["images"], lines[1]["lr"]) == (0.8, 120, 0.05)
    (line,) = finished.metrics("lr")
    assert line == {**line, "step": 1, "epoch": 0.1333, "images": 20, "lr": 0.05}
    assert set(line) == {"kind", "step", "epoch", "images", "seconds", "lr"}
    result = finished.result
    assert (result["steps"], result["images"], result["epochs"], result["test_touched"]) == (
        11,
        220,
        220 / 150,
        1,
    )
    assert (
        result["validation_top1_error_pct"],
        result["resumed_at"],
        result["warmed_up_at_step"],
        result["temperature"],
    ) == (None, [], None, None)
    assert set(finished.environment["numerics"]) == {
        "device",
        "precision",
        "compiled",
        "threads",
        "instruction_set",
        "processes",
        "replayed",
    }
    # The data determine the numbers of classes and channels.
    assert finished.recipe["model"] == {
        **small().to_dict()["model"],
        "num_classes": 10,
        "in_channels": 1,
    }


def test_bundle_gives_the_numbers_of_the_result(finished: RunFolder) -> None:
    bundle, dataset = read_bundle(finished.bundle_path), data.load("digits")
    metrics = evaluate(bundle.network, data.eval_batches(dataset.test, bundle.preprocess))
    assert (metrics.loss, metrics.top1_error_pct) == (
        finished.result["test_loss"],
        finished.result["test_top1_error_pct"],
    )
    seals = {key: finished.result[key] for key in ("sha256", "checksum")}
    assert {**bundle.metrics, **seals} == finished.result
    assert bundle.classes == dataset.classes


def test_evaluations_and_snapshots_during_training(small: Small, tmp_path: Path) -> None:
    overrides = [
        "data.validation_images=100",
        "evaluation.test_curve=true",
        'evaluation.snapshots=["0 steps", "5 steps", "11 steps"]',
    ]
    result = train_recipe(small(*overrides), tmp_path, Machine(threads=1))
    folder = RunFolder.open(tmp_path)
    for kind in ("validation", "test"):
        assert [line["step"] for line in folder.metrics(kind)] == [4, 8, 11]
    assert result["test_touched"] == 3
    assert result["validation_top1_error_pct"] == folder.metrics("validation")[-1]["top1_error_pct"]
    assert list(folder.snapshots()) == [0, 5, 11]
    _check_temperature(folder, result["temperature"])
    first, last = (read_bundle(folder.snapshot_path(step)).network.state_dict() for step in (0, 11))
    final = read_bundle(folder.bundle_path).network.state_dict()
    assert all(torch.equal(last[name], value) for name, value in final.items())
    assert not torch.equal(first["head.fc.weight"], final["head.fc.weight"])


def _check_temperature(folder: RunFolder, temperature: float) -> None:
    """The temperature has the lowest loss on validation images, and the bundle holds it."""
    bundle = read_bundle(folder.bundle_path)
    validation = data.split(data.load("digits"), 100).validation
    assert validation is not None
    predictions = predict(bundle.network, data.eval_batches(validation, bundle.preprocess))
    losses = [
        calibration(predictions.logits, predictions.labels, temperature=factor * temperature).loss
        for factor in (0.9, 1, 1.1)
    ]
    assert bundle.temperature == temperature != 1
    assert min(losses) == losses[1]


def test_run_of_another_recipe_is_refused_with_the_differences(
    finished: RunFolder, small: Small
) -> None:
    line = refused(RunError, small, finished.path, "optimizer.lr=0.2", "seed=3")
    assert "holds a run of another recipe (optimizer.lr: 0.05 -> 0.2; seed: 0 -> 3)" in line
    assert "--resume --out" in line
    with pytest.raises(RunError, match="holds this run already: add --resume"):
        train_recipe(small(), finished.path)


def test_other_folders_are_refused_before_data_are_loaded(small: Small, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").touch()
    assert "is not a run" in refused(RunError, small, tmp_path, "data.name=no-such-data")
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("model.name=resnet9", "resnet8"),
        ("data.name=digit", "digits"),
        ("data.validation_images=5000", "validation_images = 5000"),
        ("data.size_px=3", "size_px = 3"),
        ("model.num_classes=7", "model.num_classes = 7, but digits has 10"),
    ],
)
def test_wrong_values_are_found_before_a_file_is_written(
    override: str, message: str, small: Small, tmp_path: Path
) -> None:
    assert message in refused(ValueError, small, tmp_path / "run", override)
    assert not (tmp_path / "run").exists()


def test_nonfinite_loss_stops_with_step_checkpoint_and_hint(small: Small, tmp_path: Path) -> None:
    line = refused(
        NonFiniteLossError,
        small,
        tmp_path / "at-once",
        "optimizer.lr=1e9",
        "train.checkpoint_every_seconds=60",
    )
    assert line.startswith("stem.conv.weight holds NaN or infinity after step 4")
    assert (
        "; there is no checkpoint yet; a lower optimizer.lr or a warm-up (schedule.warm_up_lr) "
        "may help" in line
    )
    line = refused(
        NonFiniteLossError, small, tmp_path / "later", *DIVERGES_LATER, machine=Machine(threads=1)
    )
    good = RunFolder(tmp_path / "later").checkpoints()[-1]
    assert f"the last good checkpoint is {good};" in line
    weights = torch.load(good, weights_only=True)["model"].values()
    assert all(bool(value.isfinite().all()) for value in weights)


def test_nonfinite_loss_on_the_command_line_is_one_line_and_status_2(
    small_flags: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(
        sys,
        "argv",
        [
            "reslearn",
            "train",
            *small_flags,
            "--lr",
            "1e9",
            "--set",
            "optimizer.lr=1e9",
            "--out",
            str(tmp_path),
        ],
    )
    monkeypatch.setattr("warnings.showwarning", None)
    with pytest.raises(SystemExit) as stopped:
        commands.main()
    assert stopped.value.code == 2
    errors = capsys.readouterr().err
    reason = "stem.conv.weight holds NaN or infinity after step 4; there is no checkpoint yet; "
    assert errors.startswith(f"reslearn: {reason}")
    assert errors.count("\n") == 1


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Mount a file system that has room for two checkpoints but not for a third."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1500k", "tmpfs", disk],
        capture_output=True,
        check=False,
    ).returncode:
        pytest.skip("this user may not mount a small disk")
    yield disk
    subprocess.run(["umount", disk], check=True)


def test_full_disk_keeps_the_earlier_checkpoint(
    small: Small, outcome: Callable[[Path], Any], tmp_path: Path, small_disk: Path
) -> None:
    line = refused(OSError, small, small_disk / "run", machine=Machine(threads=1))
    folder = RunFolder(small_disk / "run")
    assert [path.stem for path in folder.checkpoints()] == ["step-00000004", "step-00000007"]
    assert "No space left on device while writing to" in line
    assert (
        f"the last good checkpoint is {folder.checkpoints()[-1]}; continue with: reslearn train "
        "--resume --out " in line
    )
    subprocess.run(["mount", "-o", "remount,size=20m", small_disk], check=True)
    train_recipe(small(), small_disk / "run", Machine(threads=1), resume=True)
    train_recipe(small(), tmp_path / "unbroken", Machine(threads=1))
    assert outcome(small_disk / "run") == outcome(tmp_path / "unbroken")


CHANGES: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "instruction set": (
        lambda record: record["numerics"].update(instruction_set="ABACUS"),
        "the run began on ABACUS",
    ),
    "torch": (
        lambda record: record["versions"].update(torch="1.0"),
        "the run began with torch 1.0",
    ),
    "device": (
        lambda record: record["numerics"].update(device="cuda:99"),
        "the run began on cuda:99, which this machine does not have",
    ),
    "images": (
        lambda record: record["data"].update(fingerprint="0"),
        "holds other images now than when the run began",
    ),
    "nothing": (lambda record: record.pop("numerics"), "does not record how the run began"),
    "foreign": (
        lambda record: record["numerics"].update(more=1),
        "does not record how the run began",
    ),
}


@pytest.mark.parametrize("name", CHANGES)
def test_unavailable_numerics_are_refused(name: str, finished: RunFolder, small: Small) -> None:
    unfinished(finished)
    change, message = CHANGES[name]
    record = finished.environment
    change(record)
    finished._write_environment(finished.recipe, record)
    assert message in refused(RunError, small, finished.path)


def test_recorded_numerics_are_used_again(finished: RunFolder, small: Small) -> None:
    """They replace what "auto" would choose here."""
    unfinished(finished)
    assert "began with 1 threads: remove --threads 2" in refused(
        RunError, small, finished.path, machine=Machine(threads=2)
    )
    assert "began on cpu: remove --device meta" in refused(
        RunError, small, finished.path, machine=Machine(device="meta")
    )
    record = finished.environment
    record["numerics"] |= {"precision": "bf16", "threads": 1}
    del record["numerics"]["replayed"]  # old records lack it
    setup = set_up(small(), environment=record)
    assert setup.numerics.to_dict() == {**record["numerics"], "replayed": False}
    with setup.numerics.autocast():
        assert setup.model(torch.zeros(2, 1, 8, 8)).dtype == torch.bfloat16


@pytest.mark.parametrize("batch_size", [7, 64])
def test_every_batch_is_full(batch_size: int, small: Small) -> None:
    """This holds even if a batch is larger than the set of images."""
    recipe = small("data.train_images=30", f"train.batch_size={batch_size}")
    setup = set_up(recipe, Machine(device="cpu", threads=1))
    for x, y in islice(setup.train_batches(start_step=3), 12):
        assert x.shape == (batch_size, 1, 8, 8)
        assert y.shape == (batch_size,)
    assert setup.num_steps == 11
    assert setup.steps_per_epoch == 30 / batch_size


@pytest.mark.parametrize("smoothing", [0.0, 0.3])
def test_loss_has_the_label_smoothing_of_the_recipe(
    smoothing: float, small: Small, tmp_path: Path
) -> None:
    """Compare the loss of the first batch with cross entropy written out by hand."""
    recipe = small(f"train.label_smoothing={smoothing}", "train.read_every_steps=1")
    setup = set_up(recipe, Machine(device="cpu", threads=1))
    x, y = next(setup.train_batches(start_step=0))
    log_probabilities = setup.model.train()(x).log_softmax(1)
    of_labels = log_probabilities.gather(1, y[:, None])[:, 0]
    losses = -(1 - smoothing) * of_labels - smoothing * log_probabilities.mean(1)

    train_recipe(recipe, tmp_path, Machine(device="cpu", threads=1))
    first = RunFolder.open(tmp_path).metrics("train")[0]
    assert first["step"] == 1
    assert first["loss"] == pytest.approx(losses.mean().item(), rel=1e-5)


def test_no_decision_reads_the_test_images(small: Small, tmp_path: Path) -> None:
    """The network is the same with and without a test curve."""
    for name, overrides in (("with", ["evaluation.test_curve=true"]), ("without", [])):
        train_recipe(small(*overrides), tmp_path / name, Machine(threads=1))
    nets = [
        read_bundle(tmp_path / name / "model.safetensors").network.state_dict()
        for name in ("with", "without")
    ]
    assert all(torch.equal(value, nets[1][key]) for key, value in nets[0].items())
    assert json.loads((tmp_path / "without" / "result.json").read_text())["test_touched"] == 1


def test_check_recipes_refuses_a_mean_of_three_colors_for_gray_images() -> None:
    with pytest.raises(ValueError, match="three colors, and these images have 1"):
        check_recipes([recipes.load("digits", overrides=["data.mean=imagenet"])])
