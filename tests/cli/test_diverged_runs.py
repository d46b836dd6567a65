"""Every command that is given a diverged run says that it diverged, why, and what to change."""

from collections.abc import Callable
from pathlib import Path

import pytest

from reslearn import recipes
from reslearn.runs import RunFolder

Run = Callable[..., tuple[int, str, str]]
REASON = "the loss is nan between steps 1 and 4; a lower optimizer.lr may help"
TRAIN = ("train", "digits", "--model", "resnet8", "--device", "cpu")


@pytest.fixture
def diverged(tmp_path: Path) -> RunFolder:
    recipe = recipes.load("digits", overrides=["model.name=resnet8"])
    run = RunFolder.create(tmp_path / "run", recipe.to_dict(), {})
    run.finish_diverged(5, REASON)
    return run


@pytest.mark.parametrize(
    "command",
    [
        ("analyze", "RUN", "responses"),
        ("evaluate", "RUN"),
        ("export", "RUN", "--to", "torchvision", "--out", "weights.pth"),
        ("train", "--resume", "--out", "RUN"),
        ("train", "--resume", "--dry-run", "--out", "RUN"),
        (*TRAIN, "--out", "RUN"),
        (*TRAIN, "--lr", "0.01", "--out", "RUN"),
    ],
    ids=lambda command: " ".join(command),
)
def test_a_command_on_a_diverged_run_says_why_and_what_to_change(
    command: tuple[str, ...], diverged: RunFolder, reslearn: Run
) -> None:
    arguments = [str(diverged.path) if word == "RUN" else word for word in command]
    status, output, errors = reslearn(*arguments)
    assert (status, output) == (2, "")
    assert errors == (
        f"reslearn: {diverged.path} diverged and has no result: {REASON}; "
        "train again in another --out\n"
    )


def test_the_page_of_a_diverged_run_says_that_it_diverged(
    diverged: RunFolder, reslearn: Run
) -> None:
    status, output, _ = reslearn("report", diverged.path)
    page = Path(output.strip()).read_text()
    assert status == 0
    assert "This run diverged." in page
    assert f"The run diverged, so it has no result: {REASON}." in page
    assert "not complete" not in page


def test_a_stopped_run_is_still_continued(tmp_path: Path, reslearn: Run) -> None:
    recipe = recipes.load("digits", overrides=["model.name=resnet8"])
    run = RunFolder.create(tmp_path / "a run", recipe.to_dict(), {})
    advice = f"is not complete: continue with: reslearn train --resume --out '{run.path}'"
    for command in (("analyze", run.path, "responses"), ("evaluate", run.path)):
        status, _, errors = reslearn(*command)
        assert status == 2
        assert advice in errors
