"""Preprocessing of given weights is only called theirs where it is known; a guess is named so."""

import json
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from reslearn import models, recipes
from reslearn.data import Preprocess, load
from reslearn.interop import dialect_named, identify, preprocess_origin, to_bytes, write_weights
from reslearn.train.initial_weights import InitialWeights, load_initial_weights

Make = Callable[..., Path]
SIZE = 16


@pytest.fixture(scope="module")
def network() -> models.Network:
    torch.manual_seed(0)
    return models.build("resnet18", num_classes=3, shortcut="B")


def start(folder: Path, source: Path, *overrides: str) -> InitialWeights:
    dataset = load(folder, size_px=SIZE)
    settings = [f'data.name="{folder}"', "model.name=resnet18", f'init.source="{source}"']
    recipe = recipes.load("cifar-paper", overrides=[*settings, *overrides])
    network = models.build("resnet18", num_classes=3, shortcut="B")
    return load_initial_weights(recipe, network, dataset, None, has_checkpoint=False)


def test_the_preprocessing_of_a_foreign_file_is_a_guess(
    network: models.Network, make_pictures: Make, tmp_path: Path
) -> None:
    folder = make_pictures(tmp_path / "pictures", train=3, test=1)
    path = tmp_path / "mine.pth"
    write_weights(network, path, dialect_named("torchvision"))
    assert preprocess_origin(identify(path)) == "assumed"
    with pytest.warns(
        UserWarning, match=r"not recorded\. As a guess, the preprocessing of published torchvis"
    ):
        initial = start(folder, path)
    assert initial.record["preprocess_origin"] == "assumed"
    assert initial.preprocess is not None
    # The user knows better than a guess.
    with pytest.warns(UserWarning, match="its preprocessing is unknown; data.mean and data.std"):
        initial = start(folder, path, "data.mean=per-channel")
    assert (initial.preprocess, initial.record["preprocess_origin"]) == (None, "unknown")


def test_the_preprocessing_of_a_bundle_is_its_own(
    network: models.Network, make_pictures: Make, tmp_path: Path
) -> None:
    folder = make_pictures(tmp_path / "pictures", train=3, test=1)
    dataset = load(folder, size_px=SIZE)
    preprocess = Preprocess.fit(dataset.train)
    path = tmp_path / "model.safetensors"
    content = to_bytes(
        network,
        spec=network.spec,
        classes=dataset.classes,
        preprocess=preprocess,
        metrics={},
        recipe_hash="0" * 8,
    )
    path.write_bytes(content)
    assert preprocess_origin(identify(path)) == "recorded"
    with warnings.catch_warnings(action="error"):
        initial = start(folder, path)  # nothing that the user has set is overridden
    assert initial.preprocess == preprocess
    with pytest.warns(UserWarning, match="its preprocessing overrides data.mean"):
        initial = start(folder, path, "data.mean=per-channel")
    assert initial.preprocess == preprocess
    assert initial.record["preprocess_origin"] == "recorded"


def test_a_stated_preprocessing_is_no_guess(
    network: models.Network, make_pictures: Make, tmp_path: Path
) -> None:
    folder = make_pictures(tmp_path / "pictures", train=3, test=1)
    path = tmp_path / "model.safetensors"
    write_weights(network, path, dialect_named("torchvision"))
    statistics = {"mean": [0.4, 0.5, 0.6], "std": [0.2, 0.2, 0.2]}
    (tmp_path / "config.json").write_text(json.dumps({"pretrained_cfg": statistics}))
    with warnings.catch_warnings(action="error"):
        initial = start(folder, path)
    assert initial.record["preprocess_origin"] == "stated"
    with pytest.warns(UserWarning, match="its preprocessing overrides data.mean"):
        start(folder, path, "data.mean=per-channel")


def test_a_published_name_has_published_statistics(network: models.Network, tmp_path: Path) -> None:
    path = tmp_path / "resnet18.pth"
    write_weights(network, path, dialect_named("torchvision"))
    assert preprocess_origin(identify(path), source="torchvision:resnet18") == "published"
