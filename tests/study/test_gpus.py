"""Shares of GPUs are found, reserved and freed. Needs no GPU."""

from pathlib import Path

import pytest

from reslearn.study import grid
from reslearn.study.engine import Gpus


def test_gpus_are_found_by_the_environment_or_by_their_devices(tmp_path: Path) -> None:
    for name in ("nvidia0", "nvidia1", "nvidiactl", "nvidia-uvm", "null"):
        (tmp_path / name).touch()
    assert Gpus.here({}, tmp_path).take(1) == "0"
    assert Gpus.here({"CUDA_VISIBLE_DEVICES": "3,GPU-5"}, tmp_path).take(1) == "3"
    assert Gpus.here({"CUDA_VISIBLE_DEVICES": ""}, tmp_path).take(1) is None


def test_shares_fill_one_gpu_before_the_next() -> None:
    gpus = Gpus(["0", "1"])
    assert [gpus.take(share) for share in (0.5, 0.3, 0.5, 0.2)] == ["0", "0", "1", "0"]
    assert gpus.has(0.5) and not gpus.has(0.6)
    gpus.give_back("0", 0.5)
    gpus.give_back("0", 0.3)
    assert gpus.has(0.8) and not gpus.has(0.9)
    # The binary sum of five tenths is not 0.5.
    assert [gpus.take(0.1) for _ in range(8)] == [*["1"] * 5, *["0"] * 3]
    assert gpus.take(0) is None


def test_without_gpus_nothing_is_reserved() -> None:
    gpus = Gpus([])
    assert gpus.has(1) and gpus.take(1) is None
    gpus.give_back(None, 1)


def test_resources_come_from_the_recipe_and_do_not_change_the_folder(tmp_path: Path) -> None:
    (plain,) = grid(models=["resnet8"], seeds=[0], recipe="digits", folder=tmp_path)
    (job,) = grid(
        models=["resnet8"],
        seeds=[0],
        recipe="digits",
        folder=tmp_path,
        overrides=[["resources.cores=2", "resources.gpus=0.25"]],
    )
    assert (plain.cores, plain.gpus, job.cores, job.gpus) == (1, 0.0, 2, 0.25)
    assert job.arguments[-2:] == ("--threads", "2")
    assert job.folder == plain.folder
    with pytest.raises(ValueError, match=r"resources\.gpus = 2"):
        grid(
            models=["resnet8"],
            seeds=[0],
            recipe="digits",
            folder=tmp_path,
            overrides=[["resources.gpus=2"]],
        )
