"""Any plain ResNet is recognized by its structure, and nothing else is taken for one."""

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import safetensors.torch
import torch

from reslearn import models
from reslearn.interop import (
    WeightsError,
    create_model,
    identify,
    identify_checkpoint,
    load_network,
    load_weights,
)
from reslearn.interop.table_networks import names_and_structure

sys.path.insert(0, str(Path(__file__).parent))
from layouts import (
    LAYOUTS,
    behind,
    checkpoint_of,
    net_state,
    renamed,
    small_network,
    state_of,
    with_squeeze,
)

Run = Callable[..., tuple[int, str, str]]
IMAGE = torch.rand(1, 3, 32, 32)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_unknown_names_give_the_same_network(layout: str, suffix: str, tmp_path: Path) -> None:
    """safetensors sorts the names, so the order of the layers must follow from them."""
    net = small_network()
    state, path = LAYOUTS[layout](state_of(net)), tmp_path / f"stranger{suffix}"
    if suffix == ".pth":
        torch.save({"state_dict": behind("module.", state)}, path)
    else:
        safetensors.torch.save_file(state, path)
    identity = identify(path)
    assert (identity.spec["name"], identity.num_classes, identity.unmatched) == ("resnet8", 5, ())
    assert torch.equal(load_network(identity)(IMAGE), net(IMAGE))


def test_many_blocks_keep_their_order_if_names_are_sorted() -> None:
    """Sorted as texts, block 10 comes before block 2."""
    net = models.build("resnet74", num_classes=5, shortcut="B")
    state = LAYOUTS["residual_function"](state_of(net))
    identity = identify_checkpoint(checkpoint_of(table=dict(sorted(state.items()))))
    assert identity.spec["name"] == "resnet74"
    blocks = [identity.names[f"stage2.{block}.body.conv1.weight"] for block in range(12)]
    assert blocks == [f"conv2_x.{block}.residual_function.0.weight" for block in range(12)]


@pytest.mark.parametrize("name", ["resnet50", "resnext50_32x4d", "wide_resnet50_2", "resnet34"])
def test_networks_of_imagenet_with_unknown_names(name: str) -> None:
    with torch.device("meta"):
        net = models.build(name, num_classes=7, shortcut="B")
        state = LAYOUTS["cut into nn.Sequential"](net_state(net))
    identity = identify_checkpoint(checkpoint_of(table=behind("encoder.", state)))
    assert (identity.spec["name"], identity.num_classes, identity.prefix) == (name, 7, "encoder.")
    if name != "resnet34":
        assert "3x3 is assumed" in " ".join(identity.notes)


@pytest.mark.parametrize(("position", "pools"), [(0, False), (1, True)])
def test_a_position_in_a_sequence_shows_the_pool_before_a_projection(
    position: int, pools: bool
) -> None:
    """Without weights at position 0, an average pool is there, as in ResNet-D."""
    with torch.device("meta"):
        net = models.build("resnet18d", num_classes=7, shortcut_pool=pools)
    state = renamed(
        net_state(net),
        (r"^stem\.", "begin."),
        (r"downsample\.1", f"skip.{position + 1}"),
        (r"downsample\.0", f"skip.{position}"),
    )
    identity = identify_checkpoint(checkpoint_of(table=state))
    assert (identity.spec["stem"], identity.spec["shortcut_pool"]) == ("deep", pools)
    assert identity.spec["name"] == ("resnet18d" if pools else "resnet18")


def test_biases_before_batch_norm_are_subtracted_from_the_mean(tmp_path: Path) -> None:
    net = small_network()
    state = LAYOUTS["flat shortcut"](state_of(net))
    for name, tensor in list(state.items()):
        if re.search(r"conv\w*\.weight$", name):
            bias = torch.rand(tensor.shape[0])
            state[name.replace("weight", "bias")] = bias
            mean = name.replace("conv", "bn").replace("weight", "running_mean")
            state[mean] = state[mean] + bias
    torch.save(state, tmp_path / "biased.pth")
    torch.testing.assert_close(load_network(tmp_path / "biased.pth")(IMAGE), net(IMAGE))


def test_a_head_that_is_a_convolution(tmp_path: Path) -> None:
    net = small_network()
    state = LAYOUTS["stem called conv and bn"](state_of(net))
    state["linear.weight"] = state["linear.weight"][:, :, None, None]
    torch.save(state, tmp_path / "convolution.pth")
    assert torch.equal(load_network(tmp_path / "convolution.pth")(IMAGE), net(IMAGE))


