"""Preprocessing, size and class names that a file, or a file beside it, states are used."""

import json
import math
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from reslearn import models
from reslearn.interop import (
    Checkpoint,
    WeightsError,
    dialect_named,
    identify,
    identify_checkpoint,
    preprocess_origin,
    preprocess_with,
)
from reslearn.interop.as_bundle import InputOptions, as_bundle
from reslearn.interop.class_lists import class_lists_of, names_by_number
from reslearn.interop.stated import StatedInput, stated_input

sys.path.insert(0, str(Path(__file__).parent))
from layouts import behind, checkpoint_of, small_network, state_of, without_head

Run = Callable[..., tuple[int, str, str]]
NAMES = ("cat", "dog", "emu", "fox", "gnu")
TIMM = {
    "architecture": "resnet8",
    "num_classes": 5,
    "label_names": list(NAMES),
    "pretrained_cfg": {
        "input_size": [3, 48, 48],
        "test_input_size": [3, 64, 64],
        "crop_pct": 0.9,
        "test_crop_pct": 0.95,
        "mean": [0.5, 0.4, 0.3],
        "std": [0.3, 0.2, 0.1],
    },
}
CONVNEXT = {
    "image_processor_type": "ConvNextImageProcessor",
    "image_mean": [0.5, 0.4, 0.3],
    "image_std": [0.3, 0.2, 0.1],
    "size": {"shortest_edge": 224},
}


def folder_of(folder: Path, config: Any, preprocessor: Any = None) -> Path:
    """Write resnet8 with five classes as save_pretrained of another project does."""
    folder.mkdir()
    safetensors.torch.save_file(state_of(small_network()), folder / "model.safetensors")
    for name, content in (("config.json", config), ("preprocessor_config.json", preprocessor)):
        if content is not None:
            text = content if isinstance(content, str) else json.dumps(content)
            (folder / name).write_text(text)
    return folder


def stated_in(folder: Path, config: Any, preprocessor: Any = None) -> StatedInput:
    return stated_input(identify(folder_of(folder, config, preprocessor)))


def test_the_config_of_timm_is_used(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "hub", TIMM)
    bundle = as_bundle(folder)  # a warning would be an error: nothing is guessed
    assert bundle.classes == NAMES
    preprocess = bundle.preprocess
    assert (preprocess.size_px, preprocess.shorter_px) == (64, math.floor(64 / 0.95))
    torch.testing.assert_close(preprocess.mean, torch.tensor([0.5, 0.4, 0.3]) * 255)
    torch.testing.assert_close(preprocess.scale, torch.tensor([0.3, 0.2, 0.1]) * 255)
    assert preprocess_origin(identify(folder)) == "stated"
    training = preprocess_with(identify(folder), size_px=32, channels=3)
    assert training is not None and torch.equal(training.mean, preprocess.mean)


def test_the_user_overrides_what_is_stated(tmp_path: Path) -> None:
    options = InputOptions(mean=(0.1,), std=(0.2,), size=32)
    preprocess = as_bundle(folder_of(tmp_path / "hub", TIMM), options).preprocess
    assert (preprocess.size_px, preprocess.shorter_px) == (32, round(67 / 2))
    torch.testing.assert_close(preprocess.mean, torch.full((3,), 25.5))


def test_inspect_says_what_is_stated(tmp_path: Path, reslearn: Run) -> None:
    status, output, errors = reslearn("inspect", folder_of(tmp_path / "hub", TIMM))
    assert (status, errors) == (0, "")
    assert "config.json states --mean 0.5,0.4,0.3, --std 0.3,0.2,0.1, --size 64" in output
    assert "5 names of classes (cat, dog, emu, ...)" in output
    assert "image of 64 x 64" in output


SQUARE = {"height": 96, "width": 96}
CUT = {"do_center_crop": True, "size": {"shortest_edge": 256}, "crop_size": SQUARE}
PREPROCESSORS: dict[str, tuple[dict[str, Any], tuple[int | None, int | None]]] = {
    "cut out of 256": ({}, (224, 256)),
    "crop_pct": ({"crop_pct": 0.5}, (224, 448)),
    "large images are not cut": ({"size": {"shortest_edge": 384}}, (384, 384)),
    "a number": ({"size": 160}, (160, 182)),
    "center crop": (CUT, (96, 256)),
    "another processor": ({"image_processor_type": "ViT", "size": SQUARE}, (96, 96)),
    "no square": ({"size": {"height": 96, "width": 64}}, (None, None)),
    "too large": ({"size": 10**9}, (None, None)),
}


