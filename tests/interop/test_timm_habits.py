"""Calls that users of timm, torchvision and torch.hub know: they work, or say what to type."""

import runpy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from reslearn import models
from reslearn.interop import (
    WeightsError,
    create_model,
    dialect_named,
    from_pretrained,
    list_models,
    load_network,
    save_pretrained,
    write_weights,
)
from reslearn.interop import create as create_module
from reslearn.models import FeatureListNet, Network, UnknownModelError

ROOT = Path(__file__).parents[2]


def network(*arguments: Any, **options: Any) -> Network:
    """Return `create_model(...)`, which must be a network with a head."""
    net = create_model(*arguments, **options)
    assert isinstance(net, Network)
    return net


def test_pretrained_is_the_second_argument(weights: Path) -> None:
    net = network("resnet8", str(weights))
    assert torch.equal(net.get_classifier().weight, load_network(weights).get_classifier().weight)
    assert torch.equal(network("resnet8", weights).stem.conv.weight, net.stem.conv.weight)
    assert not torch.equal(network("resnet8", False).stem.conv.weight, net.stem.conv.weight)
    assert not torch.equal(network("resnet8", None).stem.conv.weight, net.stem.conv.weight)


def test_in_chans_means_in_channels(weights: Path) -> None:
    assert network("resnet8", in_chans=1).spec["in_channels"] == 1
    assert network("resnet8", in_chans=None).spec["in_channels"] == 3
    gray, color = network("resnet8", str(weights), in_chans=1), network("resnet8", str(weights))
    x = torch.randn(2, 1, 16, 16)
    torch.testing.assert_close(gray(x), color(x.expand(-1, 3, -1, -1)))


def test_num_classes_0_loads_weights_without_their_head(weights: Path, tmp_path: Path) -> None:
    net, with_head = network("resnet8", str(weights), num_classes=0), load_network(weights)
    x = torch.randn(2, 3, 16, 16)
    features = with_head.forward_head(with_head.forward_features(x), pre_logits=True)
    assert torch.equal(net(x), features)
    assert torch.equal(load_network(weights, num_classes=0)(x), features)
    assert network("resnet8", num_classes=0).num_classes == 0

    folder = save_pretrained(net, tmp_path / "features")
    for loaded in (from_pretrained(folder), load_network(folder, num_classes=0)):
        assert loaded.num_classes == 0
        assert torch.equal(loaded(x), features)
    with pytest.raises(WeightsError, match="num_classes=0"):
        load_network(folder)
    write_weights(net, tmp_path / "backbone.pth", dialect_named("cifar-fc"))
    assert torch.equal(load_network(tmp_path / "backbone.pth", num_classes=0)(x), features)


def test_features_only_returns_a_list(weights: Path) -> None:
    net = create_model("resnet8", str(weights), features_only=True, out_indices=(1, 3))
    assert isinstance(net, FeatureListNet)
    stages = load_network(weights).stages(torch.ones(1, 3, 16, 16))
    maps = net(torch.ones(1, 3, 16, 16))
    assert [torch.equal(a, stages[b]) for a, b in zip(maps, ("stage1", "stage3"), strict=True)] == [
        True,
        True,
    ]
    with pytest.raises(ValueError, match=r"out_indices=\(1,\): pass features_only=True"):
        create_model("resnet8", out_indices=(1,))


def test_list_models_takes_several_patterns() -> None:
    assert list_models(["resnet50*", "wrn28*"]) == ["resnet50", "resnet50d", "wrn28_10"]
    assert list_models(("plain8", "plain8", "none")) == ["plain8"]
    assert "resnet20" in list_models()
    names = list_models("resnet50.a1*", pretrained=True)
    assert names == ["timm:resnet50.a1_in1k", "timm:resnet50.a1h_in1k"]
    assert list_models(["timm:resnet50.a1_in1k"], pretrained=True) == names[:1]


@pytest.mark.parametrize(
    ("name", "architecture", "source"),
    [
        ("resnet50.a1_in1k", "resnet50", "timm:resnet50.a1_in1k"),
        ("timm:resnet18d.ra2_in1k", "resnet18d", "timm:resnet18d.ra2_in1k"),
        ("torchvision:resnet18", "resnet18", "torchvision:resnet18"),
        ("resnet18", "resnet18", "torchvision:resnet18"),
    ],
)
def test_names_of_weights_are_names_of_models(
    name: str, architecture: str, source: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert network(name, num_classes=2).name == architecture
    monkeypatch.setattr(create_module, "identify", lambda text, entry: text)
    monkeypatch.setattr(create_module, "_build_pretrained", lambda *options: options[:2])
    assert create_model(name, True) == (architecture, source)


def test_arguments_of_other_libraries_say_what_to_pass() -> None:
    for argument, hint in {
        "weights": "pretrained='torchvision:resnet50'",
        "checkpoint_path": "pretrained='model.pth'",
        "global_pool": "forward_features",
        "feature_cls": "Backbone",
        "drop_rate": "no dropout",
    }.items():
        with pytest.raises(ValueError, match=f"{argument}.*{hint}"):
            create_model("resnet18", **{argument: "x"})  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="unknown switch 'shortcuts'"):
        create_model("resnet18", shortcuts="B")


def test_a_hub_id_is_called_a_hub_id(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, weights: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    for text, advice in {
        "microsoft/resnet-50": "if that is a hub id: offline, give a folder",
        "hf-hub:microsoft/resnet-50": "that is a hub id: offline, give a folder",
        "hf_hub:microsoft/resnet-50": "hf download microsoft/resnet-50 --local-dir resnet-50",
        "https://huggingface.co/microsoft/resnet-50": "that is a hub id",
        "timm/resnet50.a1_in1k": "pass timm:resnet50.a1_in1k",
        "hf-hub:timm/resnet50.a1_in1k": "pass timm:resnet50.a1_in1k",
    }.items():
        for load in (load_network, create_model, from_pretrained):
            with pytest.raises(WeightsError) as raised:
                load(text)
            message = str(raised.value)
            assert message.startswith(text) and advice in message and "\n" not in message
        with pytest.raises(WeightsError, match="hub id"):
            create_model("resnet50", pretrained=text)
    for text in ("models/best.pth", "a/b/c", "microsoft"):
        with pytest.raises(WeightsError) as raised:
            load_network(text)
        assert "hub" not in str(raised.value)
    (tmp_path / "microsoft").mkdir()  # now it is a folder of this machine
    with pytest.raises(WeightsError, match="No such file"):
        load_network("microsoft/resnet-50")
    with pytest.raises(UnknownModelError):
        create_model("resnet21")
    with pytest.raises(WeightsError, match=r"load_network\('foreign.pth'\)"):
        create_model(weights.name)


def test_torch_hub_finds_every_name() -> None:
    load = torch.hub.load
    net = load(str(ROOT), "resnet18", source="local", num_classes=3, shortcut="B")
    assert isinstance(net.get_classifier(), nn.Linear)
    assert (net.name, net.num_classes) == ("resnet18", 3)
    assert load(str(ROOT), "create_model", "resnet8", source="local").name == "resnet8"
    functions = runpy.run_path(str(ROOT / "hubconf.py"))
    public = {name for name in functions if callable(functions[name]) and name[0] != "_"}
    assert public == {*models.names(), "create_model", "list_models"}, (
        "as torch.hub.list lists them"
    )
    assert "pooled features" in functions["resnet50"].__doc__
    with pytest.raises(ValueError, match=r"weights.*pretrained='torchvision:resnet50'"):
        load(str(ROOT), "resnet50", source="local", weights="IMAGENET1K_V2")