def test_option_a_is_read_without_names(tmp_path: Path) -> None:
    net = small_network(shortcut="A", zero_pad="split")
    state = LAYOUTS["cut into nn.Sequential"](state_of(net, "cifar-linear"))
    torch.save(renamed(state, (r"^linear", "fc")), tmp_path / "a.pth")
    identity = identify(tmp_path / "a.pth")
    assert (identity.spec["shortcut"], identity.undetermined) == ("A", ("zero_pad", "subsample"))
    assert torch.equal(load_network(identity)(IMAGE), net(IMAGE))


STATE = state_of(small_network())
REFUSALS = {
    "se.fc1.weight": "squeeze-and-excitation, as in SE networks",
    "se_module.fc2.weight": "squeeze-and-excitation, as in SE networks",
    "ca.fc1.weight": "attention",
    "conv2_offset.weight": "deformable convolution",
    "extra.weight": "extra",
}


@pytest.mark.parametrize("name", REFUSALS)
@pytest.mark.parametrize("layout", ["torchvision", "stem called conv and bn"])
def test_a_part_inside_blocks_is_refused_by_name(name: str, layout: str) -> None:
    state = STATE if layout == "torchvision" else LAYOUTS[layout](STATE)
    with pytest.raises(WeightsError, match="holds no network of the catalog") as raised:
        identify_checkpoint(checkpoint_of(state_dict=with_squeeze(state, name)))
    assert REFUSALS[name] in str(raised.value) and "\n" not in str(raised.value)


OTHER_FUNCTIONS = {
    "efficient channel attention": {"layer1.0.se.conv.weight": (1, 1, 3)},
    "blur pooling": {"layer2.0.pool.filt": (16, 1, 3, 3)},
    "a scale of the residual": {"layer1.0.alpha": (1,)},
    "a learned activation": {"layer1.0.relu.weight": (16,)},
    "instance norm": {"layer1.0.bn1.IN.weight": (8,)},
}


@pytest.mark.parametrize("part", OTHER_FUNCTIONS)
def test_other_functions_are_refused_by_name(part: str) -> None:
    tensors = {name: torch.zeros(shape) for name, shape in OTHER_FUNCTIONS[part].items()}
    with pytest.raises(WeightsError, match=part) as raised:
        identify_checkpoint(checkpoint_of(table=STATE | tensors))
    assert next(iter(tensors)) in str(raised.value)


def test_blur_pooling_between_blocks_is_refused() -> None:
    state = STATE | {"maxpool.1.filt": torch.zeros(16, 1, 3, 3)}
    with pytest.raises(WeightsError, match=r"maxpool\.1\.filt \(blur pooling"):
        identify_checkpoint(checkpoint_of(table=state))


def test_counters_of_tools_inside_blocks_are_no_part() -> None:
    counters = {f"{name}.total_ops": torch.zeros(1) for name in ("layer1.0", "layer1.0.conv1")}
    identity = identify_checkpoint(checkpoint_of(table=STATE | counters))
    assert identity.unmatched == identity.beside == tuple(counters)


def test_blur_pooling_that_only_words_show(tmp_path: Path, reslearn: Run) -> None:
    """Such networks have all names of resnet50: the file or its folder must say it."""
    torch.save({"arch": "resnetblur50", "state_dict": STATE}, tmp_path / "blur.pth")
    status, _, errors = reslearn("inspect", tmp_path / "blur.pth")
    assert (status, errors.count("\n")) == (2, 1)
    assert "its entry 'arch' says 'resnetblur50'" in errors
    folder = tmp_path / "hub"
    folder.mkdir()
    safetensors.torch.save_file(STATE, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps({"architecture": "resnetaa50"}))
    with pytest.raises(WeightsError, match=r"config.json says 'resnetaa50'"):
        identify(folder)


def test_inspect_names_the_check_that_finds_blur_pooling() -> None:
    with torch.device("meta"):
        state = net_state(models.build("resnet50", num_classes=7))
    notes = identify_checkpoint(checkpoint_of(table=state)).notes
    (note,) = [note for note in notes if "blur pooling" in note]
    assert "resnetblur50" in note and "reslearn evaluate FILE DATA" in note


def test_a_chain_of_channels_that_does_not_close_is_refused_with_the_tensor() -> None:
    state = LAYOUTS["stem called conv and bn"](STATE)
    state["layer2.0.conv1.weight"] = torch.zeros(32, 24, 3, 3)
    with pytest.raises(WeightsError, match=r"layer2\.0\.conv1\.weight takes 24 channels") as raised:
        identify_checkpoint(checkpoint_of(table=state))
    assert "returns 16" in str(raised.value)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("layer2.0.bn2.running_mean", r"cifar-fc, but it lacks layer2\.0\.bn2\.running_mean"),
        ("conv1.weight", "it has 3 blocks and no convolution of 7 x 7 or 3 x 3 before them"),
    ],
)
def test_a_missing_tensor_is_the_reason(name: str, reason: str) -> None:
    """Dialects of other stems with the same names have no better reason."""
    table = {key: tensor for key, tensor in STATE.items() if key != name}
    with pytest.raises(WeightsError, match=reason):
        identify_checkpoint(checkpoint_of(table=table))


