"""`reslearn train FOLDER` and `--minutes`: everything is chosen, recorded, and done in time."""

import json
import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from reslearn import models
from reslearn.cli.train_recipe import default_recipe
from reslearn.recipes import Recipe, recipe_hash
from reslearn.runs import RunFolder
from reslearn.train import budget, photo_plan, starting_weights
from reslearn.train.budget import Candidate
from reslearn.train.starting_weights import StartingWeights

Make = Callable[..., Path]
Run = Callable[..., tuple[int, str, str]]
TINY = ("--init", "none", "--threads", "1", "--workers", "0")


@pytest.fixture
def photos(make_pictures: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Few photos, and a rule that trains them for few steps."""
    monkeypatch.setattr(photo_plan, "LADDER", (Candidate(model="resnet8", size_px=16),))
    monkeypatch.setattr(budget, "_WANTED_IMAGES", (60, 120))
    monkeypatch.setattr(budget, "_MAX_EPOCHS", 2)
    monkeypatch.chdir(tmp_path)
    return make_pictures(tmp_path / "photos", train=20, test=4)


def test_a_folder_alone_is_enough_and_the_run_can_be_repeated(
    photos: Path, tmp_path: Path, reslearn: Run
) -> None:
    status, output, errors = reslearn("train", photos, *TINY, "--out", "run")
    assert status == 0, errors
    titles = [line.split()[0] for line in errors.splitlines()[:5]]
    assert titles == ["photos", "network", "weights", "schedule", "time"]
    assert "54 for training, 6 for validation, 12 for one test at the end; 3 classes" in errors
    assert "resnet8 at 16 px" in errors
    assert "time      30 min" in errors
    assert "test accuracy " in output
    assert " on 12 images, validation accuracy " in output

    folder = RunFolder.open(tmp_path / "run")
    recipe = folder.recipe
    assert (recipe["name"], recipe["model"]["shortcut"], recipe["init"]) == ("photos", "B", None)
    assert (recipe["data"]["size_px"], recipe["data"]["validation_images"]) == (16, 6)
    assert folder.result["test_touched"] == 1

    status, _, errors = reslearn(
        "train", "--recipe", "run/recipe.json", "--threads", "1", "--workers", "0", "--out", "same"
    )
    assert (status, "network" in errors) == (0, False), errors
    same = RunFolder.open(tmp_path / "same")
    assert recipe_hash(same.recipe) == recipe_hash(recipe)
    assert same.bundle_path.read_bytes()[-2000:] == folder.bundle_path.read_bytes()[-2000:]
    assert same.result["test_loss"] == folder.result["test_loss"]


@pytest.mark.filterwarnings("default")  # warnings go to standard error
def test_broken_pictures_do_not_stop_the_plan(photos: Path, tmp_path: Path, reslearn: Run) -> None:
    broken = [path for path in sorted(photos.rglob("train/*/*")) if path.is_file()][::4]
    for path in broken:
        path.write_bytes(path.read_bytes()[:-200])
    status, output, errors = reslearn("train", photos, *TINY, "--out", "run")
    assert (status, "test accuracy " in output) == (0, True), errors
    assert errors.count("15 of 60 training images cannot be read and are left out") == 1
    folder = RunFolder.open(tmp_path / "run")
    assert folder.environment["data"]["skipped"]["count"] == len(broken) == 15
    assert folder.result["skipped_images"] == 15


def test_what_the_user_sets_stays(photos: Path, tmp_path: Path, reslearn: Run) -> None:
    flags = ("--model", "resnet14", "--set", "data.size_px=8", "--batch-size", "9", "--lr", "0.007")
    status, _, errors = reslearn("train", photos, *TINY, *flags, "--minutes", "9", "--out", "run")
    assert status == 0, errors
    assert "resnet14 at 8 px" in errors
    recipe = RunFolder.open(tmp_path / "run").recipe
    assert (recipe["train"]["batch_size"], recipe["optimizer"]["lr"]) == (9, 0.007)


def test_weights_are_found_unless_the_user_wants_none(
    photos: Path, tmp_path: Path, reslearn: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = models.build("resnet8", num_classes=5, shortcut="A")
    torch.save(network.state_dict(), tmp_path / "weights.pth")
    found = StartingWeights(sources={"resnet8": "weights.pth"}, reason="they are here")
    monkeypatch.setattr(photo_plan, "find_weights", lambda minutes: found)
    monkeypatch.setattr("warnings.warn", lambda *_, **__: None)
    machine = ("--threads", "1", "--workers", "0")
    status, _, errors = reslearn("train", photos, *machine, "--out", "run")
    assert (status, "weights   weights.pth" in errors) == (0, True), errors
    recipe = RunFolder.open(tmp_path / "run").recipe
    assert (recipe["init"]["source"], recipe["model"]["shortcut"]) == ("weights.pth", "A")

    flags = ("--init", "none", "--dry-run")
    status, output, errors = reslearn("train", photos, *machine, *flags)
    assert (status, "weights   new, since you asked for new ones" in errors) == (0, True), errors
    assert "would begin in runs/resnet8-photos-" in output


def test_a_given_duration_needs_no_measurement(
    photos: Path, tmp_path: Path, reslearn: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: object, **options: object) -> None:
        raise AssertionError("measured")

    monkeypatch.setattr(photo_plan, "measure", fail)
    flags = ("--model", "resnet8", "--set", "data.size_px=16", "--epochs", "1")
    status, _, errors = reslearn("train", photos, *TINY, *flags, "--out", "run")
    assert status == 0, errors
    assert RunFolder.open(tmp_path / "run").recipe["schedule"]["duration"] == "1 epochs"


def test_a_slow_machine_ends_in_time_and_says_how_to_repeat_it(
    tmp_path: Path, reslearn: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("reslearn.train.photo_plan.affordable_epochs", lambda *_, **__: 5_000.0)
    monkeypatch.setattr("reslearn.train.time_limit._WRITING_SECONDS", 0.5)
    flags = ("--model", "resnet8", "--threads", "1", "--set", "evaluation.recompute_images=0")
    status, output, errors = reslearn(
        "train", "digits", *flags, "--minutes", "0.05", "--out", "run"
    )
    assert status == 0, errors
    assert "repeat it exactly: reslearn train --recipe run/recipe.json --set schedule.ends=[[" in (
        output
    )
    result = json.loads((tmp_path / "run" / "result.json").read_text(encoding="utf-8"))
    assert result["steps"] == result["schedule_ends"][-1][1]
    assert result["steps"] < 50_000  # 225,000 were planned


def test_minutes_scale_any_recipe(
    tmp_path: Path, reslearn: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("reslearn.train.photo_plan.affordable_epochs", lambda *_, **__: 0.4)
    flags = ("--model", "resnet8", "--threads", "1", "--set", "evaluation.recompute_images=0")
    status, _, errors = reslearn("train", "digits", *flags, "--minutes", "5", "--out", "run")
    assert (status, "5 minutes allow 0.4 epochs here" in errors) == (0, True), errors
    schedule = RunFolder.open(tmp_path / "run").recipe["schedule"]
    assert schedule["duration"] == "0.4 epochs"
    assert schedule["milestones"] == ["0.2 epochs", "0.3 epochs"]  # a half and three quarters


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--minutes", "0"), "--minutes 0: a number above 0 is needed"),
        (("--minutes", "nan"), "--minutes nan: a number above 0 is needed"),
        (("--minutes", "5", "--epochs", "2"), "--minutes chooses the duration"),
        (("--minutes", "5", "--set", "schedule.duration=2 steps"), "--minutes chooses the"),
        (("--minutes", "0.01"), "set --minutes"),
        (("--recipe", "none.json"), "none.json: cannot be read"),
    ],
)
def test_wrong_minutes_are_one_line(
    photos: Path, reslearn: Run, flags: tuple[str, ...], message: str
) -> None:
    status, _, errors = reslearn("train", photos, *TINY, *flags)
    assert status == 2
    assert message in errors.splitlines()[-1]


def test_a_folder_with_a_run_is_refused_before_anything_is_measured(
    photos: Path, tmp_path: Path, reslearn: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    RunFolder.create(tmp_path / "run", {"name": "photos"}, {})
    monkeypatch.setattr(photo_plan, "measure", None)
    status, _, errors = reslearn("train", photos, *TINY, "--out", "run")
    assert (status, "run holds a run already: add --resume" in errors) == (2, True)


def test_weights_without_a_network_connection(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RESLEARN_DATA", str(tmp_path))
    monkeypatch.setattr(starting_weights, "_ANSWER_SECONDS", 0.2)
    monkeypatch.setattr(starting_weights, "shipped_networks", dict)
    with socket.create_server(("127.0.0.1", 0)) as silent:  # accepts, and never answers
        address = f"http://127.0.0.1:{silent.getsockname()[1]}/resnet18-f37072fd.pth"
        table = {f"torchvision:resnet{depth}": {"address": address} for depth in (18, 34, 50)}
        monkeypatch.setattr(starting_weights, "published_weights", lambda: table)
        began_at = time.monotonic()
        weights = starting_weights.find_weights(30)
    assert time.monotonic() - began_at < 10
    assert (dict(weights.sources), "does not answer" in weights.reason) == ({}, True)
    assert "less than 10 minutes" in starting_weights.find_weights(3).reason

    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "resnet18-f37072fd.pth").touch()
    monkeypatch.setattr(starting_weights, "shipped_networks", lambda: {"resnet20": None})
    weights = starting_weights.find_weights(3)
    assert weights.sources["resnet18"] == "torchvision:resnet18"
    assert weights.sources["resnet20"] == "reslearn:resnet20"


def test_only_image_files_get_the_recipe_of_photos(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "labels.csv").write_text("path,label\n", encoding="utf-8")
    assert default_recipe(str(photos), None) == "photos"
    assert default_recipe("photos", tmp_path) == "photos"  # by its bare name
    assert default_recipe("labels.csv", None) == "photos"
    assert default_recipe("digits", None) == "digits"
    assert [default_recipe(name, None) for name in ("cifar10", "nothing", None)] == (
        ["cifar-paper"] * 3
    )


def test_the_recipe_of_photos_can_be_exported_to_other_projects() -> None:
    from reslearn import recipes

    recipe: Recipe = recipes.load("photos")
    assert (recipe.model.shortcut, recipe.evaluation.test_curve) == ("B", False)
