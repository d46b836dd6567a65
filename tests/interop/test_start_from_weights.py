"""Weights are loaded into networks and trainings, through Python and the command line."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from reslearn import models, recipes
from reslearn.data import DataError
from reslearn.interop import (
    WeightsError,
    create_model,
    dialect_named,
    identify,
    load_network,
    load_weights,
    read_bundle,
    write_weights,
)
from reslearn.interop.load import OUTPUT_SWITCHES
from reslearn.models import Network
from reslearn.runs import RunFolder

SMALL = (
    "--set",
    "schedule.kind=constant",
    "--set",
    "schedule.duration=2 steps",
    "--set",
    "data.train_images=40",
    "--set",
    "evaluation.recompute_images=0",
    "-b",
    "10",
    "--threads",
    "1",
)
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def reslearn(reslearn: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    """Run commands in a temporary folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RESLEARN_DATA", str(tmp_path))
    return reslearn


def test_inspect_identifies_project_and_network(weights: Path, reslearn: Run) -> None:
    status, output, errors = reslearn("inspect", str(weights), "--json")
    assert (status, errors) == (0, "")
    inspection = json.loads(output)
    assert (
        inspection["dialect"],
        inspection["model"]["name"],
        inspection["model"]["shortcut"],
    ) == (
        "cifar-fc",
        "resnet8",
        "B",
    )
    assert (
        inspection["num_classes"],
        inspection["not_finite"],
        inspection["all_zero"],
        inspection["unmatched"],
    ) == (
        5,
        [],
        [],
        [],
    )
    counted = models.complexity(models.build("resnet8", num_classes=5, shortcut="B"))
    assert (inspection["parameters"], inspection["macs"], inspection["has_optimizer"]) == (
        counted.parameters,
        counted.macs,
        False,
    )
    text = reslearn("inspect", str(weights))[1]
    for part in (
        "dialect cifar-fc",
        "resnet8: shortcut B, stem cifar",
        "5 classes, 3 input channels",
        "--init",
    ):
        assert part in text


def test_inspect_of_a_missing_file(reslearn: Run) -> None:
    for name in ("absent.caffemodel", "absent.pkl", "absent.pth", "absent.th"):
        assert "there is no such file" in reslearn("inspect", name)[2]


def test_inspect_lists_nan_and_zero_tensors(weights: Path, reslearn: Run) -> None:
    state = torch.load(weights)
    state["layer1.0.conv1.weight"].zero_()
    state["fc.weight"][0, 0] = float("nan")
    torch.save(state, weights)
    inspection = json.loads(reslearn("inspect", str(weights), "--json")[1])
    assert (inspection["not_finite"], inspection["all_zero"]) == (
        ["fc.weight"],
        ["layer1.0.conv1.weight"],
    )


def test_export_writes_a_file_and_does_not_replace_one(
    weights: Path, reslearn: Run, tmp_path: Path
) -> None:
    status, output, _ = reslearn(
        "export", str(weights), "--to", "reslearn", "--out", "ours.safetensors"
    )
    assert status == 0 and "resnet8 in dialect reslearn" in output
    assert torch.equal(
        load_network(tmp_path / "ours.safetensors").state_dict()["stem.conv.weight"],
        torch.load(weights)["conv1.weight"],
    )
    assert (
        "already exists"
        in reslearn("export", str(weights), "--to", "reslearn", "--out", "ours.safetensors")[2]
    )
    status, _, errors = reslearn(
        "export", str(weights), "--to", "fb.resnet.torch", "--out", "x.pth"
    )
    assert (status, errors.count("\n")) == (2, 1) and "Lua" in errors


@pytest.fixture(scope="module")
def detector(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Network]:
    """Write a detector: a backbone behind a prefix, which strides in the 1x1, and another head."""
    tmp_path = tmp_path_factory.mktemp("detector")
    net = models.build("resnet50", num_classes=1, stride_in="1x1").eval()
    write_weights(net, tmp_path / "backbone.pth", dialect_named("maskrcnn-benchmark"))
    state = {
        f"backbone.body.{name}": tensor
        for name, tensor in torch.load(tmp_path / "backbone.pth").items()
    }
    torch.save(
        {"model": state | {"rpn.head.conv.weight": torch.zeros(2)}}, tmp_path / "detector.pth"
    )
    return tmp_path / "detector.pth", net