def test_another_depth_is_called_a_depth() -> None:
    """timm's resnet26 has two bottlenecks in each stage."""
    with torch.device("meta"):
        state = net_state(models.build("resnet50", num_classes=7))
    shorter = {name: value for name, value in state.items() if not re.search(r"\.[2-9]\.", name)}
    for table in (shorter, LAYOUTS["cut into nn.Sequential"](shorter)):
        with pytest.raises(WeightsError, match="it has 26 layers: no network of the catalog has"):
            identify_checkpoint(checkpoint_of(table=table))


def test_group_norm_is_refused() -> None:
    state = {name: tensor for name, tensor in STATE.items() if "running" not in name}
    for table in (state, LAYOUTS["stem called conv and bn"](state)):
        with pytest.raises(WeightsError, match="networks with group norm"):
            identify_checkpoint(checkpoint_of(table=table))


@pytest.mark.parametrize("final_norm", [True, False])
def test_pre_activation_with_unknown_names_is_refused(final_norm: bool) -> None:
    """kuangliu's PreActResNet has no batch norm behind the last block, unlike the catalog's."""
    state = state_of(models.build("wrn10_2", num_classes=5), "wrn")
    state = renamed(state, (r"^block(\d)\.layer", r"part\1"), (r"^bn1", "last"))
    if not final_norm:
        state = {name: tensor for name, tensor in state.items() if not name.startswith("last")}
    with pytest.raises(WeightsError, match="pre-activation"):
        identify_checkpoint(checkpoint_of(table=state))


def test_weights_of_another_depth_name_both_networks(weights: Path) -> None:
    with torch.device("meta"):
        net = models.build("resnet50", num_classes=5, stride_in="3x3")
    with pytest.raises(WeightsError, match=r"resnet8 is not resnet50: .* do not match") as raised:
        load_weights(net, weights)
    assert "stride_in" not in str(raised.value)


def test_names_and_structure_agree_for_a_head_that_a_dialect_does_not_know() -> None:
    """The trunk has torchvision's names, so the habits of the dialect stay."""
    checkpoint = checkpoint_of(table=LAYOUTS["last_linear"](STATE))
    (by_name,), (by_structure,) = names_and_structure(checkpoint, "table")
    assert (by_name.num_classes, by_structure.num_classes) == (None, 5)
    identity = identify_checkpoint(checkpoint)
    assert (identity.dialect.name, identity.num_classes) == ("cifar-fc", 5)
    assert identity.names["head.fc.weight"] == "last_linear.weight"


def test_create_model_names_both_depths(weights: Path) -> None:
    """Not the stride, which is one of many differences."""
    with pytest.raises(WeightsError, match=r"holds weights of resnet8, not of resnet50"):
        create_model("resnet50", pretrained=str(weights))


def test_a_longer_stem_is_not_cut(tmp_path: Path) -> None:
    """CLIP's ResNet begins with three convolutions, which look like 32 channels and one of them."""
    with torch.device("meta"):
        state = net_state(models.build("resnet50", num_classes=7))
    del state["conv1.weight"]
    stem = {"conv1": (32, 3), "conv2": (32, 32), "conv3": (64, 32)}
    kernels = {f"{name}.weight": torch.zeros(*shape, 3, 3) for name, shape in stem.items()}
    norms = {f"bn{n}.{leaf}": torch.ones(32) for n in (1, 2) for leaf in ("weight", "running_var")}
    pool = {"attnpool.k_proj.weight": torch.zeros(8, 8), "attnpool.k_proj.bias": torch.zeros(8)}
    table = behind("visual.", kernels | norms | state | pool)
    with pytest.raises(WeightsError, match="its names show attention pooling, as in CLIP"):
        identify_checkpoint(checkpoint_of(state_dict=table))


def test_a_refusal_names_the_part_that_most_names_show() -> None:
    """Selective kernels hide the convolutions of a block in paths."""
    state = renamed(
        STATE, (r"(layer\d\.\d)\.conv1\.", r"\1.conv1.paths.0."), (r"bn1", "conv1.paths.0.bn")
    )
    extra = {name.replace("paths.0", "paths.1"): tensor for name, tensor in state.items()}
    with pytest.raises(WeightsError, match="split attention, as in SK networks"):
        identify_checkpoint(checkpoint_of(table=state | extra))


def test_blocks_with_two_kinds_of_names_are_not_left_out() -> None:
    """Without the second block the file would be a shallower network."""
    net = models.build("resnet14", num_classes=5, shortcut="B")
    state = renamed(state_of(net), (r"(layer\d\.1)\.conv", r"\1.unit"), (r"^conv1", "first"))
    with pytest.raises(WeightsError, match=r"layer1\.1 could be a block"):
        identify_checkpoint(checkpoint_of(table=state))


