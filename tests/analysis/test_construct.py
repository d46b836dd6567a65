"""The solution by construction is a deeper network with the same function (claim C10)."""

import pytest
import torch

from reslearn.analysis import construct
from reslearn.models import build


@pytest.mark.parametrize(("shallow", "deep"), [("plain8", "plain32"), ("resnet8", "resnet20")])
def test_the_constructed_network_has_the_function_of_the_shallow_one(
    shallow: str, deep: str
) -> None:
    net = build(shallow, num_classes=10, in_channels=1)
    batches = [(torch.randn(50, 1, 8, 8), torch.randint(10, (50,))) for _ in range(2)]
    for x, _ in batches:
        net.train()(x)  # running statistics differ from their initial values
    built = construct(net, deep, batches)
    assert built.is_unchanged
    assert built.constructed == deep
    assert built.num_images == 100
    assert built.constructed_loss == pytest.approx(built.shallow_loss, rel=1e-4)


def test_a_network_of_another_kind_is_refused() -> None:
    with pytest.raises(ValueError, match="not of the family"):
        construct(build("plain8", num_classes=10), "resnet20", [])
