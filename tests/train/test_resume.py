"""A run that is killed at any step and resumed equals an unbroken run bit for bit.

This holds for weights, optimizer state and logged losses.
"""

import itertools
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from killing import Killed, until_killed

from quick_processes import quick_processes
from reslearn.interop import read_bundle
from reslearn.recipes import Recipe
from reslearn.runs import RunError, RunFolder
from reslearn.train import Machine, loop, plan, run, train_recipe

Small = Callable[..., Recipe]
Outcome = Callable[[Path], dict[str, Any]]

WARM_UP = (
    "schedule.warm_up_lr=0.01",
    "schedule.warm_up_error_pct=85",
    "data.validation_images=100",
    "evaluation.test_curve=true",
)
MUON = (
    "optimizer.name=muon",
    "optimizer.filter_lr=0.03",
    "optimizer.nesterov=true",
    "optimizer.decay=weights",
)
AUGMENTED = (
    "augment.crop_area=[0.25, 1.0]",
    "augment.policy=trivial",
    "augment.erase=0.5",
    "augment.mixup=0.2",
    "augment.cutmix=1.0",
    "train.label_smoothing=0.1",
)
VARIANTS = {
    "augmented": (*AUGMENTED, "train.accumulate=2", "train.ema=0.9"),
    "everything": (
        *WARM_UP,
        "train.accumulate=2",
        "train.ema=0.9",
        "train.label_smoothing=0.1",
        "evaluation.batch_norm=exact",
    ),
    "plain8": (
        "model.name=plain8",
        "schedule.kind=cosine",
        "schedule.rise=0.3",
        "optimizer.nesterov=true",
        "optimizer.decay=weights",
    ),
    "muon": (*MUON, "schedule.kind=triangular", 'evaluation.snapshots=["0 steps", "5 steps"]'),
}
# Steps after which each part of a run is killed. Checkpoints are written at steps 4, 7, 10
# (readings arrive one step late) and 11, the last.
KILLS = {
    "augmented": [(3, 5)],
    "everything": [(1, 4), (3, 5), (4, 1), (6, 7), (11,)],
    "plain8": [(2, 6), (10, 1)],
    "muon": [(5, 3), (8,)],
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_run_killed_after_any_step(
    variant: str, small: Small, outcome: Outcome, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = small(*VARIANTS[variant])
    train_recipe(recipe, tmp_path / "unbroken", Machine(threads=1))
    expected = outcome(tmp_path / "unbroken")
    if variant == "everything":
        # The warm-up ends in the middle of the training.
        assert expected["result"]["warmed_up_at_step"] in range(4, 11)

    for kills in KILLS[variant]:
        out = tmp_path / f"killed-after-{kills}"
        for num_steps in kills:
            monkeypatch.setattr(run, "train", until_killed(num_steps))
            with pytest.raises(Killed):
                train_recipe(recipe, out, Machine(threads=1), resume=True)
            with RunFolder(out).metrics_path.open("ab") as file:
                file.write(b'{"kind": "tr')  # a line that is only partly written
        monkeypatch.setattr(run, "train", loop.train)
        train_recipe(recipe, out, Machine(threads=1), resume=True)
        assert outcome(out) == expected


@pytest.mark.parametrize("variant", ["everything", "plain8"])
def test_process_killed_at_random_moments(
    variant: str, small: Small, outcome: Outcome, tmp_path: Path
) -> None:
    recipe = small(*VARIANTS[variant], "schedule.duration=40 steps")
    train_recipe(recipe, tmp_path / "unbroken", Machine(threads=1))
    out, moments = tmp_path / "killed", random.Random(variant)
    context = quick_processes()
    for _ in range(2):
        steps = saved_steps(out)
        process = context.Process(
            target=train_recipe,
            args=(recipe, out),
            kwargs={"machine": Machine(threads=1), "resume": True},
        )
        process.start()
        while saved_steps(out) == steps and process.is_alive():
            time.sleep(0.002)
        time.sleep(moments.uniform(0, 0.1))
        process.kill()
        process.join()
    train_recipe(recipe, out, Machine(threads=1), resume=True)
    assert outcome(out) == outcome(tmp_path / "unbroken")
    assert RunFolder.open(out).result["resumed_at"]


def saved_steps(out: Path) -> list[str]:
    return [path.name for path in RunFolder(out).checkpoints()]


def test_run_killed_while_it_writes_a_file(
    small: Small, outcome: Outcome, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = small("train.ema=0.9")
    train_recipe(recipe, tmp_path / "unbroken", Machine(threads=1))
    for name, nth in (
        ("write_checkpoint", 2),
        ("write_json", 1),
        ("write_json", 2),
        ("append_metrics", 4),
    ):
        out, count = tmp_path / f"{name}-{nth}", itertools.count()
        genuine = getattr(RunFolder, name)

        def killed(
            folder: RunFolder,
            *arguments: Any,
            _genuine: Any = genuine,
            _count: Any = count,
            _nth: int = nth,
        ) -> Any:
            if next(_count) == _nth:
                raise Killed
            return _genuine(folder, *arguments)

        with monkeypatch.context() as patch:
            patch.setattr(RunFolder, name, killed)
            with pytest.raises(Killed):
                train_recipe(recipe, out, Machine(threads=1), resume=True)
        train_recipe(recipe, out, Machine(threads=1), resume=True)
        assert outcome(out) == outcome(tmp_path / "unbroken")


@pytest.mark.filterwarnings("default")  # warnings about the weights must appear
def test_initial_weights_are_needed_until_the_first_checkpoint(
    small: Small, outcome: Outcome, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train_recipe(
        small("data.std=per-channel", "schedule.duration=1 steps"),
        tmp_path / "before",
        Machine(threads=1),
    )
    weights, moved_weights = tmp_path / "weights.safetensors", tmp_path / "moved_weights"
    RunFolder(tmp_path / "before").bundle_path.rename(weights)
    # It differs from the preprocessing that the recipe asks for, which is worth a warning.
    preprocess = read_bundle(weights).preprocess
    recipe = small(f'init.source="{weights}"', "data.std=scalar")
    with pytest.warns(UserWarning, match="its preprocessing overrides"):
        train_recipe(recipe, tmp_path / "unbroken", Machine(threads=1))

    monkeypatch.setattr(run, "train", until_killed(2))  # the first checkpoint is written at step 4
    out = tmp_path / "killed"
    with pytest.raises(Killed), pytest.warns(UserWarning, match="its preprocessing overrides"):
        train_recipe(recipe, out, Machine(threads=1))
    weights.rename(moved_weights)
    with pytest.raises(
        RunError, match=r"weights\.safetensors: No such file.*no checkpoint yet: restore the file"
    ) as raised:
        train_recipe(recipe, out, Machine(threads=1), resume=True)
    assert "\n" not in str(raised.value)
    weights.write_bytes(RunFolder(tmp_path / "unbroken").bundle_path.read_bytes())
    with pytest.raises(RunError, match="differs from the file that the run began with"):
        train_recipe(recipe, out, Machine(threads=1), resume=True)

    moved_weights.rename(weights)
    monkeypatch.setattr(run, "train", until_killed(6))
    with pytest.raises(Killed):
        train_recipe(recipe, out, Machine(threads=1), resume=True)
    weights.unlink()
    monkeypatch.setattr(run, "train", loop.train)
    assert plan(recipe, out, Machine(threads=1), resume=True).begins_at_step == 4
    train_recipe(recipe, out, Machine(threads=1), resume=True)
    assert outcome(out) == outcome(tmp_path / "unbroken")
    assert read_bundle(RunFolder(out).bundle_path).preprocess == preprocess


def test_complete_run_is_returned_unchanged(
    small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = train_recipe(
        small(), tmp_path / "run", Machine(threads=1), resume=True
    )  # there is nothing to resume, so it starts
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("*")}
    monkeypatch.setattr(
        run,
        "set_up",
        lambda *arguments, **options: pytest.fail("nothing is set up for a finished run"),
    )
    assert train_recipe(small(), tmp_path / "run", resume=True) == result
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("*")} == before


@pytest.mark.slow
# The compiler imports parts of torch that torch itself deprecates.
@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch")
@pytest.mark.parametrize("variant", VARIANTS)
def test_compiled_run_in_bf16(
    variant: str, small: Small, outcome: Outcome, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = small(*VARIANTS[variant], "train.precision=bf16", "train.compile=on")
    train_recipe(recipe, tmp_path / "unbroken", Machine(threads=1))
    monkeypatch.setattr(run, "train", until_killed(5))
    with pytest.raises(Killed):
        train_recipe(recipe, tmp_path / "killed", Machine(threads=1))
    monkeypatch.undo()
    train_recipe(recipe, tmp_path / "killed", Machine(threads=1), resume=True)
    assert RunFolder.open(tmp_path / "killed").environment["numerics"]["compiled"]
    assert outcome(tmp_path / "killed") == outcome(tmp_path / "unbroken")