@pytest.mark.parametrize("layout", ["torchvision", "last_linear"])
def test_a_head_without_bias_has_a_bias_of_zero(layout: str, tmp_path: Path) -> None:
    net = small_network()
    torch.nn.init.zeros_(net.head.fc.bias)
    state = state_of(net) if layout == "torchvision" else LAYOUTS[layout](state_of(net))
    without = {name: tensor for name, tensor in state.items() if tensor.shape != (5,)}
    assert len(without) == len(state) - 1
    torch.save(without, tmp_path / "no-bias.pth")
    for num_classes, initialized in ((5, ()), (3, ("head.fc.weight", "head.fc.bias"))):
        loaded = models.build("resnet8", num_classes=num_classes, shortcut="B").eval()
        torch.nn.init.ones_(loaded.head.fc.bias)
        report = load_weights(loaded, tmp_path / "no-bias.pth")
        assert report.left_initialized == initialized
        assert num_classes == 3 or torch.equal(loaded(IMAGE), net(IMAGE))


_WORDS = {"0": "one", "1": "two", "2": "three"}


@pytest.mark.parametrize("kind", ["blocks", "norms"])
def test_words_show_no_order_if_the_file_is_sorted(kind: str) -> None:
    """Three comes before two in a sorted file, and end before start."""
    net = models.build("resnet20", num_classes=5, shortcut="B").eval()
    for name, tensor in net.state_dict().items():
        if tensor.is_floating_point() and ".bn" in name:
            tensor.uniform_(0.5, 1.5)
    rules = {
        "blocks": [(r"layer(\d)\.(\d)", lambda match: f"part{match[1]}.{_WORDS[match[2]]}")],
        "norms": [(r"layer", "part"), (r"\.bn1", ".norm_start"), (r"\.bn2", ".norm_end")],
    }
    state = renamed(state_of(net), *rules[kind])
    loaded = load_network(identify_checkpoint(checkpoint_of(table=state)))
    assert torch.equal(loaded(IMAGE), net(IMAGE))
    with pytest.raises(WeightsError, match="do not show which comes first"):
        identify_checkpoint(checkpoint_of(table=dict(sorted(state.items()))))


@pytest.mark.parametrize(("position", "is_read"), [(1, True), (2, False)])
def test_a_layer_between_a_convolution_and_its_norm_is_refused(
    position: int, is_read: bool
) -> None:
    """`Sequential(conv, bn)` is a projection, and `Sequential(conv, ReLU, bn)` another function."""
    net = models.build("resnet20", num_classes=5, shortcut="B").eval()
    rules = ((r"downsample\.1", f"skip.{position}"), (r"downsample\.0", "skip.0"))
    state = renamed(state_of(net), (r"layer", "part"), *rules)
    if is_read:
        loaded = load_network(identify_checkpoint(checkpoint_of(table=state)))
        assert torch.equal(loaded(IMAGE), net(IMAGE))
        return
    with pytest.raises(WeightsError, match="something without weights between them"):
        identify_checkpoint(checkpoint_of(table=state))


def test_numbers_in_names_outweigh_the_order_of_the_file() -> None:
    net = small_network()
    state = renamed(state_of(net), (r"layer(\d)", r"part\1"))
    swapped = {}
    swap = {"1": "2", "2": "1"}
    for name in state:
        swapped_name = re.sub(r"(\.\d\.bn)(\d)", lambda match: match[1] + swap[match[2]], name)
        swapped[swapped_name] = state[swapped_name]
    assert list(swapped) != list(state)
    loaded = load_network(identify_checkpoint(checkpoint_of(table=swapped)))
    assert torch.equal(loaded(IMAGE), net(IMAGE))


@pytest.mark.parametrize(
    ("name", "shape"),
    [("logit_scale", ()), ("temperature", (1,)), ("p", (1,)), ("factor", (64,)), ("prior", (5,))],
)
def test_factors_of_the_outputs_are_not_left_out_silently(
    name: str, shape: tuple[int, ...]
) -> None:
    state = state_of(small_network()) | {name: torch.full(shape, 2.0)}
    identity = identify_checkpoint(checkpoint_of(table=state))
    assert identity.beside == ()
    with pytest.raises(WeightsError, match=f"{name} .in the file only.*--partial"):
        load_network(identity)


def test_inspect_says_what_tensors_do_not_show() -> None:
    state = LAYOUTS["stem called conv and bn"](state_of(small_network()))
    identity = identify_checkpoint(checkpoint_of(table=state))
    assert any("activations" in note for note in identity.notes)
