"""A run is what it says it is: damage, edits, a second owner and NaN are noticed."""

import json
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from killing import Killed, until_killed

from reslearn import recipes
from reslearn.analysis import Subject
from reslearn.cli.export import export
from reslearn.interop import read_bundle, to_bytes
from reslearn.recipes import Recipe
from reslearn.report import run_page
from reslearn.runs import FolderLostError, RunError, RunFolder
from reslearn.train import (
    Machine,
    NonFiniteLossError,
    evaluate_bundle,
    loop,
    plan,
    run,
    train_recipe,
)
from reslearn.train.setup import RunSetup

Small = Callable[..., Recipe]
Outcome = Callable[[Path], dict[str, Any]]
ONE_THREAD = Machine(threads=1)


@pytest.fixture(scope="module")
def killed_run(small: Small, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a run that was killed after step 9 and has checkpoints 4 and 7."""
    path = tmp_path_factory.mktemp("killed") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run, "train", until_killed(9))
        with pytest.raises(Killed):
            train_recipe(small(), path, ONE_THREAD)
    return path


@pytest.fixture(scope="module")
def unbroken(
    small: Small, outcome: Outcome, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Any]:
    path = tmp_path_factory.mktemp("unbroken") / "run"
    train_recipe(small(), path, ONE_THREAD)
    return outcome(path)


@pytest.fixture
def folder(killed_run: Path, tmp_path: Path) -> RunFolder:
    """Return a copy of the killed run."""
    shutil.copytree(killed_run, tmp_path / "run")
    return RunFolder(tmp_path / "run")


def flip(path: Path, position: int) -> None:
    content = bytearray(path.read_bytes())
    content[position] ^= 1 << position % 8
    path.write_bytes(content)


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("damage", ["weight", "digest", "truncated", "empty"])
def test_a_damaged_newest_checkpoint_is_reported_and_the_one_before_it_is_used(
    damage: str,
    folder: RunFolder,
    small: Small,
    outcome: Outcome,
    unbroken: dict[str, Any],
) -> None:
    before, newest = folder.checkpoints()
    content = newest.read_bytes()
    if damage == "weight":
        flip(newest, len(content) // 2)
    elif damage == "digest":
        flip(newest, len(content) - 5)
    else:
        newest.write_bytes(content[: len(content) // 2] if damage == "truncated" else b"")
    with pytest.warns(UserWarning, match=r"step-00000007\.pt\.damaged .* resumes from step 4"):
        train_recipe(small(), folder.path, ONE_THREAD, resume=True)
    assert outcome(folder.path) == unbroken
    assert folder.result["resumed_at"] == [4]
    assert (before.parent / "step-00000007.pt.damaged").exists()


def test_without_an_intact_checkpoint_the_run_is_refused(folder: RunFolder, small: Small) -> None:
    for path in folder.checkpoints():
        flip(path, 1000)
    for _ in range(2):  # a second try is refused as well
        with pytest.raises(RunError, match="no other checkpoint: train again in another folder"):
            train_recipe(small(), folder.path, ONE_THREAD, resume=True)
    assert not folder.is_complete


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("recipe.json", '"lr": 0.05', '"lr": 0.005'),
        ("recipe.json", '"seed": 0', '"seed": 2'),
        ("recipe.json", '"name": "digits"', '"name": "digitz"'),
        ("environment.json", '"threads": 1', '"threads": 2'),
        ("environment.json", '"torch": "2', '"torch": "3'),
        ("environment.json", '"started_at": "2', '"started_at": "3'),
    ],
)
def test_an_edited_recipe_or_environment_is_not_believed(
    name: str, old: str, new: str, folder: RunFolder
) -> None:
    path = folder.path / name
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new, 1))
    recipe = recipes.from_dict(folder.recipe, source="recipe.json")  # as --resume --out does
    with pytest.raises(RunError, match="was changed after the run began: put its old content back"):
        train_recipe(recipe, folder.path, ONE_THREAD, resume=True)
    assert not folder.is_complete


def test_readers_of_an_unfinished_run_do_not_believe_an_edited_recipe(folder: RunFolder) -> None:
    path = folder.path / "recipe.json"
    path.write_text(path.read_text().replace('"lr": 0.05', '"lr": 0.005', 1))
    recipe = recipes.from_dict(folder.recipe, source="recipe.json")
    for read in (
        lambda: run_page(folder),
        lambda: plan(recipe, folder.path, ONE_THREAD, resume=True),
        lambda: folder.finish_diverged(9, "the loss is nan"),
    ):
        with pytest.raises(RunError, match="was changed after the run began"):
            read()


def test_weights_of_another_step_are_not_the_result(small: Small, tmp_path: Path) -> None:
    """A snapshot has the recipe hash of its run, and a digest that fits."""
    train_recipe(small('evaluation.snapshots=["0 steps", "5 steps"]'), tmp_path, ONE_THREAD)
    folder = RunFolder(tmp_path)
    first, second = folder.snapshots().values()
    Subject.open(folder).network(5)
    shutil.copy(first, second)
    with pytest.raises(RunError, match=r"step-00000005\.safetensors is not the file that this run"):
        Subject.open(folder).network(5)
    shutil.copy(first, folder.bundle_path)
    message = r"model\.safetensors is not the file that this run wrote"
    with pytest.raises(RunError, match=message):
        evaluate_bundle(tmp_path, machine=ONE_THREAD)
    with pytest.raises(RunError, match=message):
        Subject.open(folder)
    with pytest.raises(RunError, match=message):
        export(source=str(tmp_path), to="torchvision", out=tmp_path / "weights.pth")


def test_the_checkpoint_of_another_run_is_refused(
    folder: RunFolder, killed_run: Path, small: Small, tmp_path: Path
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run, "train", until_killed(9))
        with pytest.raises(Killed):
            train_recipe(small("optimizer.lr=0.02"), tmp_path / "other", ONE_THREAD)
    newest = folder.checkpoints()[-1]
    shutil.copy(RunFolder(tmp_path / "other").checkpoints()[-1], newest)
    with pytest.raises(RunError, match="is a checkpoint of another run"):
        train_recipe(small(), folder.path, ONE_THREAD, resume=True)


def test_a_recipe_that_is_edited_during_the_run_is_not_sealed(
    small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def train(*arguments: Any) -> None:
        loop.train(*arguments)
        path = tmp_path / "run" / "recipe.json"
        path.write_text(path.read_text().replace('"lr": 0.05', '"lr": 0.005'))

    monkeypatch.setattr(run, "train", train)
    with pytest.raises(RunError, match="was changed after the run began"):
        train_recipe(small(), tmp_path / "run", ONE_THREAD)
    assert not RunFolder(tmp_path / "run").is_complete


def test_metrics_that_are_edited_before_the_checkpoint_are_refused(
    folder: RunFolder, small: Small
) -> None:
    text = folder.metrics_path.read_text()
    folder.metrics_path.write_text(text.replace('"loss": 2.', '"loss": 1.', 1))
    assert folder.metrics_path.read_text() != text
    with pytest.raises(RunError, match="was changed since"):
        train_recipe(small(), folder.path, ONE_THREAD, resume=True)


@pytest.mark.parametrize("is_replaced", [True, False], ids=["replaced", "removed"])
def test_a_run_whose_folder_is_replaced_stops_and_writes_nothing(
    is_replaced: bool, small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, count = tmp_path / "run", 0
    genuine = RunSetup.loop_setup

    def loop_setup(*arguments: Any) -> Any:
        nonlocal count
        count += 1
        if count == 1:
            shutil.rmtree(path)
            if is_replaced:
                train_recipe(small("seed=2"), path, ONE_THREAD)
        return genuine(*arguments)

    monkeypatch.setattr(RunSetup, "loop_setup", loop_setup)
    with pytest.raises(FolderLostError, match="was removed or replaced") as caught:
        train_recipe(small("seed=1"), path, ONE_THREAD)
    assert "\n" not in str(caught.value)
    assert str(caught.value).endswith("; train again in another --out")
    assert "--resume" not in str(caught.value)
    if is_replaced:
        other = RunFolder.open(path)
        assert other.recipe["seed"] == 2 and other.result["steps"] == 11
        assert read_bundle(other.bundle_path, recipe_hash=other.recipe_hash)
    else:
        assert not path.exists()


def test_a_second_resume_of_a_run_that_ends_meanwhile_trains_nothing(
    folder: RunFolder, small: Small, unbroken: dict[str, Any], outcome: Outcome
) -> None:
    """The second process decides what to do only when it holds the lock."""
    genuine_exists, other = RunFolder.exists, threading.Lock()

    def exists(asked: RunFolder) -> bool:
        found = genuine_exists(asked)
        if other.acquire(blocking=False):  # the first question of the second process
            train_recipe(small(), folder.path, ONE_THREAD, resume=True)
        return found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RunFolder, "exists", exists)
        patch.setattr(run, "set_up", once(run.set_up))
        result = train_recipe(small(), folder.path, ONE_THREAD, resume=True)
    assert result == folder.result
    assert outcome(folder.path) == unbroken


def once(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return `function`, which fails the test if it is called again."""
    is_called = False

    def call(*arguments: Any, **options: Any) -> Any:
        nonlocal is_called
        assert not is_called, "the complete run is set up again"
        is_called = True
        return function(*arguments, **options)

    return call


@pytest.mark.parametrize("name", ["environment.json", "recipe.json", "metrics.jsonl"])
def test_a_result_covers_all_that_a_report_reads(
    name: str, folder: RunFolder, small: Small
) -> None:
    train_recipe(small(), folder.path, ONE_THREAD, resume=True)
    path = folder.path / name
    text = path.read_text()
    for position in range(0, len(text), max(1, len(text) // 40)):
        if text[position].isdigit():
            changed = text[:position] + "7" + text[position + 1 :]
            path.write_text(changed)
            if changed != text:
                with pytest.raises(RunError):
                    _ = RunFolder(folder.path).result
    path.write_text(text)
    assert folder.result["steps"] == 11


def test_nan_is_found_at_the_next_reading(
    small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """NaN in running statistics does not change the loss while the network trains."""
    genuine = RunSetup.loop_setup

    def loop_setup(setup: RunSetup, *arguments: Any) -> Any:
        setup.model.get_buffer("stage2.0.body.bn1.running_var")[0] = float("nan")
        return genuine(setup, *arguments)

    monkeypatch.setattr(RunSetup, "loop_setup", loop_setup)
    message = r"stage2\.0\.body\.bn1\.running_var holds NaN or infinity after step 4; there is no"
    with pytest.raises(NonFiniteLossError, match=message):
        train_recipe(small(), tmp_path / "run", ONE_THREAD)
    assert RunFolder(tmp_path / "run").checkpoints() == []


def test_momentum_that_is_not_finite_is_found(small: Small) -> None:
    from reslearn.train.setup import set_up

    state = set_up(small(), ONE_THREAD).initial_state()
    state.check_finite()
    parameter = state.model.get_parameter("head.fc.bias")
    state.optimizer.state[parameter]["momentum_buffer"] = torch.full_like(parameter, float("inf"))
    with pytest.raises(NonFiniteLossError, match=r"momentum_buffer of head\.fc\.bias holds NaN"):
        state.check_finite()


def replace_weights(path: Path, value: float) -> None:
    """Write a bundle, with a fitting digest, whose head has the weight `value`."""
    bundle = read_bundle(path)
    bundle.network.get_parameter("head.fc.weight").data[0] = value
    content = to_bytes(
        bundle.network,
        spec=bundle.network.spec,
        classes=bundle.classes,
        preprocess=bundle.preprocess,
        metrics={},
        recipe_hash=bundle.recipe_hash,
    )
    path.write_bytes(content)


def test_evaluate_refuses_networks_that_are_not_finite(
    small: Small, tmp_path: Path, reslearn: Callable[..., tuple[int, str, str]]
) -> None:
    train_recipe(small(), tmp_path / "run", ONE_THREAD)
    weights = tmp_path / "run" / "model.safetensors"
    replace_weights(weights, 3e38)
    for source in (weights, [weights, weights]):
        with pytest.raises(ValueError, match="outputs that are not finite have no error rate"):
            evaluate_bundle(source, "digits", machine=ONE_THREAD)
    replace_weights(weights, float("nan"))
    status, output, errors = reslearn("evaluate", weights, "digits", "--json")
    assert (status, output) == (2, "")
    assert "head.fc.weight holds NaN or infinity" in errors
    assert errors.count("\n") == 1


def test_diverged_json_is_sealed(small: Small, tmp_path: Path) -> None:
    with pytest.raises(NonFiniteLossError):
        train_recipe(small("optimizer.lr=1e9"), tmp_path / "run", ONE_THREAD)
    folder = RunFolder(tmp_path / "run")
    assert "holds NaN or infinity" in str(folder.divergence)
    path = folder.path / "diverged.json"
    record = json.loads(path.read_text())
    path.write_text(json.dumps({**record, "step": record["step"] + 1}))
    with pytest.raises(RunError, match="was changed after the run diverged"):
        _ = folder.divergence
