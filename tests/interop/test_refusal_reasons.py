"""Networks that are nearly in the catalog are refused with what is different in them."""

import pickle
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import safetensors.torch
import torch

from reslearn import models
from reslearn.interop import (
    WeightsError,
    identify_checkpoint,
    inspect_file,
    save_pretrained,
    write_weights,
)
from reslearn.interop.dialect import dialect_named
from reslearn.interop.write import foreign_state_dict

sys.path.insert(0, str(Path(__file__).parent))
from layouts import LAYOUTS, State, checkpoint_of, net_state, renamed, small_network

with torch.device("meta"):
    RESNET18 = net_state(models.build("resnet18", num_classes=5, shortcut="B"))
    SMALL = net_state(models.build("resnet8", num_classes=5, shortcut="B"))


def without(state: State, *parts: str) -> State:
    return {
        name: tensor for name, tensor in state.items() if not any(part in name for part in parts)
    }


def with_wider_kernels(state: State) -> State:
    """Return the state with 3 x 3 convolutions in the shortcuts."""
    return {
        name: tensor.new_empty((*tensor.shape[:2], 3, 3)) if "downsample.0" in name else tensor
        for name, tensor in state.items()
    }


def with_fifth_stage(state: State) -> State:
    fifth = {
        name.replace("layer4", "layer5"): tensor.new_empty(
            [2 * size if size > 3 else size for size in tensor.shape]
        )
        for name, tensor in state.items()
        if "layer4" in name
    }
    return {**without(state, "fc."), **fifth}


def without_affine(state: State) -> State:
    return {
        name: tensor
        for name, tensor in state.items()
        if tensor.ndim != 1 or "running" in name or name.startswith("fc.")
    }


def with_flat_parameters(state: State) -> State:
    return {
        "_flat_param": state["fc.weight"].new_empty(9),
        "layer1.0._flat_param": state["fc.bias"],
    }


def quantized(state: State) -> State:
    """Return what torch saves of quantized layers, without the weights, which are not read."""
    leaves = ("scale", "zero_point")
    names = [f"{name.removesuffix('weight')}{leaf}" for name in state for leaf in leaves]
    return {name: state["fc.bias"].new_empty(()) for name in names if "conv" in name}


def with_other_kernels(state: State, shape: tuple[int, ...]) -> State:
    return {
        name: tensor.new_empty((*tensor.shape[:2], *shape)) if tensor.ndim == 4 else tensor
        for name, tensor in state.items()
    }


def in_blocks(state: State, *leaves: str) -> State:
    """Return the state with further numbers in each block."""
    names = [f"layer{stage}.0.{leaf}" for stage in (1, 2, 3) for leaf in leaves]
    return state | {name: state["fc.bias"].new_empty(1) for name in names}


REASONS: dict[str, tuple[Callable[[State], State], State, str]] = {
    "no weights in batch norms": (without_affine, SMALL, r"no weight and bias \(affine=False\)"),
    "no norm in shortcuts": (
        lambda state: without(state, "downsample.1"),
        RESNET18,
        r"the shortcut \S+\.weight has no batch norm, and those of resnet18 have",
    ),
    "3 x 3 shortcuts": (
        with_wider_kernels,
        RESNET18,
        r"is \(128, 64, 3, 3\), where resnet18 has \(128, 64, 1, 1\)",
    ),
    "instance norm": (
        lambda state: without(state, "running"),
        SMALL,
        "as (in )?networks with group norm or instance norm",
    ),
    "no fourth stage": (
        lambda state: without(state, "layer4", "fc."),
        RESNET18,
        "a network of four stages without its last one has such a shape",
    ),
    "videos": (lambda state: with_other_kernels(state, (3, 3, 3)), SMALL, "three dimensions"),
    "signals": (lambda state: with_other_kernels(state, (3,)), SMALL, "one dimension, as for sig"),
    "flat parameters": (with_flat_parameters, SMALL, "flat parameters of FSDP; save a full state"),
    "quantized": (quantized, SMALL, "its names show quantized weights"),
    "fake quantization": (
        lambda state: in_blocks(state, "conv1.weight_fake_quant.scale"),
        SMALL,
        r"weight_fake_quant\.scale \(quantized weights",
    ),
    "masks": (lambda state: in_blocks(state, "conv1.mask"), SMALL, r"mask \(pruned or normalized"),
    "Fixup": (
        lambda state: in_blocks(without(state, "bn", "downsample"), "bias1a", "bias2b", "scale"),
        SMALL,
        "as in Fixup networks",
    ),
    "only parameters": (
        lambda state: without(state, "running", "num_batches"),
        SMALL,
        "files of parameters without buffers",
    ),
    "a fifth stage": (
        with_fifth_stage,
        RESNET18,
        r"basic blocks \(2, 2, 2, 2, 2\) in stages of \[64, 128, 256, 512, 1024\] channels",
    ),
}


