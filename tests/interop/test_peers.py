"""Networks compute the same logits and gradients as torchvision's and timm's own networks.

Weights and statistics are random. Both modes are compared, evaluation and training. The tests need
`make peers` and are skipped without it.

Bounds are relative to the largest value: 1e-5 in float32, and 1e-11 in float64, which is the
rounding error of about a hundred layers.
"""

import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from reslearn import models
from reslearn.interop import (
    Checkpoint,
    Identity,
    StoredTensor,
    create_model,
    identify_checkpoint,
    list_models,
    load_weights,
)
from reslearn.models import Backbone, FeatureListNet

sys.path.insert(0, str(Path(__file__).parent))
from benchmarks import peers

pytestmark = pytest.mark.skipif(not peers.installed(), reason=peers.REASON)
QUICK = ["torchvision:resnet18", "timm:resnet18d", "timm:resnetv2_18"]
LARGE = [
    *(
        f"torchvision:{name}"
        for name in (
            "resnet34",
            "resnet50",
            "resnet101",
            "resnet152",
            "resnext50_32x4d",
            "resnext101_32x8d",
        )
    ),
    *(
        f"torchvision:{name}"
        for name in ("resnext101_64x4d", "wide_resnet50_2", "wide_resnet101_2")
    ),
    *(
        f"timm:{name}"
        for name in (
            "resnet50",
            "resnet34d",
            "resnet50d",
            "resnet101d",
            "resnet152d",
            "resnetv2_34",
            "resnetv2_50",
        )
    ),
    *(f"timm:{name}" for name in ("resnetv2_101", "resnetv2_152", "resnext101_32x4d")),
]


def peer(name: str) -> nn.Module:
    """Return a network of another project with 10 classes, in float64."""
    project, _, network = name.partition(":")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # warnings of other projects are not ours to fix
        if project == "timm":
            import timm

            net: nn.Module = timm.create_model(network, num_classes=10)
        else:
            import torchvision

            net = torchvision.models.get_model(network, num_classes=10)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.weight.data, module.running_var):
                tensor.uniform_(0.5, 1.5)
            for tensor in (module.bias.data, module.running_mean):
                tensor.uniform_(-0.2, 0.2)
    return net.double()


def load_into_ours(net: nn.Module) -> tuple[models.Network, Identity]:
    """Identify the state dict of a foreign network and load it into the network of the catalog."""
    state = net.state_dict()
    stored = {
        key: StoredTensor(shape=tuple(value.shape), dtype=value.dtype, read=value.clone)
        for key, value in state.items()
    }
    identity = identify_checkpoint(
        Checkpoint(path=peers.ROOT, container="state", entries={"": stored})
    )
    ours = models.build(**identity.spec, num_classes=10).double()
    report = load_weights(ours, identity)
    assert (report.left_initialized, report.unused) == ((), ())
    return ours, identity


def check(name: str) -> None:
    foreign = peer(name)
    net, identity = load_into_ours(foreign)
    names = [(key, identity.names[key]) for key, _ in net.named_parameters()]
    for dtype, bound in ((torch.float64, 1e-11), (torch.float32, 1e-5)):
        x = torch.randn(2, 3, 64, 64, dtype=dtype)
        for training in (False, True):
            expected = run(foreign.to(dtype).train(training), x, [key for _, key in names])
            actual = run(net.to(dtype).train(training), x, [key for key, _ in names])
            keys = ["logits", "image", *(key for key, _ in names)]
            for key, wanted, value in zip(keys, expected, actual, strict=True):
                error = (wanted - value.reshape(wanted.shape)).abs().max()
                difference = float(error / wanted.abs().max())
                assert difference <= bound, (
                    f"{name}, {key}, {dtype}, training {training}: {difference}"
                )


def run(net: nn.Module, x: torch.Tensor, names: list[str]) -> list[torch.Tensor]:
    """Return logits, and the gradients of the sum of their squares.

    The gradients are by the image and by the parameters of these names.
    """
    x = x.clone().requires_grad_()
    logits = net(x)
    parameters = dict(net.named_parameters())
    return [
        logits.detach(),
        *torch.autograd.grad(logits.square().sum(), [x, *(parameters[name] for name in names)]),
    ]


@pytest.mark.parametrize("name", QUICK)
def test_logits_and_gradients_agree(name: str) -> None:
    check(name)


@pytest.mark.slow
@pytest.mark.parametrize("name", LARGE)
def test_logits_and_gradients_of_large_networks_agree(name: str) -> None:
    check(name)


def test_torchvisions_feature_pyramid_accepts_our_backbone() -> None:
    from torchvision.ops import FeaturePyramidNetwork

    backbone = Backbone(models.build("resnet18", num_classes=1))
    maps = FeaturePyramidNetwork(list(backbone.channels.values()), 8)(
        backbone(torch.randn(1, 3, 64, 64))
    )
    assert {name: tuple(value.shape) for name, value in maps.items()} == {
        "stage1": (1, 8, 16, 16),
        "stage2": (1, 8, 8, 8),
        "stage3": (1, 8, 4, 4),
        "stage4": (1, 8, 2, 2),
    }


@pytest.mark.parametrize("name", ["resnet18", "resnet18d", "resnetv2_18"])
def test_features_and_head_are_those_of_timm(name: str) -> None:
    foreign = peer(f"timm:{name}").eval()
    net, _ = load_into_ours(foreign)
    net.eval()
    from timm.models import FeatureListNet as TimmFeatureListNet

    x = torch.randn(2, 3, 64, 64, dtype=torch.float64)
    maps = net.forward_features(x)
    torch.testing.assert_close(maps, foreign.forward_features(x))
    for pre_logits in (False, True):
        expected = foreign.forward_head(maps, pre_logits=pre_logits)
        torch.testing.assert_close(net.forward_head(maps, pre_logits=pre_logits), expected)
    assert net.num_features == foreign.num_features
    for out_indices in ((0, 1, 2, 3, 4), (1, -1), 2):
        theirs = TimmFeatureListNet(foreign, out_indices, flatten_sequential="v2" in name)
        ours = FeatureListNet(net, out_indices)
        for actual, expected in zip(ours(x), theirs(x), strict=True):
            torch.testing.assert_close(actual, expected)
        assert ours.feature_info.channels() == theirs.feature_info.channels()
        assert ours.feature_info.reduction() == theirs.feature_info.reduction()
    for model in (net, foreign):
        model.reset_classifier(0)
        assert isinstance(model.get_classifier(), nn.Identity)
        torch.testing.assert_close(model(x), net.forward_head(maps, pre_logits=True))
        model.reset_classifier(7)
        assert model(x).shape == (2, model.num_classes) == (2, 7)


@pytest.mark.parametrize(
    "options",
    [
        {"num_classes": 0},
        {"in_chans": 1, "num_classes": 5},
        {"features_only": True},
        {"features_only": True, "out_indices": (2, 4), "in_chans": 4},
    ],
    ids=str,
)
def test_create_model_takes_the_arguments_of_timm(options: dict[str, Any]) -> None:
    peer("timm:resnet18")  # imports timm without its warnings
    import timm

    x = torch.randn(2, options.get("in_chans", 3), 64, 64)
    shapes = []
    for create in (timm.create_model, create_model):
        outputs = create("resnet18", False, **options).eval()(x)
        maps = outputs if isinstance(outputs, list) else [outputs]
        shapes.append((type(outputs), [each.shape for each in maps]))
    assert shapes[0] == shapes[1]
    patterns = ["resnet50*", "resnext50*"]
    assert set(list_models(patterns)) <= set(timm.list_models(patterns))
