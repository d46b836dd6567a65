"""A batch of one image has no variance on a map of one pixel: the setting is named, not torch."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from reslearn import models
from reslearn.train.batch_norm import check_values_per_channel

Make = Callable[..., Path]
Run = Callable[..., tuple[int, str, str]]


def test_train_batch_size_is_named_before_a_file_is_written(
    make_pictures: Make, reslearn: Run, tmp_path: Path
) -> None:
    folder = make_pictures(tmp_path / "pictures", train=3, validation=1, test=1)
    flags = ["--model", "resnet18", "--set", "data.size_px=32", "--epochs", "1", "--recipe"]
    out = tmp_path / "run"
    status, _, errors = reslearn(
        "train", folder, *flags, "imagenet-smoke", "--batch-size", 1, "--out", out
    )
    assert status == 2
    assert errors.splitlines()[-1].startswith(
        "reslearn: train.batch_size = 1: batch norm sees one image at a time, and at "
        "data.size_px = 32 some maps have one pixel"
    )
    assert not out.exists()


def test_only_where_there_is_a_single_value() -> None:
    with torch.device("meta"):
        network = models.build("resnet18", num_classes=3)
    small, large = (3, 32, 32), (3, 64, 64)
    check_values_per_channel(network, large, batch_size=1, num_parts=1)
    check_values_per_channel(network, small, batch_size=2, num_parts=1)
    with pytest.raises(ValueError, match=r"^train.batch_size = 4 in 4 parts: .* to 8 or more"):
        check_values_per_channel(network, small, batch_size=4, num_parts=4)
