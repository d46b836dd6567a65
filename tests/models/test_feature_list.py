"""Maps as a list, networks without a classifier, and names of other libraries."""

import copy
import pickle

import pytest
import torch
from torch import nn

from reslearn.models import Backbone, FeatureListNet, build, complexity

CASES = {
    "resnet18": ([64, 64, 128, 256, 512], [2, 4, 8, 16, 32], "stem.relu"),
    "resnet18d": ([64, 64, 128, 256, 512], [2, 4, 8, 16, 32], "stem.relu"),
    "resnetv2_50": ([64, 256, 512, 1024, 2048], [2, 4, 8, 16, 32], "stem.conv"),
    "resnet8": ([16, 16, 32, 64], [1, 1, 2, 4], "stem.relu"),
    "wrn10_2": ([16, 32, 64, 128], [1, 1, 2, 4], "stem.conv"),
}


@pytest.mark.parametrize("name", CASES)
def test_maps_have_the_channels_and_sides_that_feature_info_says(name: str) -> None:
    channels, reduction, stem = CASES[name]
    net = FeatureListNet(build(name, num_classes=3).eval())
    info = net.feature_info
    assert (info.channels(), info.reduction()) == (channels, reduction)
    assert info.module_name() == [stem, *(f"stage{n}" for n in range(1, len(channels)))]
    with torch.no_grad():
        maps = net(torch.randn(1, 3, 64, 64))
    assert isinstance(maps, list)
    shapes = [tuple(each.shape) for each in maps]
    sides = [64 // factor for factor in reduction]
    expected = zip(channels, sides, strict=True)
    assert shapes == [(1, number, side, side) for number, side in expected]


@pytest.mark.parametrize(
    ("out_indices", "chosen"),
    [(None, [0, 1, 2, 3]), (2, [2, 3]), ((1, 2), [1, 2]), ([-1, 0], [0, 3]), ((2, -2), [2])],
)
def test_out_indices_choose_maps_of_the_network(
    out_indices: int | list[int] | None, chosen: list[int]
) -> None:
    whole = build("resnet8", num_classes=3).eval()
    x = torch.randn(2, 3, 16, 16)
    outputs = list(whole.stages(x).values())
    net = FeatureListNet(whole, out_indices)
    assert all(
        torch.equal(actual, outputs[index]) for actual, index in zip(net(x), chosen, strict=True)
    )
    assert net.feature_info.channels() == [[16, 16, 32, 64][index] for index in chosen]
    parts = ["stem", "stage1", "stage2", "stage3"][: chosen[-1] + 1]
    assert [name for name, _ in net.named_children()] == parts, "later stages are left out"
    assert set(net.state_dict()) <= set(whole.state_dict())
    assert net.training == whole.training


@pytest.mark.parametrize("out_indices", [(), 0, 5, (4,), (-5, 1)])
def test_maps_that_do_not_exist_are_refused(out_indices: int | tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"0 \(stem\) to 3 \(stage3\)") as raised:
        FeatureListNet(build("resnet8", num_classes=3), out_indices)
    assert f"out_indices={out_indices!r}" in str(raised.value)


@pytest.mark.parametrize("name", ["resnet8", "resnet50", "wrn10_2", "plain8"])
def test_features_head_and_classifier_make_the_network(name: str) -> None:
    net = build(name, num_classes=3).eval()
    x = torch.randn(2, 3, 32, 32)
    maps = net.forward_features(x)
    pooled = net.forward_head(maps, pre_logits=True)
    assert torch.equal(net.forward_head(maps), net(x))
    assert pooled.shape == (2, net.num_features)
    assert torch.equal(net.get_classifier()(pooled), net(x))

    weights = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    net.reset_classifier(0)
    assert torch.equal(net(x), pooled)
    assert (net.num_classes, type(net.get_classifier())) == (0, nn.Identity)
    net.reset_classifier(7)
    classifier = net.get_classifier()
    assert isinstance(classifier, nn.Linear)
    assert (net(x).shape, classifier.in_features) == ((2, 7), net.num_features)
    assert not classifier.training
    kept = net.state_dict()
    assert all(
        torch.equal(kept[key], weights[key]) for key in kept if not key.startswith("head.fc")
    )


def test_a_network_without_classes_returns_pooled_features() -> None:
    net = build("resnet18", num_classes=0)
    assert net.spec["num_classes"] == net.num_classes == 0
    assert net(torch.randn(2, 3, 32, 32)).shape == (2, 512)
    with_head = complexity(build("resnet18", num_classes=10))
    assert complexity(net).parameters == with_head.parameters - 5130
    assert [name for name, _ in build(**net.spec).named_parameters()] == [
        name for name, _ in net.named_parameters()
    ]
    assert list(Backbone(net).channels.values()) == [64, 128, 256, 512]
    for wrong in (-1, True, 2.0, "3"):
        with pytest.raises(ValueError, match="whole numbers from 1, and 0"):
            build("resnet8", num_classes=wrong)  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="whole numbers from 1, and 0"):
            net.reset_classifier(wrong)  # type: ignore[arg-type]


def test_other_poolings_are_refused() -> None:
    net = build("resnet8", num_classes=3)
    net.reset_classifier(4, "avg")
    with pytest.raises(ValueError, match=r"global_pool='': .* forward_features"):
        net.reset_classifier(0, "")
    assert net.num_classes == 4


def test_names_of_other_libraries_say_what_to_use() -> None:
    net = build("resnet8", num_classes=3)
    for name, hint in {
        "fc": "reset_classifier",
        "layer4": "stage1",
        "conv1": "stem",
        "save_pretrained": r"reslearn.interop.save_pretrained\(network, folder\)",
        "feature_info": "features_only=True",
        "set_grad_checkpointing": "checkpoint_activations=True",
    }.items():
        with pytest.raises(AttributeError, match=f"{name}.*{hint}"):
            getattr(net, name)
        assert not hasattr(net, name)
    with pytest.raises(AttributeError, match="reset_classifier"):
        net.fc = nn.Linear(64, 5)
    assert [name for name, _ in net.named_children()][-1] == "head", "nothing follows the head"
    with pytest.raises(AttributeError, match="no attribute 'something'"):
        _ = net.something
    x = torch.randn(2, 3, 16, 16)
    net.eval()
    for copied in (copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
        assert torch.equal(copied(x), net(x))
