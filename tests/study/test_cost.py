"""The planned cost of a training is close to the counted multiply-adds."""

import pytest

from reslearn.models import build, complexity
from reslearn.paper.numbers import numbers
from reslearn.recipes import load
from reslearn.study import forward_macs, training_macs


@pytest.mark.parametrize(
    ("model", "size_px"), [("resnet20", 32), ("plain56", 32), ("resnet110", 32), ("resnet56", 16)]
)
def test_macs_of_cifar_networks_equal_the_counted_macs(model: str, size_px: int) -> None:
    counted = complexity(build(model, num_classes=10), (3, size_px, size_px)).macs
    assert forward_macs(model, size_px) == pytest.approx(counted, rel=1e-3)


@pytest.mark.parametrize("model", ["resnet18", "resnet34", "resnet101"])
def test_macs_of_imagenet_networks_are_the_printed_ones(model: str) -> None:
    assert forward_macs(model, 224) == numbers("table1")[model] * 1e9


def test_a_training_costs_three_passes_over_all_images() -> None:
    recipe = load("cifar-paper", overrides=["model.name=resnet20", "schedule.duration=100 steps"])
    images = 100 * recipe.train.batch_size
    assert training_macs(recipe) == 3 * forward_macs("resnet20", 32) * images
