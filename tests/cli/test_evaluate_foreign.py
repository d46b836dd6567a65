"""`reslearn evaluate FILE DATA`: what a file leaves open is tried on training images."""

import json
import re
import shlex
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional

from reslearn import data, models
from reslearn.interop import dialect_named
from reslearn.interop.as_bundle import NO_OPTIONS
from reslearn.interop.write import foreign_state_dict
from reslearn.models import Network
from reslearn.train import Machine, input_trial

sys.path.insert(0, str(Path(__file__).parents[1] / "interop"))
from layouts import LAYOUTS

Run = Callable[..., tuple[int, str, str]]
MEAN, STD = 0.0, 1 / 255  # pixels from 0 to 255, which no other usual values are like
KNOWN = ("--mean", MEAN, "--std", STD, "--size", 8)


def trained(name: str, **switches: Any) -> Network:
    """Train a network on the digits for a second."""
    torch.manual_seed(0)
    digits = data.load("digits").train
    assert isinstance(digits, data.Images)
    images = (digits.pixels.permute(0, 3, 1, 2) / 255 - MEAN) / STD
    net = models.build(name, num_classes=10, in_channels=1, **switches).train()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    for step in range(45):
        batch = torch.arange(96 * step, 96 * (step + 1)) % len(images)
        optimizer.zero_grad()
        functional.cross_entropy(net(images[batch]), digits.labels[batch]).backward()
        optimizer.step()
    return net.eval()


def write(net: Network, path: Path, layout: str = "cut into nn.Sequential") -> Path:
    """Write a network with names that no project has."""
    state = foreign_state_dict(net, dialect_named("cifar-linear"))
    torch.save({"net": LAYOUTS[layout](state), "epoch": 3}, path)
    return path


@pytest.fixture(scope="module")
def network() -> Network:
    return trained("resnet8", zero_pad="split")


