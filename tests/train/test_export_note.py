"""A network that torchvision and Hugging Face cannot load is called so before its training."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from reslearn import models
from reslearn.interop import dialect_named
from reslearn.interop.write import foreign_state_dict
from reslearn.models import Network
from reslearn.train.export_note import export_note

Run = Callable[..., tuple[int, str, str]]
BOTH = "torchvision and Hugging Face cannot load the trained network, because "


def build(name: str, **switches: Any) -> Network:
    """Return a network whose weights are not drawn: the note depends on names and shapes."""
    with torch.device("meta"):
        network = models.build(name, num_classes=3, **switches)
    return network.to_empty(device="cpu")


@pytest.mark.parametrize(
    ("name", "switches", "reason", "settings"),
    [
        ("resnet18", {}, "its shortcuts are of option A", {"shortcut": "B"}),
        ("resnet34", {"shortcut": "C"}, "its shortcuts are of option C", {"shortcut": "B"}),
        ("resnet50", {}, "its bottlenecks stride in the 1x1 convolution", {"stride_in": "3x3"}),
        (
            "resnet50",
            {"shortcut": "A"},
            "its shortcuts are of option A and its bottlenecks stride in the 1x1 convolution",
            {"shortcut": "B", "stride_in": "3x3"},
        ),
    ],
)
def test_the_note_names_the_switches_that_make_an_export_possible(
    name: str, switches: dict[str, Any], reason: str, settings: dict[str, str]
) -> None:
    note = export_note(build(name, **switches), has_weights=False)
    options = " ".join(f"--set model.{key}={value}" for key, value in settings.items())
    assert note == f"{BOTH}{reason}; to export a network there, add {options}"
    advised = build(name, **switches | settings)
    assert export_note(advised, has_weights=False) == ""
    for dialect in ("torchvision", "hf"):
        assert foreign_state_dict(advised, dialect_named(dialect))


def test_the_note_on_a_cifar_stem_names_another_network() -> None:
    note = export_note(build("resnet20", shortcut="B"), has_weights=False)
    assert note.startswith(f"{BOTH}resnet20 has a CIFAR stem; ")
    assert note.endswith("--model resnet18 --set model.shortcut=B")
    assert export_note(build("resnet18", shortcut="B"), has_weights=False) == ""


def test_weights_decide_the_switches() -> None:
    note = export_note(build("resnet18"), has_weights=True)
    assert note.endswith("option A; to export a network there, start from other weights")


@pytest.mark.parametrize("name", ["plain18", "plain20", "resnet50d", "resnetv2_50"])
def test_networks_without_a_counterpart_get_no_note(name: str) -> None:
    assert export_note(build(name), has_weights=False) == ""
    assert export_note(nn.Identity(), has_weights=False) == ""


def test_dry_run_prints_the_note(
    reslearn: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    command = ("train", "digits", "--model", "resnet18", "--dry-run", "--threads", "1")
    small = ("--set", "data.train_images=32", "--batch-size", "8", "--epochs", "1")
    status, output, errors = reslearn(*command, *small)
    assert (status, errors) == (0, "")
    assert output.endswith("add --set model.shortcut=B\nnothing was written\n")
    status, output, _ = reslearn(*command, *small, "--set", "model.shortcut=B", "--json")
    assert (status, json.loads(output)["export_note"]) == (0, "")


def test_a_training_on_photos_begins_with_the_note(
    reslearn: Run,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    make_pictures: Callable[..., Path],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RESLEARN_PROGRESS", "on")
    make_pictures(tmp_path / "photos", train=2, test=1)
    options = ("--threads", "1", "--workers", "0", "--epochs", "1", "--batch-size", "4")
    network = ("--model", "resnet18", "--set", "data.size_px=32", "--init", "none")
    recipe = ("train", "photos", *network, *options)
    for shortcut, is_noted in (("A", True), ("B", False)):
        status, _, errors = reslearn(
            *recipe, "--set", f"model.shortcut={shortcut}", "--out", f"run{shortcut}"
        )
        assert status == 0, errors
        assert (f"resnet18: {BOTH}" in errors) == is_noted
    status, _, errors = reslearn("train", "--resume", "--out", "runA")
    assert (status, BOTH in errors) == (0, False)
