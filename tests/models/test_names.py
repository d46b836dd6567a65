"""Names of networks, errors for unknown names and values, and networks from a spec."""

import json
import warnings
from typing import Any

import pytest
import torch
import torch.fx
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from reslearn.models import Network, UnknownModelError, build, complexity, names
from reslearn.models.variants import VARIANTS, WIDE_CIFAR

SWITCHES: list[dict[str, Any]] = [
    {"name": "plain8", "num_classes": 10},
    {
        "name": "resnet8",
        "num_classes": 7,
        "in_channels": 1,
        "zero_pad": "split",
        "subsample": "average",
        "checkpoint_activations": True,
    },
    {
        "name": "resnet14",
        "num_classes": 10,
        "shortcut": "C",
        "init": "he_fan_in",
        "zero_init": True,
    },
    {"name": "plain14", "num_classes": 10, "normalize": False, "init": "normal_0.01"},
    {"name": "resnet18", "num_classes": 3, "shortcut": "B"},
    {"name": "resnet50", "num_classes": 3, "stride_in": "3x3"},
    {"name": "resnet18", "num_classes": 3, "shortcut": "B", "stem": "cifar"},
    {"name": "resnet14", "num_classes": 3, "width": 2, "preactivation": True, "shortcut": "C"},
    {
        "name": "resnet8",
        "num_classes": 3,
        "preactivation": True,
        "zero_pad": "split",
        "normalize": False,
    },
    {"name": "plain8", "num_classes": 3, "preactivation": True, "checkpoint_activations": True},
    {
        "name": "resnet50",
        "num_classes": 3,
        "groups": 2,
        "base_width": 32,
        "shortcut_pool": True,
        "stem": "deep",
    },
    {"name": "resnext50_32x4d", "num_classes": 3},
    {"name": "resnetv2_50", "num_classes": 3, "in_channels": 1},
    {"name": "wrn16_4", "num_classes": 3},
]


def on_meta(name: str, **switches: Any) -> Network:
    with torch.device("meta"):
        return build(name, num_classes=10, **switches)


@pytest.fixture(
    scope="module", params=SWITCHES, ids=[str(switches["name"]) for switches in SWITCHES]
)
def switches(request: pytest.FixtureRequest) -> dict[str, Any]:
    """Run a test for each network. Tests of one network run one after another."""
    return dict(request.param)


@pytest.fixture(scope="module")
def net(switches: dict[str, Any]) -> Network:
    torch.manual_seed(3)
    return build(**switches)


def test_a_network_recorded_by_torch_fx_computes_the_same(
    switches: dict[str, Any], net: Network
) -> None:
    net = net.eval()
    x = torch.randn(2, switches.get("in_channels", 3), 16, 16)
    with torch.no_grad():
        assert torch.equal(torch.fx.symbolic_trace(net)(x), net(x))


def test_a_spec_builds_the_same_network_after_a_json_round_trip(
    switches: dict[str, Any], net: Network
) -> None:
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
def test_any_6n_plus_2_has_6n_plus_2_weighted_layers(kind: str, n: int) -> None:
    net = on_meta(f"{kind}{6 * n + 2}")
    assert sum(isinstance(module, (nn.Conv2d, nn.Linear)) for module in net.modules()) == 6 * n + 2
    assert sum(block.shortcut is not None for _, block in net.blocks()) == (
        3 * n if kind == "resnet" else 0
    )


@pytest.mark.parametrize(
    "name", [name for name in names() if name not in {"plain1202", *VARIANTS, *WIDE_CIFAR}]
)
def test_the_number_in_a_name_is_the_number_of_weighted_layers(name: str) -> None:
    net = on_meta(name)
    weighted = [
        name
        for name, module in net.named_modules()
        if isinstance(module, (nn.Conv2d, nn.Linear)) and ".shortcut" not in name
    ]
    assert len(weighted) == int(name.removeprefix("plain").removeprefix("resnet"))
    assert (net.name, net.num_classes) == (name, 10)


def test_the_suffix_selects_the_family_if_both_have_a_depth() -> None:
    assert len(on_meta("resnet50").blocks()) == 16
    assert len(on_meta("resnet50-cifar").blocks()) == 24
    assert len(on_meta("plain152-cifar").blocks()) == 75


