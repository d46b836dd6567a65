"""`reslearn study` reports an impossible training once, before anything is trained."""

from collections.abc import Callable
from pathlib import Path

import pytest

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
