"""`reslearn train`: flags become a recipe, --dry-run, --resume, and one-line errors."""

import json
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch

from reslearn import models
from reslearn.runs import RunFolder

SMALL = (
    "--model",
    "resnet8",
    "--set",
    "schedule.kind=constant",
    "--set",
    "schedule.duration=2 steps",
    "--set",
    "data.train_images=40",
    "--set",
    "evaluation.recompute_images=0",
    "-b",
    "10",
    "--threads",
    "1",
)
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def train(reslearn: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    """Run `reslearn train ...` in a temporary folder."""
    monkeypatch.chdir(tmp_path)
    return partial(reslearn, "train")


def test_flags_become_the_recipe_and_the_run_is_named(train: Run, tmp_path: Path) -> None:
    status, output, errors = train(
        "digits", *SMALL, "--lr", "0.05", "--seed", "7", "--out", "my run"
    )
    assert (status, errors) == (0, "")
    assert output.startswith("test error ")
    assert "\nmy run\n" in output
    assert "reslearn report 'my run'" in output
    recipe = RunFolder.open(tmp_path / "my run").recipe
    assert (recipe["name"], recipe["seed"], recipe["model"]["name"], recipe["data"]["name"]) == (
        "digits",
        7,
        "resnet8",
        "digits",
    )
    assert (
        recipe["optimizer"]["lr"],
        recipe["train"]["batch_size"],
        recipe["schedule"]["duration"],
    ) == (0.05, 10, "2 steps")
    resumed = train("--resume", "--out", "my run", "--json")
    assert resumed[0] == 0
    assert json.loads(resumed[1])["out"] == "my run"


@pytest.mark.filterwarnings("ignore:.*its preprocessing is unknown")
def test_epochs_go_with_an_entry_of_the_initial_weights(train: Run, tmp_path: Path) -> None:
    network = models.build("resnet8", num_classes=10, in_channels=1)
    weights = {"state_dict": network.state_dict(), "state_dict_ema": network.state_dict()}
    torch.save(weights, tmp_path / "weights.pth")
    init = ("--init", "weights.pth", "--set", "init.entry=state_dict_ema")
    arguments = ("digits", *init, "--epochs", "0.1", "--threads", "1", "--out", "run", "--json")
    status, _, errors = train(*arguments)
    assert status == 0, errors
    recipe = RunFolder.open(tmp_path / "run").recipe
    assert recipe["init"]["entry"] == "state_dict_ema"
    assert recipe["schedule"]["duration"] == "0.1 epochs"


def test_fewer_epochs_keep_the_schedule_in_proportion(train: Run, tmp_path: Path) -> None:
    outcome = train(
        "digits",
        "--model",
        "resnet8",
        "--epochs",
        "0.4",
        "-b",
        "64",
        "--out",
        "run",
        "--set",
        "evaluation.recompute_images=0",
    )
    assert outcome[::2] == (0, "")
    schedule = RunFolder.open(tmp_path / "run").recipe["schedule"]
    assert (schedule["duration"], schedule["milestones"]) == (
        "0.4 epochs",
        ["0.2 epochs", "0.3 epochs"],
    )  # 20, 10 and 15 in the recipe


def test_resume_starts_from_the_recipe_of_the_folder(train: Run, tmp_path: Path) -> None:
    train("digits", *SMALL, "--out", "run", "--json")
    status, output, errors = train("--resume", "--out", "run", "--set", "optimizer.lr=0.5")
    assert (status, output) == (2, "")
    assert re.search(r"another recipe \(optimizer.lr: [0-9.]+ -> 0.5\):", errors), errors
    status, output, _ = train("--resume", "--out", "run")
    assert (status, output.splitlines()[0]) == (
        0,
        "the run is already complete: nothing was trained",
    )


def test_a_run_without_a_name_can_be_resumed(train: Run, tmp_path: Path) -> None:
    first, second = train("digits", *SMALL, "--json"), train("digits", *SMALL, "--resume", "--json")
    assert json.loads(first[1]) == json.loads(second[1])
    (run,) = (tmp_path / "runs").iterdir()
    assert run.name.startswith("resnet8-digits-")


def test_dry_run_prints_the_cost_and_writes_nothing(train: Run, tmp_path: Path) -> None:
    status, output, errors = train("digits", *SMALL, "--out", "run", "--dry-run")
    assert (status, errors, list(tmp_path.iterdir())) == (0, "", [])
    for part in (
        "would begin in run: 2 steps",
        "75,002 parameters, 747,136 multiply-adds",
        " MiB ",
        " minutes ",
        "nothing was written",
    ):
        assert part in output
    plan = json.loads(train("digits", *SMALL, "--out", "run", "--dry-run", "--json")[1])
    assert (plan["parameters"], plan["steps"], plan["numerics"]["threads"]) == (
        75_002,
        2,
        1,
    )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (
            ["--resume", "--out", "absent"],
            ["absent holds nothing to resume", "reslearn train digits"],
        ),
        (["digits", "--model", "resnet9"], ["resnet9", "resnet8"]),
        (["digits", "--recipe", "digit"], ["no recipe 'digit'", "did you mean 'digits'?"]),
        (["2015"], ["no data called '2015'"]),
        (["digits", "--epochs", "0"], ["--epochs 0: a number above 0"]),
        (["digits", "--epochs", "nan"], ["--epochs nan: a number above 0"]),
        (["digits", "--lr", "inf"], ["optimizer.lr = Infinity", "finite"]),
        (["digits", "--batch-size", "0"], ["train.batch_size = 0", "greater than or equal to 1"]),
        (["digits", "--set", "optimizer.lr"], ["--set optimizer.lr", "key=value"]),
        (["digits", "--device", "abacus"], ["--device abacus", "cpu, cuda or cuda:N"]),
        (["digits", "--threads", "0"], ["threads"]),
        (["digits", "--dry-run", "--model", "resnet9"], ["resnet9"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_wrong_use_is_one_line_status_2_and_no_file(
    arguments: list[str], words: list[str], train: Run, tmp_path: Path
) -> None:
    status, output, errors = train(*arguments)
    assert (status, output) == (2, "")
    assert errors.startswith("reslearn: ")
    assert errors.count("\n") == 1
    assert [word for word in words if word not in errors] == []
    assert list(tmp_path.iterdir()) == []