def test_export_of_a_detectors_backbone(
    detector: tuple[Path, Network], reslearn: Run, tmp_path: Path
) -> None:
    path, net = detector
    inspection = json.loads(reslearn("inspect", str(path), "--json")[1])
    assert inspection["command"] == f"reslearn train DATA --init {path}"
    assert inspection["beside"] == ["rpn.head.conv.weight"], "it needs no --partial"
    status, output, errors = reslearn("export", str(path), "--to", "caffe", "--out", "x.caffemodel")
    assert (
        (status, errors) == (0, "")
        and "without a head" in output
        and "left out: rpn.head.conv.weight" in output
    )
    identity = identify(tmp_path / "x.caffemodel")
    assert (identity.dialect.name, identity.num_classes, identity.unmatched) == ("caffe", None, ())
    again = load_network(identity, num_classes=1)
    image = torch.randn(1, 3, 64, 64)
    assert torch.equal(again.forward_features(image), net.forward_features(image))


@pytest.mark.filterwarnings("default")  # a warning about the new head
def test_undetermined_switches_can_be_supplied(
    detector: tuple[Path, Network],
    reslearn: Run,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """MMPretrain's style caffe has the names of style pytorch, which is assumed by default."""
    net, path = detector[1], tmp_path / "caffe-style.pth"
    write_weights(net, path, dialect_named("mmpretrain"))
    image = torch.randn(1, 3, 64, 64)
    assert not torch.allclose(load_network(path)(image), net(image))
    assert torch.equal(load_network(path, stride_in="1x1")(image), net(image))
    assert torch.equal(
        create_model("resnet50", pretrained=str(path), stride_in="1x1")(image), net(image)
    )
    assert "only 1x1" in reslearn("export", str(path), "--to", "caffe", "--out", "x.caffemodel")[
        2
    ].replace("'", "")
    assert (
        reslearn(
            "export", str(path), "--stride-in", "1x1", "--to", "caffe", "--out", "x.caffemodel"
        )[0]
        == 0
    )
    dry = ["train", "digits", *SMALL, "--init", str(path), "--out", "run", "--dry-run"]
    monkeypatch.setattr("reslearn.train.dry_run._step_seconds", lambda *arguments: 0.1)
    _, supplied, errors = reslearn(*dry, "--json", "--set", "model.stride_in=1x1")
    with torch.device("meta"):
        ours, usual = (
            models.build("resnet50", num_classes=10, in_channels=1, stride_in=stride_in)
            for stride_in in ("1x1", "3x3")
        )
    assert json.loads(supplied)["macs"] == models.complexity(ours, (1, 8, 8)).macs
    assert json.loads(supplied)["macs"] < models.complexity(usual, (1, 8, 8)).macs
    assert "overrides the recipe" not in errors
    for switch, message in {
        "zero_pad": "may be set: stride_in",
        "stride_in": "allowed are",
    }.items():
        with pytest.raises(ValueError, match=message):
            load_network(path, **{switch: "split"})


@pytest.mark.filterwarnings("default")  # warnings go to standard error
def test_training_from_weights_adopts_their_switches(
    weights: Path, reslearn: Run, tmp_path: Path
) -> None:
    flags = ["train", "digits", *SMALL, "--set", "optimizer.lr=1e-12", "--out", "run", "--json"]
    status, _, errors = reslearn(*flags, "--init", str(weights))
    assert status == 0, errors
    assert (
        "left as initialized: head.fc.weight, head.fc.bias" in errors
        and "adapted to the number of input channels: stem.conv.weight" in errors
    )
    folder = RunFolder.open(tmp_path / "run")
    switches = {
        key: value for key, value in folder.recipe["model"].items() if key in OUTPUT_SWITCHES
    }
    usual = recipes.load("digits").model.model_dump()
    assert switches == {key: usual[key] for key in OUTPUT_SWITCHES} | {"shortcut": "B"}, (
        "switches that the name implies are not recorded"
    )
    assert folder.recipe["model"]["name"] == "resnet8"
    assert (folder.recipe["init"]["source"], folder.environment["init"]["dialect"]) == (
        str(weights),
        "cifar-fc",
    )
    trained = read_bundle(
        folder.bundle_path
    ).network.state_dict()  # by two steps of next to nothing
    state = torch.load(weights)
    torch.testing.assert_close(
        trained["stage1.0.body.conv1.weight"], state["layer1.0.conv1.weight"], rtol=0, atol=1e-6
    )
    torch.testing.assert_close(
        trained["stem.conv.weight"], state["conv1.weight"].sum(1, keepdim=True), rtol=0, atol=1e-6
    )
    assert reslearn(*flags, "--init", str(weights), "--resume")[0] == 0


def test_training_from_weights_with_nan_is_refused(
    weights: Path, reslearn: Run, tmp_path: Path
) -> None:
    stored = torch.load(weights, weights_only=True)
    next(iter(stored.values()))[0, 0] = float("nan")
    torch.save(stored, weights)
    status, _, errors = reslearn(
        "train",
        "digits",
        "--init",
        str(weights),
        "--partial",
        *SMALL,
        "--out",
        str(tmp_path / "run"),
    )
    assert status == 2 and "stem.conv.weight holds NaN or infinity" in errors
    assert not (tmp_path / "run" / "diverged.json").exists()


def test_mismatching_tensors_are_listed_in_the_error(
    weights: Path, reslearn: Run, tmp_path: Path
) -> None:
    net = models.build("resnet14", num_classes=5, shortcut="B")
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    with pytest.raises(
        WeightsError, match=r"do not match: stage1\.1\.body\.conv1\.weight"
    ) as raised:
        load_weights(net, weights)
    assert "\n" not in str(raised.value)
    assert all(torch.equal(before[name], tensor) for name, tensor in net.state_dict().items()), (
        "the network is unchanged"
    )
    loaded = load_weights(net, weights, partial=True)
    assert "stage1.1.body.conv1.weight" in loaded.left_initialized
    status, _, errors = reslearn(
        "train", "digits", "--model", "resnet14", "--init", str(weights), "--out", "run"
    )
    assert (status, errors.count("\n")) == (2, 1) and "resnet8, not of resnet14" in errors
    assert not (tmp_path / "run").exists()


def test_quantized_weights_are_refused(weights: Path) -> None:
    state = torch.load(weights)
    state["fc.weight"] = (state["fc.weight"] * 100).to(torch.int8)
    torch.save(state, weights)
    net = models.build("resnet8", num_classes=5, shortcut="B")
    with pytest.raises(
        WeightsError, match=r"1 tensor does not match: head\.fc\.weight \(torch\.int8 in the file\)"
    ):
        load_weights(net, weights)
    assert load_weights(net, weights, partial=True).left_initialized == ("head.fc.weight",)


def test_a_different_switch_is_an_error_even_if_shapes_agree(tmp_path: Path) -> None:
    net = models.build("resnet8", num_classes=5, zero_pad="split")
    write_weights(net, tmp_path / "a.pth", dialect_named("cifar-linear"))
    with pytest.raises(
        WeightsError, match="zero_pad 'split' of the weights, 'append' of the network"
    ):
        load_weights(models.build("resnet8", num_classes=5), tmp_path / "a.pth")


def test_offline_error_names_the_url_and_the_local_file(
    reslearn: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(WeightsError, match="similar names"):
        identify("torchvision:resnet19")
    monkeypatch.setattr(
        "reslearn.interop.pretrained._url_of",
        lambda name: "http://127.0.0.1:9/resnet18-f37072fd.pth",
    )
    monkeypatch.setattr("reslearn.data.fetch.time.sleep", lambda seconds: None)
    with pytest.raises(
        DataError, match=r"127\.0\.0\.1:9/resnet18-f37072fd\.pth .*weights"
    ) as raised:
        identify("torchvision:resnet18")
    assert "\n" not in str(raised.value)
    kept = tmp_path / "weights" / "resnet18-f37072fd.pth"
    kept.parent.mkdir()
    kept.write_bytes(b"something else")
    with pytest.raises(DataError, match="sha256"):
        identify("torchvision:resnet18")
    with pytest.raises(WeightsError, match="add the digest"):
        identify("https://example.org/model.pth")