def test_names_match_a_pattern() -> None:
    assert names("plain?8") == ["plain18"]
    assert names("resnet5*") == ["resnet50", "resnet56", "resnet50d"]
    assert names("wrn*") == list(WIDE_CIFAR)
    assert names("vgg*") == []


@pytest.mark.parametrize(
    ("wrong", "meant"),
    [
        ("resnet21", "resnet20"),
        ("rsnet56", "resnet56"),
        ("resnet50b", "resnet50"),
        ("ResNet-56", "resnet56"),
        ("plian18", "plain18"),
        ("resnet_152", "resnet152"),
        ("resnet35", "resnet34"),
        ("resnet2", "resnet8"),
        ("resnet20-cifar", "resnet20"),
        ("resnext50", "resnext50_32x4d"),
        ("wide-resnet50-2", "wide_resnet50_2"),
        ("wrn28_100", "wrn28_10"),
        ("resnet99999998", "resnet1202"),  # a valid depth that would take hours to build
        ("resnet999999999999999999", "resnet1202"),
    ],
)
def test_the_error_for_an_unknown_name_suggests_the_nearest(wrong: str, meant: str) -> None:
    with pytest.raises(UnknownModelError, match=f"unknown model '{wrong}': did you mean '{meant}'"):
        on_meta(wrong)
    assert meant in names()


@pytest.mark.parametrize("wrong", ["", "vgg16", "20", "resnet", "résnet²"])
def test_the_error_for_an_unknown_name_is_one_line(wrong: str) -> None:
    with pytest.raises(UnknownModelError) as raised:
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
        ({"in_channels": 0}, "whole numbers from 1"),
        ({"stem": "7x7"}, "'cifar', 'imagenet', 'deep'"),
        ({"width": 1000}, "at most 64"),
        ({"width": 0}, "whole numbers from 1"),
        ({"groups": 1000, "base_width": 1000}, "at most 4096"),
        ({"zero_init": True, "preactivation": True}, "preactivation"),
        ({"zero_init": True, "normalize": False}, "normalize must be True"),
    ],
)
def test_a_value_that_is_not_allowed_is_refused(switch: dict[str, Any], allowed: str) -> None:
    with pytest.raises(ValueError, match=allowed) as raised:
        on_meta("resnet8", **switch)
    assert next(iter(switch)) in str(raised.value)


def test_zero_init_of_a_plain_network_is_refused() -> None:
    with pytest.raises(ValueError, match="plain8 has no shortcuts"):
        on_meta("plain8", zero_init=True)


@pytest.mark.parametrize(
    ("name", "switch"),
    [
        ("plain8", {"shortcut": "A"}),
        ("plain8", {"zero_pad": "split"}),
        ("resnet8", {"shortcut": "B", "subsample": "average"}),
        ("resnet8", {"stride_in": "3x3"}),
        ("resnet8", {"groups": 2}),
        ("resnet18", {"base_width": 128}),
        ("resnet8", {"shortcut_pool": True}),
        ("plain8", {"shortcut_pool": True}),
    ],
)
def test_a_switch_without_effect_warns_and_is_not_in_the_spec(
    name: str, switch: dict[str, Any]
) -> None:
    key = list(switch)[-1]
    with pytest.warns(UserWarning, match=f"{key}=.* has no effect in {name}"):
        net = on_meta(name, **switch)
    assert net.spec[key] != switch[key]


@pytest.mark.parametrize(
    ("name", "parameters", "gmacs"),
    [
        # From torchvision's weights (GMACs with 2 digits) and Table 1 of "Wide Residual Networks".
        ("resnext50_32x4d", 25_028_904, 4.23),
        ("resnext101_32x8d", 88_791_336, 16.41),
        ("resnext101_64x4d", 83_455_272, 15.46),
        ("wide_resnet50_2", 68_883_240, 11.40),
        ("wide_resnet101_2", 126_886_696, 22.75),
    ],
)
def test_variants_have_the_published_sizes(name: str, parameters: int, gmacs: float) -> None:
    with torch.device("meta"):
        counted = complexity(build(name, num_classes=1000), (3, 224, 224))
    assert counted.parameters == parameters
    assert counted.macs == pytest.approx(gmacs * 1e9, rel=2e-3)


@pytest.mark.parametrize("name", ["wrn9_10", "wrn28_0", "wrn28_65", "wrn10000_1", "resnet50x"])
def test_names_similar_to_a_variant_are_unknown(name: str) -> None:
    with pytest.raises(UnknownModelError):
        on_meta(name)