@pytest.mark.parametrize("case", PREPROCESSORS)
def test_sizes_of_transformers(case: str, tmp_path: Path) -> None:
    changes, expected = PREPROCESSORS[case]
    stated = stated_in(tmp_path / "hub", {}, CONVNEXT | changes)
    assert (stated.size, stated.shorter) == expected
    assert (stated.mean, stated.std) == ((0.5, 0.4, 0.3), (0.3, 0.2, 0.1))


@pytest.mark.parametrize(
    ("changes", "mean", "std"),
    [
        ({"do_normalize": False}, (0.0,) * 3, (1.0,) * 3),
        ({"do_rescale": False, "image_mean": 51, "image_std": 102}, (0.2,) * 3, (0.4,) * 3),
        ({"rescale_factor": 0.00784313725}, (0.25, 0.2, 0.15), (0.15, 0.1, 0.05)),
        ({"image_mean": None}, None, None),
        ({"image_std": [0.1, 0.2]}, None, None),
        ({"image_std": [0.1, 0.2, 0.0]}, None, None),
        ({"image_mean": [0.1, 0.2, float("nan")]}, None, None),
    ],
)
def test_statistics_of_transformers(
    changes: dict[str, Any], mean: Any, std: Any, tmp_path: Path
) -> None:
    stated = stated_in(tmp_path / "hub", {}, CONVNEXT | changes)
    assert (stated.mean, stated.std) == (mean, std)


def test_class_names_of_transformers(tmp_path: Path) -> None:
    by_number = {str(number): NAMES[number] for number in (4, 0, 2, 1, 3)}
    assert stated_in(tmp_path / "named", {"id2label": by_number}).class_names == NAMES
    unnamed = {str(number): f"LABEL_{number}" for number in range(5)}
    assert stated_in(tmp_path / "unnamed", {"id2label": unnamed}).class_names is None
    two = {"0": "cat", "1": "dog"}
    assert stated_in(tmp_path / "two", {"id2label": two}).class_names is None, "five outputs"


@pytest.mark.parametrize(
    "text", ["", "[]", "{", "[" * 100_000, '{"pretrained_cfg": 3, "mean": {}}']
)
def test_a_damaged_config_is_passed_over(text: str, tmp_path: Path) -> None:
    assert stated_in(tmp_path / "hub", text, text) == StatedInput()


def test_the_stride_of_a_bottleneck_is_stated(tmp_path: Path) -> None:
    with torch.device("meta"):
        net = models.build("resnet50", num_classes=5, stride_in="3x3")
    dialect = dialect_named("hf")
    table = {str(dialect.foreign_name(name)): value for name, value in net.state_dict().items()}
    checkpoint = replace(checkpoint_of(table=table), path=tmp_path / "model.safetensors")
    for value, stride_in in ((True, "1x1"), (False, "3x3")):
        (tmp_path / "config.json").write_text(json.dumps({"downsample_in_bottleneck": value}))
        identity = identify_checkpoint(checkpoint)
        assert (identity.spec["stride_in"], identity.undetermined) == (stride_in, ())
        assert f"config.json states stride_in '{stride_in}'" in identity.notes
        with pytest.raises(WeightsError, match="one beside it, states stride_in"):
            identity.with_switches(stride_in=stride_in)


def test_another_activation_is_refused(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"config\.json says hidden_act 'silu'"):
        stated_in(tmp_path / "hub", {"hidden_act": "silu"})


