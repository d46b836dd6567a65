"""Frozen stages, layer-wise learning rates, and class weights."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from reslearn import data, models, recipes
from reslearn.data import ImageData, Images
from reslearn.interop import read_bundle
from reslearn.recipes import Optimizer, Recipe, RecipeError
from reslearn.runs import RunFolder
from reslearn.train import Machine, train_recipe
from reslearn.train.freezing import freeze_stages, set_training_mode
from reslearn.train.images import class_weights
from reslearn.train.learning_rate import LearningRate, WarmUp
from reslearn.train.optimizer import build_optimizer

Small = Callable[..., Recipe]


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    network = models.build("resnet8", num_classes=10, in_channels=1)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.running_mean)
    torch.save(network.state_dict(), tmp_path / "weights.pth")
    return tmp_path / "weights.pth"


@pytest.mark.filterwarnings("ignore:.*its preprocessing is unknown")
def test_frozen_stages_keep_weights_and_statistics(
    small: Small, weights: Path, tmp_path: Path
) -> None:
    recipe = small(f"init.source={weights}", "init.frozen_stages=2", "train.ema=0.9")
    train_recipe(recipe, tmp_path / "run", Machine(threads=1))
    before = torch.load(weights, weights_only=True)
    bundle = read_bundle(RunFolder.open(tmp_path / "run").bundle_path)
    after = bundle.network.state_dict()
    for name, value in before.items():
        is_frozen = name.split(".")[0] in ("stem", "stage1", "stage2")
        if value.is_floating_point():
            # An average of equal weights differs from them by rounding.
            is_same = torch.allclose(after[name], value, atol=1e-6)
            assert is_same == is_frozen, name


def test_frozen_parts_stay_in_evaluation_mode() -> None:
    network = models.build("resnet8", num_classes=2)
    freeze_stages(network, 1)
    set_training_mode(network)
    modes = {name: module.training for name, module in network.named_children()}
    assert modes == {
        "stem": False, "stage1": False, "stage2": True, "stage3": True, "head": True
    }  # fmt: skip
    with pytest.raises(ValueError, match="resnet8 has 3 stages"):
        freeze_stages(network, 4)


def test_rates_fall_towards_the_input() -> None:
    network = models.build("resnet8", num_classes=2)
    freeze_stages(network, 1)
    config = Optimizer(lr=0.1, decay="weights")
    optimizer = build_optimizer(network, config, layer_lr_decay=0.5)
    rates: dict[str, float] = {}
    for group in optimizer.param_groups:
        for name, parameter in network.named_parameters():
            if any(parameter is member for member in group["params"]):
                rates.setdefault(name.split(".")[0], group["lr"])
                assert rates[name.split(".")[0]] == group["lr"]
                assert group["weight_decay"] == (1e-4 if parameter.ndim > 1 else 0)
    assert rates == {"head": 0.1, "stage3": 0.05, "stage2": 0.025}
    assert optimizer.param_groups[0]["lr"] == 0.1  # the rate that a log shows
    LearningRate(warm_up=WarmUp(lr=0.01, error_pct=80)).apply(optimizer, 0)
    assert {group["lr"] for group in optimizer.param_groups} == {0.01, 0.005, 0.0025}


def test_one_group_of_rates_without_decay_as_before() -> None:
    network = models.build("resnet8", num_classes=2)
    assert len(build_optimizer(network, Optimizer()).param_groups) == 1


def test_muon_refuses_layer_rates() -> None:
    with pytest.raises(RecipeError, match=r"init\.layer_lr_decay needs optimizer\.name"):
        recipes.load("cifar-fast", overrides=["init.source=a.pth", "init.layer_lr_decay=0.5"])


def images_of(*counts: int) -> ImageData:
    labels = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    pixels = torch.zeros(len(labels), 4, 4, 3, dtype=torch.uint8)
    images = Images(pixels, labels)
    classes = tuple(f"class {number}" for number in range(len(counts)))
    return data.ImageData(
        name="drawn", classes=classes, train=images, test=images, fingerprint="none"
    )


def test_balanced_classes_have_the_same_weight_in_the_loss() -> None:
    weights = class_weights(images_of(1, 0, 3, 6))
    assert weights.tolist() == pytest.approx([10 / 3, 0, 10 / 9, 10 / 18])
    counts = torch.tensor([1, 0, 3, 6])
    assert (weights * counts).tolist() == pytest.approx([10 / 3, 0, 10 / 3, 10 / 3])


def test_class_weights_change_a_training(small: Small, tmp_path: Path) -> None:
    for name in ("none", "balanced"):
        recipe = small(f"train.class_weights={name}", "schedule.duration=3 steps")
        train_recipe(recipe, tmp_path / name, Machine(threads=1))
    losses = [RunFolder.open(tmp_path / name).result["test_loss"] for name in ("none", "balanced")]
    assert losses[0] != losses[1]


def test_old_runs_keep_their_names() -> None:
    recipe = recipes.load("digits", overrides=["init.source=a.pth"]).to_dict()
    old = recipes.load("digits", overrides=["init.source=a.pth"]).to_dict()
    del old["init"]["frozen_stages"], old["init"]["layer_lr_decay"], old["train"]["class_weights"]
    assert recipes.recipe_hash(old) == recipes.recipe_hash(recipe)
