"""`reslearn study` reports an impossible training once, before anything is trained."""

from collections.abc import Callable
from pathlib import Path

import pytest

from reslearn.runs import RunFolder
from reslearn.study import study_from

Run = Callable[..., tuple[int, str, str]]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--models", "resnet8,foo"], "unknown model 'foo'"),
        (
            ["--models", "resnet8,plain8", "--set", "model.zero_init=true"],
            "plain8 has no shortcuts",
        ),
        (
            ["--models", "resnet8", "--set", "data.validation_images=5000"],
            "validation_images = 5000: digits has 1437",
        ),
        (
            ["--models", "resnet8", "--set", "train.batch_size=100000"],
            "with 1,437 images in batches of 100,000 these are the steps 1, 1",
        ),
        (["--models", "resnet8", "--data", "no-such-folder"], "no-such-folder"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_an_impossible_training_is_one_line_status_2_and_no_file(
    arguments: list[str],
    message: str,
    reslearn: Run,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    status, output, errors = reslearn("study", "--seeds", "1", "--recipe", "digits", *arguments)
    assert (status, output, errors.count("\n")) == (2, "", 1)
    assert message in errors
    assert list(tmp_path.iterdir()) == []


def test_a_study_of_diverged_runs_says_so_and_does_not_train_them_again(
    reslearn: Run, tmp_path: Path
) -> None:
    values = {"models": ["plain8", "resnet8"], "seeds": 1, "recipe": "digits"}
    jobs = study_from(values, source="here").jobs(tmp_path)
    for job in jobs:
        run = RunFolder.create(job.folder, job.recipe.to_dict(), {})
        run.finish_diverged(20, "the loss is nan")
    command = ("study", "--models", "plain8,resnet8", "--seeds", "1", "--recipe", "digits")
    assert reslearn(*command, "--out", tmp_path) == (
        1,
        "0 of 2 runs complete, 2 diverged\n"
        "plain8-seed0: diverged: the loss is nan\n"
        "resnet8-seed0: diverged: the loss is nan\n"
        "diverged runs are not trained again: change the recipe and choose another --out\n",
        "",
    )
    result = {"train_top1_error_pct": 5.0, "test_top1_error_pct": 6.0, "steps": 20, "seconds": 1.0}
    RunFolder(jobs[0].folder).finish(result)
    status, output, _ = reslearn(*command, "--out", tmp_path)
    assert status == 1
    assert "1 of 2 runs complete, 1 of them before, 1 diverged" in output
    assert "0, 1 diverged" in output