@pytest.mark.parametrize(
    ("classes", "reason"),
    [
        (("torch.nn.modules.activation.LeakyReLU",), "LeakyReLU and none of ReLU"),
        (("timm.layers.blur_pool.BlurPool2d",), "BlurPool2d, which blurs"),
    ],
)
def test_classes_in_a_pickled_module_state_another_function(
    classes: tuple[str, ...], reason: str
) -> None:
    """The kernel of a blur pool and the slope of an activation may be no tensors of the file."""
    checkpoint = checkpoint_of(state_dict=state_of(small_network()))
    with pytest.raises(WeightsError, match=reason):
        identify_checkpoint(replace(checkpoint, unknown_objects=classes))


def test_a_further_activation_is_noted() -> None:
    """It may belong to the head, or to the trunk."""
    checkpoint = checkpoint_of(state_dict=state_of(small_network()))
    classes = tuple(f"torch.nn.modules.activation.{name}" for name in ("ReLU", "GELU", "Hardtanh"))
    assert notes_of(checkpoint, classes[:1]) == []
    assert notes_of(checkpoint, classes) == [
        f"the file holds an object of {classes[1]}, an activation that the catalog does not have"
    ]


def notes_of(checkpoint: Checkpoint, classes: tuple[str, ...]) -> list[str]:
    identity = identify_checkpoint(replace(checkpoint, unknown_objects=classes))
    return [note for note in identity.notes if "holds an object" in note]


def test_the_classes_in_a_checkpoint_are_used(tmp_path: Path) -> None:
    state = state_of(small_network())
    for number, beside in enumerate(
        (
            {"classes": list(NAMES)},
            {"meta": {"CLASSES": NAMES}},
            {"class_to_idx": {name: index for index, name in enumerate(NAMES)}},
            {"args": {"idx_to_class": dict(enumerate(NAMES))}},
        )
    ):
        torch.save({"state_dict": state, **beside}, tmp_path / f"{number}.pth")
        assert stated_input(identify(tmp_path / f"{number}.pth")).class_names == NAMES


def test_the_names_of_as_many_classes_as_the_network_has_are_used(tmp_path: Path) -> None:
    """A detector has names of objects, and its backbone has none of them."""
    lists = {"meta": {"CLASSES": ("person", "bicycle")}, "labels": list(NAMES)}
    state = state_of(small_network())
    for number, (table, names) in enumerate(((state, NAMES), (without_head(state), None))):
        path = tmp_path / f"{number}.pth"
        torch.save({"state_dict": table, **lists}, path)
        stated = stated_input(identify(path))
        assert stated.class_names == names
        assert len(stated.lines()) == (names is not None)


@pytest.mark.parametrize(
    "value",
    [
        {"classes": ["a", "a", "b"]},
        {"classes": ["a", 3]},
        {"classes": {"a": 0, "b": 2}},
        {"classes": "ab"},
        ["classes"],
        {"words": ["a", "b"]},
    ],
)
def test_other_lists_are_no_classes(value: Any) -> None:
    assert class_lists_of(value) == {}


def test_a_list_in_a_million_places_is_read_a_few_times() -> None:
    names = [str(number) for number in range(50_000)]
    part = {"classes": names, "labels": names}
    value = {str(number): part for number in range(50_000)}
    assert len(class_lists_of(value)) == 32
    assert names_by_number({"0": "a", "1": "b", "x": "c"}) is None


@pytest.mark.parametrize(
    ("mean", "deviation"), [("new_mean", "new_std"), ("mu", "sigma"), ("means", "sds")]
)
def test_a_normalizer_beside_the_network_is_used(mean: str, deviation: str, tmp_path: Path) -> None:
    """As in robustness, RobustBench and smoothing.

    Values of pixels up to 255 have no known order of colors.
    """
    state = behind("module.model.", state_of(small_network()))
    for number, (value, expected) in enumerate(((0.5, "stated"), (123.0, "unknown"))):
        beside = {mean: torch.full((3, 1, 1), value), deviation: torch.full((3, 1, 1), 0.25)}
        path = tmp_path / f"{number}.pth"
        torch.save({"model": behind("module.normalizer.", beside) | state}, path)
        identity = identify(path)
        assert preprocess_origin(identity) == expected
    stated = stated_input(identify(tmp_path / "0.pth"))
    assert (stated.mean, stated.std) == ((0.5,) * 3, (0.25,) * 3)
    assert stated.lines()[0].startswith(f"module.normalizer.{mean} beside the network states")
