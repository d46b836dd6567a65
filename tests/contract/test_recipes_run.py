"""Every recipe of the package trains a small network for two steps through the command line."""

import json
import pickle
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from reslearn import recipes
from reslearn.cli import commands
from reslearn.interop import read_bundle
from reslearn.runs import RunFolder

IMAGES_PER_FILE = 12


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory, make_pictures: Callable[..., Path]) -> Path:
    """Write a small CIFAR-10 of noise and small image folders, in their published layouts."""
    parent = tmp_path_factory.mktemp("data")
    make_pictures(parent / "ILSVRC2012", classes=("n01440764", "n01443537"), train=8, val=2)
    for name in ("clothing", "photos"):
        make_pictures(parent / name, train=4, validation=2, test=2)
    folder = parent / "cifar-10-batches-py"
    folder.mkdir()
    random = np.random.default_rng(0)
    for name in (*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"):
        planes = random.integers(0, 256, (IMAGES_PER_FILE, 3072), dtype=np.uint8)
        labels = random.integers(0, 10, IMAGES_PER_FILE).tolist()
        (folder / name).write_bytes(pickle.dumps({b"data": planes, b"labels": labels}, protocol=2))
    names = [f"kind{label}".encode() for label in range(10)]
    (folder / "batches.meta").write_bytes(pickle.dumps({b"label_names": names}, protocol=2))
    return parent


@pytest.mark.parametrize("name", recipes.names())
def test_two_steps_of_every_recipe(
    name: str,
    data_dir: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    small = [
        "--set",
        "schedule.duration=2 steps",
        "--set",
        "train.batch_size=8",
        "--set",
        "evaluation.recompute_images=16",
    ]
    recipe = recipes.load(name)
    if isinstance(recipe.schedule, recipes.Stepwise):
        small += ["--set", 'schedule.milestones=["1 step"]']
    if recipe.data.jitter is not None:
        small += ["--set", "data.size_px=16", "--workers", "0"]
    if recipe.data.validation_images:
        small += ["--set", "data.validation_images=4"]
    flags = [
        "--recipe",
        name,
        "--model",
        "resnet8",
        *small,
        "--data-dir",
        str(data_dir),
        "--out",
        str(tmp_path / "run"),
        "--json",
    ]
    monkeypatch.setattr(sys, "argv", ["reslearn", "train", *flags])
    monkeypatch.setattr("warnings.showwarning", None)  # restored afterwards, since main sets it
    with pytest.raises(SystemExit) as ended:
        commands.main()
    assert ended.value.code == 0
    result = json.loads(capsys.readouterr().out)
    folder = RunFolder.open(tmp_path / "run")
    assert folder.result == {key: value for key, value in result.items() if key != "out"}
    assert (result["steps"], result["images"]) == (2, 16)
    bundle = read_bundle(folder.bundle_path)
    assert bundle.recipe_hash == recipes.recipe_hash(folder.recipe)
    assert bundle.network.name == "resnet8"
