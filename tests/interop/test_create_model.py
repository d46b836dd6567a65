"""create_model, list_models, save_pretrained, from_pretrained and Backbone."""

from pathlib import Path

import pytest
import torch

from reslearn import models
from reslearn.interop import (
    WeightsError,
    create_model,
    from_pretrained,
    list_models,
    load_network,
    save_pretrained,
)
from reslearn.models import Backbone, Network


def test_create_list_save_and_load_models(tmp_path: Path, weights: Path) -> None:
    assert "wrn28_10" in list_models("wrn*") and "timm:resnet50.a1_in1k" in list_models(
        "timm:*", pretrained=True
    )
    net = create_model("resnet8", pretrained=str(weights), num_classes=3, in_channels=1)
    assert isinstance(net, Network) and (
        net.num_classes,
        net.spec["in_channels"],
        net.spec["shortcut"],
    ) == (3, 1, "B")
    x = torch.randn(2, 1, 16, 16)
    assert torch.equal(net.head(net.forward_features(x)), net(x))
    net.reset_classifier(7)
    assert net(x).shape == (2, 7) and net.spec["num_classes"] == 7
    loaded = from_pretrained(save_pretrained(net, tmp_path / "folder"))
    assert torch.equal(loaded(x), net(x))
    assert sorted(path.name for path in (tmp_path / "folder").iterdir()) == [
        "config.json",
        "model.safetensors",
    ]
    split = models.build("resnet8", num_classes=3, in_channels=1, zero_pad="split").eval()
    for source in (
        save_pretrained(split, tmp_path / "split"),
        tmp_path / "split" / "model.safetensors",
    ):
        assert torch.equal(load_network(source)(x), split(x)), (
            "the file records switches that weights do not show"
        )
        assert torch.equal(
            create_model("resnet8", pretrained=str(source), in_channels=1)(x), split(x)
        )
    config = tmp_path / "folder" / "config.json"
    for text, message in {
        "[]": "not a folder that save_pretrained wrote",
        "[" * 100_000: "not a folder that save_pretrained wrote",
        '{"model": {"name": "wrn9994_64", "num_classes": 7}}': "not enough for wrn9994_64",
        '{"model": {"name": "wrn10_64", "num_classes": 7}}': "does not hold the wrn10_64",
    }.items():
        config.write_text(text)
        with pytest.raises(WeightsError, match=message) as raised:
            from_pretrained(tmp_path / "folder")
        assert "\n" not in str(raised.value)


def test_backbone_returns_maps_by_stage_and_freezes_batch_norm() -> None:
    net = Backbone(models.build("resnet18", num_classes=2))
    frozen = Backbone(models.build("resnet8", num_classes=2), stages=("stage2", "stage3")).train()
    x = torch.randn(2, 3, 16, 16)
    before = {name: tensor.clone() for name, tensor in frozen.state_dict().items()}
    maps = frozen(x)
    assert {name: tuple(value.shape[1:]) for name, value in maps.items()} == {
        "stage2": (32, 8, 8),
        "stage3": (64, 4, 4),
    }
    assert (frozen.channels, frozen.reductions, frozen.out_channels) == (
        {"stage2": 32, "stage3": 64},
        {"stage2": 2, "stage3": 4},
        64,
    )
    assert all(torch.equal(before[name], tensor) for name, tensor in frozen.state_dict().items())
    assert net.reductions == {"stage1": 4, "stage2": 8, "stage3": 16, "stage4": 32}
    with pytest.raises(ValueError, match="stage9"):
        Backbone(models.build("resnet8", num_classes=2), stages=("stage9",))
