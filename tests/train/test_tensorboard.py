"""TensorBoard files hold the numbers of metrics.jsonl; a missing extra is reported."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from reslearn.recipes import Recipe
from reslearn.runs import RunFolder
from reslearn.train import Machine, train_recipe

Small = Callable[..., Recipe]


def test_event_files_of_a_resumed_run_hold_all_metrics(small: Small, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    recipe = small(
        "evaluation.test_curve=true", "schedule.kind=step", 'schedule.milestones=["5 steps"]'
    )
    train_recipe(recipe, tmp_path, Machine(threads=1), tensorboard=True)
    folder = RunFolder.open(tmp_path)
    (tmp_path / "result.json").unlink()
    folder.checkpoints()[-1].unlink()  # as if the run was killed after step 10
    train_recipe(recipe, tmp_path, Machine(threads=1), resume=True, tensorboard=True)
    events = EventAccumulator(str(tmp_path))
    events.Reload()
    for kind, names in (
        ("train", ("loss", "top1_error_pct")),
        ("test", ("loss", "top1_error_pct")),
    ):
        for name in names:
            scalars = [(event.step, event.value) for event in events.Scalars(f"{kind}/{name}")]
            assert scalars == [
                (line["step"], pytest.approx(line[name], rel=1e-6)) for line in folder.metrics(kind)
            ]
    rates = {(event.step, event.value) for event in events.Scalars("train/lr")}
    assert sorted(rates) == [
        (step, pytest.approx(0.05 if step <= 5 else 0.005)) for step in (1, 3, 5, 6, 9, 11)
    ]


def test_missing_extra_is_reported_before_training(
    small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(
        ValueError,
        match=r"--tensorboard needs an extra .*: run pip install 'reslearn\[tensorboard\]'",
    ):
        train_recipe(small(), tmp_path / "run", tensorboard=True)
    assert not (tmp_path / "run").exists()