@pytest.fixture
def stranger(network: Network, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return write(network, Path("stranger.pth"))


def as_json(reslearn: Run, *arguments: object) -> dict[str, Any]:
    status, output, errors = reslearn("evaluate", *arguments, "--no-views", "--json")
    assert (status, errors) == (0, "")
    record: dict[str, Any] = json.loads(output)
    return record


def test_the_open_choices_are_tried_and_the_best_is_evaluated(
    stranger: Path, reslearn: Run
) -> None:
    status, output, errors = reslearn("evaluate", stranger, "digits", "--no-views")
    assert (status, errors) == (0, "")
    lines = output.splitlines()
    assert lines[0] == (
        "stranger.pth leaves open: model.zero_pad, model.subsample, model.name, mean and deviation"
    )
    assert re.fullmatch(
        r"\d+ choices were tried on up to [\d,]+ training images of digits:", lines[1]
    )
    table = [line for line in lines if re.match(r" +[\d.]+ +[\d,]+  --", line)]
    assert len(table) == 5 + 5, "combinations of switches, and statistics"
    taken = [line for line in table if line.endswith(", taken")]
    assert [line.partition("--")[2] for line in taken] == [
        "set model.zero_pad=split --set model.subsample=slice, taken",
        "mean 0 --std 0.00392157 (pixels from 0 to 255), taken",
    ]
    (repeated,) = re.findall(r"to use it again: reslearn (.+?) \(predict", output)
    again = as_json(reslearn, *shlex.split(repeated)[1:])
    assert again["open_choices"] == []
    assert f"error {again['top1_error_pct']:.2f} %" in output
    assert again["top1_error_pct"] < 20


def test_the_record_holds_what_was_tried(stranger: Path, reslearn: Run) -> None:
    record = as_json(reslearn, stranger, "digits")
    (trial,) = record["open_choices"]
    taken = trial["choices"][trial["taken"]]
    assert taken["switches"] == {"zero_pad": "split", "subsample": "slice"}
    assert (taken["mean"], taken["std"], taken["size"]) == ([MEAN], [STD], 8)
    assert trial["images"] == "train" and trial["decided_by"] in ("error", "loss")
    assert trial["num_images"] == taken["num_images"] > 50
    append = [
        choice for choice in trial["choices"] if choice["switches"].get("zero_pad") == "append"
    ]
    assert all(choice["error_pct"] > 2 * taken["error_pct"] for choice in append)
    assert min(choice["num_images"] for choice in append) < taken["num_images"]


def test_the_trial_reads_training_images_only(
    stranger: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load = data.load

    def load_without_test(*arguments: Any, **options: Any) -> data.ImageData:
        return replace(load(*arguments, **options), test=None)  # type: ignore[arg-type]

    monkeypatch.setattr(data, "load", load_without_test)
    options, trial = input_trial.decide_open_input(stranger, "digits", Machine(), NO_OPTIONS)
    assert trial is not None and options.switches == {"zero_pad": "split", "subsample": "slice"}


def test_given_options_are_not_tried(stranger: Path, reslearn: Run) -> None:
    (trial,) = as_json(reslearn, stranger, "digits", "--set", "model.zero_pad=split", *KNOWN)[
        "open_choices"
    ]
    assert trial["open"] == ["model.subsample"]
    assert [choice["mean"] for choice in trial["choices"]] == [None, None]
    plain = as_json(reslearn, stranger, "digits", "--set", "model.name=plain8", *KNOWN)
    assert plain["open_choices"] == [] and plain["model"] == "plain8"
    assert plain["top1_error_pct"] > 20
    status, _, errors = reslearn(
        "evaluate", stranger, "digits", "--set", "model.stride_in=3x3", *KNOWN
    )
    assert (status, errors.count("\n")) == (2, 1)
    assert "may be set: zero_pad, subsample, name='plain8'" in errors


def test_a_network_without_shortcuts_is_found(tmp_path: Path, reslearn: Run) -> None:
    net = models.build("resnet8", num_classes=10, in_channels=1, zero_pad="split")
    net.load_state_dict(trained("plain8").state_dict())
    path = write(net, tmp_path / "plain.pth")
    (trial,) = as_json(reslearn, path, "digits", *KNOWN)["open_choices"]
    assert trial["choices"][trial["taken"]]["switches"] == {"name": "plain8"}
    assert trial["decided_by"] == "error"


def test_two_files_have_their_own_choices(stranger: Path, network: Network, reslearn: Run) -> None:
    write(network, Path("other.pth"), "stem called conv and bn")
    status, output, errors = reslearn("evaluate", stranger, "other.pth", "digits", *KNOWN)
    assert (status, errors) == (0, "")
    assert output.count("leaves open: model.zero_pad") == 2
    assert "(single, 2 networks)" in output


@pytest.mark.filterwarnings("default")
def test_other_orders_and_names_of_classes(stranger: Path, reslearn: Run) -> None:
    options = ("--set", "model.zero_pad=split", "--set", "model.subsample=slice", *KNOWN)
    usual = as_json(reslearn, stranger, "digits", *options)
    names = Path("names.txt")
    names.write_text("\n".join(str(digit) for digit in range(10)))
    named = as_json(reslearn, stranger, "digits", *options, "--class-names", names)
    assert named["top1_error_pct"] == usual["top1_error_pct"]
    names.write_text("\n".join(str(digit) for digit in reversed(range(10))))
    status, output, errors = reslearn(
        "evaluate", stranger, "digits", *options, "--class-names", names, "--json"
    )
    assert status == 0 and "another order than those of digits" in errors
    assert json.loads(output)["top1_error_pct"] > 80, "the names were wrong"
    names.write_text("\n".join(f"digit {digit}" for digit in range(10)))
    status, _, errors = reslearn("evaluate", stranger, "digits", *options, "--class-names", names)
    assert (status, errors.count("\n")) == (2, 1)
    assert "digits has other classes (0, 1, 2, ...) than stranger.pth (digit 0," in errors


def test_another_number_of_classes_is_one_line(tmp_path: Path, reslearn: Run) -> None:
    net = models.build("resnet8", num_classes=7, in_channels=1, zero_pad="split")
    path = write(net.eval(), tmp_path / "seven.pth")
    status, output, errors = reslearn("evaluate", path, "digits")
    assert (status, output, errors.count("\n")) == (2, "", 1)
    assert "has 7 outputs, and digits has 10 classes" in errors
    assert f"reslearn train digits --init {path}" in errors


def test_images_of_other_channels_are_one_line(tmp_path: Path, reslearn: Run) -> None:
    net = models.build("resnet8", num_classes=10, zero_pad="split").eval()
    path = write(net, tmp_path / "colors.pth")
    status, _, errors = reslearn("evaluate", path, "digits")
    assert (status, errors.count("\n")) == (2, 1)
    assert "takes images of 3 channels, and those of digits have 1" in errors


def test_a_network_of_other_classes_is_said_to_be_no_better_than_chance(
    tmp_path: Path, reslearn: Run
) -> None:
    torch.manual_seed(0)
    net = models.build("resnet8", num_classes=10, in_channels=1, shortcut="B").eval()
    torch.save(foreign_state_dict(net, dialect_named("cifar-fc")), tmp_path / "untrained.pth")
    status, output, errors = reslearn(
        "evaluate", tmp_path / "untrained.pth", "digits", "--mean", "0.5", "--no-views"
    )
    assert (status, errors) == (0, "")
    assert "leaves open: mean and deviation" in output
    assert "no choice is better than chance" in output


def test_sizes_of_photos_are_tried(
    make_pictures: Callable[..., Path], tmp_path: Path, reslearn: Run
) -> None:
    pictures = make_pictures(tmp_path / "pictures", classes=("a", "b"), train=4, test=2)
    net = models.build("resnet8", num_classes=2, shortcut="B").eval()
    torch.save(foreign_state_dict(net, dialect_named("cifar-fc")), tmp_path / "net.pth")
    record = as_json(reslearn, tmp_path / "net.pth", pictures, "--mean", "0.5", "--std", "0.5")
    (trial,) = record["open_choices"]
    assert trial["open"] == ["image size"]
    assert [choice["size"] for choice in trial["choices"]] == [32, 64]
    assert trial["num_images"] == 8


def test_wrong_options_are_refused_before_the_trial(
    stranger: Path, reslearn: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(input_trial, "race", None)
    for options in (("--images", "none"), ("--views", "--protocol", "ten-crop")):
        status, _, errors = reslearn("evaluate", stranger, "digits", *options)
        assert (status, errors.count("\n")) == (2, 1)
    for text, message in (("zero_pad=split", "model.NAME=VALUE is needed"), ("model.x=1", "x=1")):
        status, _, errors = reslearn("evaluate", stranger, "digits", "--set", text)
        assert (status, errors.count("\n")) == (2, 1) and message in errors


@pytest.mark.filterwarnings("default")
def test_another_order_of_unnamed_classes_is_found(
    network: Network, tmp_path: Path, reslearn: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    usual = as_json(reslearn, write(network, Path("usual.pth")), "digits", *KNOWN)
    order = [3, 1, 4, 0, 5, 9, 2, 6, 8, 7]
    net = models.build("resnet8", num_classes=10, in_channels=1, zero_pad="split").eval()
    net.load_state_dict(network.state_dict())
    head = net.get_classifier()
    for parameter in head.parameters():
        parameter.data = parameter.data[order]
    write(net, Path("moved.pth"))
    status, output, errors = reslearn("evaluate", "moved.pth", "digits", *KNOWN, "--no-views")
    assert status == 0 and "another order than those of digits" in errors
    assert f"by training images: {', '.join(map(str, order))}; put these names" in output
    assert f"error {usual['top1_error_pct']:.2f} %" in output
    known = [*KNOWN, "--set", "model.zero_pad=split", "--set", "model.subsample=slice"]
    status, output, _ = reslearn("evaluate", "moved.pth", "digits", *known, "--no-views")
    assert status == 0 and f"by training images: {', '.join(map(str, order))}" in output
    assert "leaves open" not in output and f"error {usual['top1_error_pct']:.2f} %" in output
    given = "--set model.zero_pad=split --set model.subsample=slice --mean"
    assert f"to use it again: reslearn evaluate moved.pth digits {given}" in output
    assert " --size 8 --class-names FILE" in output
    Path("names.txt").write_text("\n".join(map(str, order)))
    status, output, _ = reslearn(
        "evaluate", "moved.pth", "digits", *KNOWN, "--class-names", "names.txt", "--json"
    )
    assert (status, json.loads(output)["top1_error_pct"]) == (0, usual["top1_error_pct"])
