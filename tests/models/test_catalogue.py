"""Names to networks: what is known, what is refused and how, and that a spec makes the same network again."""

import json
import warnings
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from reslearn.models import Network, UnknownModel, build, names

SWITCHES: list[dict[str, Any]] = [
    {"name": "plain8", "num_classes": 10},
    {"name": "resnet8", "num_classes": 7, "in_channels": 1, "zero_pad": "split", "subsample": "average", "checkpoint_activations": True},
    {"name": "resnet14", "num_classes": 10, "shortcut": "C", "init": "he_fan_in", "zero_init": True},
    {"name": "plain14", "num_classes": 10, "normalize": False, "init": "normal_0.01"},
    {"name": "resnet18", "num_classes": 3, "shortcut": "B"},
    {"name": "resnet50", "num_classes": 3, "stride_in": "3x3"},
]


def on_meta(name: str, **switches: Any) -> Network:
    with torch.device("meta"):
        return build(name, num_classes=10, **switches)


@pytest.mark.parametrize("switches", SWITCHES, ids=lambda switches: str(switches["name"]))
def test_a_spec_through_json_makes_the_same_network(switches: dict[str, Any]) -> None:
    torch.manual_seed(3)
    net = build(**switches)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        torch.manual_seed(3)
        again = build(**json.loads(json.dumps(net.spec)))
    assert again.spec == net.spec
    assert {key: net.spec[key] for key in switches} == switches
    ours, theirs = net.state_dict(), again.state_dict()
    assert list(ours) == list(theirs) and all(torch.equal(ours[key], theirs[key]) for key in ours)
    assert str(net) == str(again)


@settings(max_examples=8)
@given(kind=st.sampled_from(["plain", "resnet"]), n=st.integers(1, 12).filter(lambda n: n != 8))
def test_any_6n_plus_2_has_that_many_weighted_layers(kind: str, n: int) -> None:
    net = on_meta(f"{kind}{6 * n + 2}")
    assert sum(isinstance(module, (nn.Conv2d, nn.Linear)) for module in net.modules()) == 6 * n + 2
    assert sum(block.shortcut is not None for _, block in net.blocks()) == (3 * n if kind == "resnet" else 0)


@pytest.mark.parametrize("name", [name for name in names() if name != "plain1202"])
def test_a_name_says_the_number_of_weighted_layers(name: str) -> None:
    net = on_meta(name)
    weighted = [name for name, module in net.named_modules() if isinstance(module, (nn.Conv2d, nn.Linear)) and ".shortcut" not in name]
    assert len(weighted) == int(name.removeprefix("plain").removeprefix("resnet"))
    assert (net.name, net.num_classes) == (name, 10)


def test_where_both_families_have_a_depth_the_suffix_decides() -> None:
    assert len(on_meta("resnet50").blocks()) == 16
    assert len(on_meta("resnet50-cifar").blocks()) == 24
    assert len(on_meta("plain152-cifar").blocks()) == 75


def test_names_match_a_pattern() -> None:
    assert names("plain?8") == ["plain18"]
    assert names("resnet5*") == ["resnet50", "resnet56"]
    assert names("vgg*") == []


@pytest.mark.parametrize(
    ("wrong", "meant"),
    [
        ("resnet21", "resnet20"),
        ("ResNet-56", "resnet56"),
        ("plian18", "plain18"),
        ("resnet_152", "resnet152"),
        ("resnet35", "resnet34"),
        ("resnet2", "resnet8"),
        ("resnet20-cifar", "resnet20"),
        ("resnet99999998", "resnet1202"),  # 6n+2, and hours to be made
        ("resnet999999999999999999", "resnet1202"),
    ],
)
def test_an_unknown_name_is_answered_with_the_nearest(wrong: str, meant: str) -> None:
    with pytest.raises(UnknownModel, match=f"unknown model '{wrong}': did you mean '{meant}'"):
        on_meta(wrong)
    assert meant in names()


@pytest.mark.parametrize("wrong", ["", "vgg16", "20", "resnet", "résnet²"])
def test_a_foreign_name_is_answered_in_one_line(wrong: str) -> None:
    with pytest.raises(UnknownModel) as raised:
        on_meta(wrong)
    assert "\n" not in str(raised.value) and "6n+2" in str(raised.value)


@pytest.mark.parametrize(
    ("switch", "allowed"),
    [
        ({"shortcut": "D"}, "'A', 'B', 'C'"),
        ({"zero_pad": "both"}, "'append', 'split'"),
        ({"subsample": "max"}, "'slice', 'average'"),
        ({"stride_in": "1"}, "'1x1', '3x3'"),
        ({"init": "xavier"}, "'he_fan_out', 'he_fan_in', 'normal_0.01'"),
        ({"in_channels": 0}, "from 1 on"),
        ({"zero_init": True, "normalize": False}, "normalize must be True"),
    ],
)
def test_an_impossible_value_is_refused(switch: dict[str, Any], allowed: str) -> None:
    with pytest.raises(ValueError, match=allowed) as raised:
        on_meta("resnet8", **switch)
    assert next(iter(switch)) in str(raised.value)


def test_a_plain_network_cannot_start_with_its_blocks_at_zero() -> None:
    with pytest.raises(ValueError, match="plain8 has no shortcuts"):
        on_meta("plain8", zero_init=True)


@pytest.mark.parametrize(
    ("name", "switch"),
    [
        ("plain8", {"shortcut": "A"}),
        ("plain8", {"zero_pad": "split"}),
        ("resnet8", {"shortcut": "B", "subsample": "average"}),
        ("resnet8", {"stride_in": "3x3"}),
    ],
)
def test_a_setting_without_effect_warns_and_leaves_the_spec(name: str, switch: dict[str, Any]) -> None:
    key = list(switch)[-1]
    with pytest.warns(UserWarning, match=f"{key}=.* has no effect in {name}"):
        net = on_meta(name, **switch)
    assert net.spec[key] != switch[key]