@pytest.mark.parametrize("difference", REASONS)
@pytest.mark.parametrize("layout", [None, "stem called conv and bn"])
def test_the_reason_is_the_difference(difference: str, layout: str | None) -> None:
    change, state, reason = REASONS[difference]
    table = change(state)
    if layout is not None:
        table = LAYOUTS[layout](table)
    with pytest.raises(WeightsError, match=reason):
        identify_checkpoint(checkpoint_of(table=table))


def notes_of(dialect: str, path: Path, **switches: object) -> str:
    name = str(switches.pop("name", "resnet8"))
    net = small_network() if name == "resnet8" else models.build(name, num_classes=5, **switches)
    write_weights(net, path, dialect_named(dialect))
    return " ".join(inspect_file(path).notes)


def test_what_tensors_do_not_show_is_said(tmp_path: Path) -> None:
    """A folder of save_pretrained records the network."""
    unseen = "tensors do not show strides, dilation"
    assert unseen in notes_of("cifar-fc", tmp_path / "net.safetensors")
    save_pretrained(small_network(), tmp_path / "folder")
    assert unseen not in " ".join(inspect_file(tmp_path / "folder").notes)


@pytest.mark.parametrize(("name", "is_noted"), [("resnet18", False), ("resnet50", True)])
def test_the_style_is_noted_for_bottlenecks(name: str, is_noted: bool, tmp_path: Path) -> None:
    switches = {} if name == "resnet18" else {"stride_in": "3x3"}
    notes = notes_of("mmpretrain", tmp_path / "net.pth", name=name, shortcut="B", **switches)
    assert ("style = pytorch" in notes) == is_noted


@pytest.mark.parametrize("final_norm", [True, False])
def test_pre_activation_is_the_reason_whatever_dialect_is_near(final_norm: bool) -> None:
    """kuangliu's PreActResNet18 has the names of his ResNet18 without bn1."""
    state = foreign_state_dict(models.build("wrn10_2", num_classes=5), dialect_named("wrn"))
    rules = ((r"^block(\d)\.layer", r"layer\1"), ("convShortcut", "shortcut.0"), ("^fc", "linear"))
    state = renamed(state, *rules)
    if not final_norm:
        state = {name: tensor for name, tensor in state.items() if not name.startswith("bn1")}
    with pytest.raises(WeightsError, match=r"catalog: [^;]*pre-activation networks are read"):
        identify_checkpoint(checkpoint_of(table=state))


def test_a_single_shard_is_called_a_part(tmp_path: Path) -> None:
    path = tmp_path / "model-00001-of-00002.safetensors"
    half = {name: torch.zeros(tensor.shape) for name, tensor in SMALL.items() if "layer1" in name}
    safetensors.torch.save_file(half, path)
    with pytest.raises(WeightsError, match="it is part 1 of 2: name the folder, or the index file"):
        inspect_file(path)


def test_files_without_named_tensors_say_what_they_hold(tmp_path: Path) -> None:
    net = small_network()
    path = tmp_path / "weights.pkl"
    path.write_bytes(pickle.dumps(net.state_dict()))
    with pytest.raises(WeightsError, match="pickle wrote its tensors: load it with pickle"):
        inspect_file(path)
    torch.save(torch.optim.SGD(net.parameters(), lr=0.1).state_dict(), tmp_path / "optimizer.pth")
    with pytest.raises(WeightsError, match="it holds the state of an optimizer"):
        inspect_file(tmp_path / "optimizer.pth")
    torch.save(3, tmp_path / "number.pth")
    with pytest.raises(WeightsError, match="without weights: it holds a number, not a dict"):
        inspect_file(tmp_path / "number.pth")
