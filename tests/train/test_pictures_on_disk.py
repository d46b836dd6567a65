"""Training on image files that stay on disk: killed, resumed, and with damaged files."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from killing import Killed, until_killed

from reslearn import data, recipes
from reslearn.analysis import Subject
from reslearn.interop import read_bundle
from reslearn.runs import RunError, RunFolder
from reslearn.train import Machine, evaluate_bundle, plan, run, train_recipe

Make = Callable[..., Path]
Outcome = Callable[[Path], dict[str, Any]]

# The recipe for ImageNet with all lengths divided by 14: crops of 16 px from images of 21 to 60 px.
TINY = (
    "model.name=resnet8",
    "data.size_px=16",
    "schedule.duration=9 steps",
    "schedule.patience=1",
    "schedule.improvement_pct=5",
    "train.batch_size=6",
    "train.read_every_steps=2",
    "train.checkpoint_every_seconds=0",
    "evaluation.every=3 steps",
    "evaluation.recompute_images=12",
    "data.validation_images=0",
    "train.precision=fp32",
    "train.compile=off",
)


def tiny(folder: Path, *overrides: str) -> recipes.Recipe:
    return recipes.load("imagenet", overrides=[*TINY, f'data.name="{folder}"', *overrides])


@pytest.fixture(scope="module")
def pictures(make_pictures: Make, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_pictures(tmp_path_factory.mktemp("pictures"), train=8, validation=3, test=4)


AUGMENTED = (
    "data.jitter=none",
    "data.colour=none",
    "data.store=disk",
    "augment.crop_area=[0.25, 1.0]",
    "augment.policy=trivial",
    "augment.cutmix=1.0",
)


@pytest.mark.parametrize("overrides", [(), AUGMENTED], ids=["jitter", "augmented"])
def test_run_resumes_with_any_number_of_workers(
    overrides: tuple[str, ...],
    pictures: Path,
    outcome: Outcome,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    recipe = tiny(pictures, *overrides)
    train_recipe(recipe, tmp_path / "unbroken", Machine(threads=1))
    expected = outcome(tmp_path / "unbroken")
    monkeypatch.setattr(run, "train", until_killed(4))
    with pytest.raises(Killed):
        train_recipe(recipe, tmp_path / "killed", Machine(threads=1, workers=2))
    monkeypatch.undo()
    train_recipe(recipe, tmp_path / "killed", Machine(threads=1, workers=1), resume=True)
    assert RunFolder.open(tmp_path / "killed").result["resumed_at"] == [3]
    assert outcome(tmp_path / "killed") == expected


@pytest.mark.slow
def test_signal_to_the_process_group_stops_the_run(pictures: Path, tmp_path: Path) -> None:
    """`timeout` and Ctrl-C send such a signal. Workers must survive until the checkpoint."""
    flags = [
        part
        for override in (*TINY, "schedule.duration=100000 steps")
        for part in ("--set", override)
    ]
    command = [
        sys.executable,
        "-m",
        "reslearn",
        "train",
        str(pictures),
        "--recipe",
        "imagenet",
        *flags,
        "--out",
        str(tmp_path / "run"),
    ]
    process = subprocess.Popen(
        [*command, "--workers", "1"], stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    while not RunFolder(tmp_path / "run").checkpoints() and process.poll() is None:
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGTERM)
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 128 + signal.SIGTERM, errors
    assert "stopped after step" in errors
    step = int(errors.partition("stopped after step ")[2].partition(";")[0])
    assert RunFolder(tmp_path / "run").checkpoints()[-1].stem == f"step-{step:08d}"


def test_bundle_reads_images_as_the_test_did(pictures: Path, tmp_path: Path) -> None:
    result = train_recipe(tiny(pictures), tmp_path / "run", Machine(threads=1))
    folder = RunFolder.open(tmp_path / "run")
    preprocess = read_bundle(folder.bundle_path).preprocess
    assert (preprocess.size_px, preprocess.shorter_px) == (16, 18)  # 224 and 256 divided by 14
    assert preprocess.mean.shape == (16, 16, 3)
    assert preprocess.read(pictures / "test" / "red" / "0.jpg").shape == (16, 16, 3)
    assert folder.environment["data"]["fingerprint"].startswith("names+sizes:")
    again = evaluate_bundle(folder.path)
    assert (again.top1_error_pct, again.loss) == (
        result["test_top1_error_pct"],
        pytest.approx(result["test_loss"], rel=1e-5),
    )


@pytest.mark.parametrize("recipe", ["imagenet", "cifar-short"], ids=["on disk", "in memory"])
def test_changed_images_are_evaluated_only_by_name(
    recipe: str, make_pictures: Make, tmp_path: Path
) -> None:
    """With more images, the held-out fifth of a folder holds former training images."""
    folder = make_pictures(tmp_path / "pictures", train=10) / "train"
    short = (
        "schedule.duration=2 steps",
        "schedule.milestones=[]",
        "data.size_px=16",
        "train.batch_size=4",
    )
    on_disk = tiny(folder, "schedule.duration=2 steps", "data.validation_images=3")
    in_memory = recipes.load(
        "cifar-short", overrides=[f'data.name="{folder}"', "model.name=resnet8", *short]
    )
    chosen = on_disk if recipe == "imagenet" else in_memory
    train_recipe(chosen, tmp_path / "run", Machine(threads=1))
    before = {
        protocol: evaluate_bundle(tmp_path / "run", protocol=protocol)
        for protocol in ("single", "ten-crop")
    }
    for number in range(5):
        shutil.copyfile(folder / "red" / "0.jpg", folder / "red" / f"more{number}.jpg")
    for protocol, metrics in before.items():
        with pytest.raises(
            RunError, match=r"other images than .*, or name the data: reslearn evaluate "
        ):
            evaluate_bundle(tmp_path / "run", protocol=protocol)
        named = evaluate_bundle(tmp_path / "run", str(folder), protocol=protocol)
        assert named.num_images >= metrics.num_images  # copies of a training image


def test_ensemble_is_the_mean_of_its_scores(pictures: Path, tmp_path: Path) -> None:
    """An ensemble of twice the same network equals that network. Another network changes it."""
    for name, overrides in (
        ("one", ()),
        ("two", ("seed=1", "data.size_px=20", "data.mean=per-channel")),
    ):
        train_recipe(
            tiny(pictures, "schedule.duration=2 steps", *overrides),
            tmp_path / name,
            Machine(threads=1),
        )
    one, two = tmp_path / "one", tmp_path / "two"
    for protocol in ("single", "ten-crop", "multi-scale"):
        alone, other, both = (
            evaluate_bundle(which, protocol=protocol) for which in ([one], [two], [one, two])
        )
        assert both.loss != pytest.approx(alone.loss, rel=1e-3)
        assert both.loss <= (alone.loss + other.loss) / 2 + 1e-6  # Jensen's inequality
    twice = evaluate_bundle([one, one], protocol="ten-crop")
    alone = evaluate_bundle([one], protocol="ten-crop")
    assert twice.loss == pytest.approx(alone.loss, rel=1e-5)
    assert twice.top1_error_pct == alone.top1_error_pct


def test_a_run_from_disk_without_jitter_is_evaluated_from_disk(
    pictures: Path, tmp_path: Path
) -> None:
    settings = [
        f'data.name="{pictures}"',
        "model.name=resnet8",
        "schedule.duration=2 steps",
        "schedule.milestones=[]",
        "data.size_px=16",
        "data.store=disk",
        "augment.crop_area=[0.25, 1.0]",
        "train.batch_size=4",
    ]
    recipe = recipes.load("cifar-short", overrides=settings)
    result = train_recipe(recipe, tmp_path / "run", Machine(threads=1))
    assert data.is_streamed(RunFolder(tmp_path / "run").environment)
    metrics = evaluate_bundle(tmp_path / "run")
    assert metrics.loss == pytest.approx(result["test_loss"], rel=1e-5)
    assert len(Subject.open(tmp_path / "run").train) == 24


@pytest.mark.filterwarnings("ignore:.*are left out")
def test_damaged_images_are_skipped_and_recorded(
    make_pictures: Make, outcome: Outcome, tmp_path: Path
) -> None:
    """The run is the same for any number of workers."""
    folder = make_pictures(tmp_path / "pictures", train=8, validation=3, test=4)
    names = ("train/red/0.jpg", "train/blue/5.jpg", "test/red/0.jpg")
    for name in names:
        (folder / name).write_bytes(bytes((folder / name).stat().st_size))
    recipe = tiny(folder)
    for workers in (0, 2):
        out = tmp_path / f"workers{workers}"
        result = train_recipe(recipe, out, Machine(threads=1, workers=workers))
        record = RunFolder(out).environment["data"]["skipped"]
        assert record["count"] == 2  # met when the mean image was computed
        assert record["first"][0]["path"] == str(folder / "train/blue/5.jpg")
        assert result["skipped_images"] == 3
    assert outcome(tmp_path / "workers0") == outcome(tmp_path / "workers2")


@pytest.mark.filterwarnings("ignore:.*are left out")
def test_a_run_with_damaged_images_is_resumed_bit_for_bit(
    make_pictures: Make, outcome: Outcome, tmp_path: Path
) -> None:
    folder = make_pictures(tmp_path / "pictures", train=8, validation=3, test=4)
    (folder / "train" / "red" / "0.jpg").write_bytes(b"no picture")
    recipe = tiny(folder)
    train_recipe(recipe, tmp_path / "whole", Machine(threads=1))
    train_recipe(recipe, tmp_path / "run", Machine(threads=1))
    (tmp_path / "run" / "result.json").unlink()
    checkpoints = RunFolder(tmp_path / "run").checkpoints()
    checkpoints[-1].unlink()
    result = train_recipe(recipe, tmp_path / "run", Machine(threads=1), resume=True)
    assert 0 < result["resumed_at"][0] < result["steps"]
    assert outcome(tmp_path / "run") == outcome(tmp_path / "whole")
    assert result["skipped_images"] == 1
    assert result["skipped"]["first"][0]["path"] == str(folder / "train" / "red" / "0.jpg")


def test_resume_with_other_images_is_refused(make_pictures: Make, tmp_path: Path) -> None:
    folder = make_pictures(tmp_path / "pictures", train=8, validation=3, test=4)
    train_recipe(tiny(folder), tmp_path / "run", Machine(threads=1))
    (tmp_path / "run" / "result.json").unlink()
    (folder / "train" / "red" / "0.jpg").unlink()
    with pytest.raises(ValueError, match="other images now than when the run began"):
        train_recipe(tiny(folder), tmp_path / "run", Machine(threads=1), resume=True)


def test_plan_counts_no_images_on_disk(pictures: Path, tmp_path: Path) -> None:
    planned = plan(tiny(pictures), tmp_path / "run", Machine(threads=1))
    assert planned.images_mib == pytest.approx(
        2 * 4 * 6 * 3 * 16 * 16 / 2**20
    )  # one batch, before and after its crop
    assert not (tmp_path / "run").exists()


def test_settings_that_need_image_files(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"data\.jitter resizes image files, and digits has none"):
        train_recipe(
            recipes.load("imagenet", overrides=["data.name=digits", "data.size_px=8"]),
            tmp_path / "run",
            Machine(threads=1),
        )
    for override, message in (
        ("data.jitter=[200, 480]", r"jitter = \[200, 480\]: allowed are two lengths from 224"),
        ("data.jitter=[480, 256]", r"jitter = \[480, 256\]"),
        ("data.size_px=none", "jitter needs size_px"),
        ("data.jitter=none", "colour = 0.1 needs jitter"),
    ):
        with pytest.raises(recipes.RecipeError, match=message):
            recipes.load("imagenet", overrides=[override])


def test_recipe_has_the_values_of_the_paper() -> None:
    """Sec. 3.4 gives all of these values."""
    recipe = recipes.load("imagenet")
    optimizer, schedule, options = recipe.optimizer, recipe.schedule, recipe.data
    assert isinstance(schedule, recipes.Plateau)
    assert (
        optimizer.lr,
        optimizer.momentum,
        optimizer.weight_decay,
        optimizer.nesterov,
        optimizer.decay,
    ) == (0.1, 0.9, 1e-4, False, "all")
    assert (str(schedule.duration), schedule.factor, recipe.train.batch_size) == (
        "600000 steps",
        0.1,
        256,
    )
    assert (options.size_px, options.jitter, options.colour, options.flip, options.mean) == (
        224,
        (256, 480),
        0.1,
        True,
        "per-pixel",
    )
    assert recipe.data.validation_images > 0  # images of val/ must not decide anything
    smoke = recipes.load("imagenet-smoke").data
    assert (smoke.jitter, smoke.colour, smoke.flip, smoke.mean) == (
        options.jitter,
        options.colour,
        options.flip,
        options.mean,
    )
