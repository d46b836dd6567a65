"""A run as subject of an analysis: networks by step, images, and refused runs."""

import math
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from unittest.mock import ANY

import pytest
import torch

from reslearn.analysis import Subject
from reslearn.interop.bundle import BundleError
from reslearn.runs import RunError, RunFolder, read_analysis, to_json_value, write_analysis


def test_step_0_is_rebuilt_bit_for_bit_without_a_snapshot(tiny_run: RunFolder) -> None:
    subject = Subject.open(tiny_run)
    before = torch.random.get_rng_state()
    rebuilt, kept = subject.untrained().state_dict(), subject.network(0).state_dict()
    assert torch.equal(torch.random.get_rng_state(), before)
    assert rebuilt.keys() == kept.keys()
    assert all(torch.equal(rebuilt[name], kept[name]) for name in kept)


def test_moments_are_the_snapshots_and_the_end(tiny_run: RunFolder) -> None:
    subject = Subject.open(tiny_run)
    assert subject.moments() == [0, 10, None]
    assert [subject.step_of(moment) for moment in subject.moments()] == [0, 10, 20]
    nets = [
        subject.network(moment).get_parameter("stem.conv.weight") for moment in subject.moments()
    ]
    assert not torch.equal(nets[0], nets[1]) and not torch.equal(nets[1], nets[2])
    with pytest.raises(ValueError, match=r"step 7: .* has the steps 0, 10 and the trained"):
        subject.network(7)


def test_training_images_follow_the_recipe_of_the_run(tiny_run: RunFolder) -> None:
    subject = Subject.open(tiny_run)
    assert len(subject.train) == 300
    x, y = subject.training_batch(30)
    assert x.shape == (30, 1, 8, 8)
    assert y.shape == (30,)
    assert sum(len(labels) for _, labels in subject.batches(subject.test)) == len(subject.test)


def test_incomplete_runs_are_refused(tiny_run: RunFolder, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="not a run folder"):
        Subject.open(tmp_path)
    copy = Path(shutil.copytree(tiny_run.path, tmp_path / "copy"))
    (copy / "model.safetensors").unlink()
    with pytest.raises(RunError, match="weights of this run were not saved"):
        Subject.open(copy)
    (copy / "result.json").unlink()
    with pytest.raises(RunError, match="not complete"):
        Subject.open(copy)


def test_other_images_are_refused(tiny_run: RunFolder, tmp_path: Path) -> None:
    copy = RunFolder.open(shutil.copytree(tiny_run.path, tmp_path / "copy"))
    environment = copy.environment
    environment["data"]["fingerprint"] = "0" * 16
    copy._write_environment(copy.recipe, environment)
    copy.finish(tiny_run.result)
    with pytest.raises(RunError, match="other images"):
        Subject.open(copy)


def seal(run: RunFolder, recipe: Mapping[str, Any]) -> None:
    """Complete the run again, as a run of `recipe`."""
    run._write_environment(recipe, run.environment)
    run.write_json("recipe.json", recipe)
    run.finish({"steps": 20})


def test_weights_of_another_run_are_refused(tiny_run: RunFolder, tmp_path: Path) -> None:
    copy = RunFolder.open(shutil.copytree(tiny_run.path, tmp_path / "copy"))
    seal(copy, {**copy.recipe, "seed": 4})
    with pytest.raises(BundleError, match="weights of another run"):
        Subject.open(copy)
    seal(copy, tiny_run.recipe)
    subject = Subject.open(copy)
    shutil.copyfile(tiny_run.path / "model.safetensors", copy.snapshot_path(10))
    with pytest.raises(RunError, match="is not the file that this run wrote"):
        subject.network(10)


def test_values_that_are_not_finite_become_null(tiny_run: RunFolder, tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path, tiny_run.recipe, {})
    folder.finish({})
    path = write_analysis(
        folder, "gradients", {"ratio": math.inf, "layers": ({"norm": math.nan}, 1.5)}
    )
    assert path == tmp_path / "analysis" / "gradients.json"
    assert read_analysis(folder, "gradients") == {
        "ratio": None,
        "layers": [{"norm": None}, 1.5],
        "checksum": ANY,
    }
    assert to_json_value({1: (2, -math.inf)}) == {"1": [2, None]}
