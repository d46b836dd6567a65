"""A folder of save_pretrained is a source for every command and in Python; --entry everywhere."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import safetensors.torch
import torch

from reslearn import models
from reslearn.interop import (
    WeightsError,
    dialect_named,
    from_pretrained,
    identify,
    load_network,
    save_pretrained,
)
from reslearn.interop.write import foreign_state_dict
from reslearn.models import Network

Run = Callable[..., tuple[int, str, str]]
USUAL = ("--mean", "0.5", "--std", "0.25", "--size", "16")


def trained() -> Network:
    """Return resnet8 of dialect cifar-linear. Its statistics are not those of a new network."""
    net = models.build("resnet8", num_classes=10, in_channels=1, zero_pad="split")
    net.train()(torch.rand(8, 1, 16, 16))
    return net.eval()


def hub_folder(folder: Path, *, safe: bool = True) -> tuple[Path, Network]:
    """Write resnet18 as transformers' save_pretrained does, as safetensors or as a .bin file."""
    net = models.build("resnet18", num_classes=3, shortcut="B").eval()
    tensors = foreign_state_dict(net, dialect_named("hf"))
    folder.mkdir()
    if safe:
        safetensors.torch.save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    else:
        torch.save(tensors, folder / "pytorch_model.bin")
    config = {"architectures": ["ResNetForImageClassification"], "model_type": "resnet"}
    (folder / "config.json").write_text(json.dumps(config))
    return folder, net


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return save_pretrained(trained(), tmp_path / "saved")


def test_inspect_evaluate_and_predict_read_a_folder(
    folder: Path, reslearn: Run, make_pictures: Callable[..., Path], tmp_path: Path
) -> None:
    status, output, errors = reslearn("inspect", "saved")
    assert (status, errors) == (0, "")
    assert "resnet8: shortcut A" in output and "--init saved" in output
    options = ("--mean", "0.5", "--std", "0.25", "--size", "8", "--no-views", "--json")
    status, output, errors = reslearn("evaluate", "saved", "digits", *options)
    assert status == 0, errors
    alone = json.loads(output)["top1_error_pct"]
    status, output, errors = reslearn(
        "evaluate", "saved", "saved", "digits", *options[:6], "--json"
    )
    assert status == 0, errors
    assert (json.loads(output)["top1_error_pct"], json.loads(output)["networks"]) == (alone, 2)
    pictures = make_pictures(tmp_path / "photos", test=1)
    status, output, errors = reslearn("predict", "saved", pictures, *USUAL)
    assert (status, output.count("\n")) == (0, 3), errors


def test_export_reads_a_folder(folder: Path, reslearn: Run) -> None:
    status, output, errors = reslearn("export", "saved", "--to", "cifar-linear", "--out", "out.pth")
    assert (status, errors) == (0, "")
    assert output.startswith("out.pth: resnet8 in dialect cifar-linear, with its head")
    x = torch.rand(2, 1, 16, 16)
    assert torch.equal(load_network("out.pth")(x), load_network(folder)(x))
    (folder.parent / "empty").mkdir()
    status, _, errors = reslearn("export", "empty", "--to", "cifar-linear", "--out", "other.pth")
    assert (status, errors.count("\n")) == (2, 1)


@pytest.mark.filterwarnings("ignore:saved:UserWarning")
def test_a_training_starts_from_a_folder(folder: Path, reslearn: Run) -> None:
    options = ("--threads", "1", "--set", "data.train_images=256", "--out", "run", "--epochs", "1")
    status, _, errors = reslearn("train", "digits", "--init", "saved", *options)
    assert status == 0, errors
    environment = json.loads((folder.parent / "run" / "environment.json").read_text())
    assert (environment["init"]["source"], environment["init"]["dialect"]) == ("saved", "reslearn")


@pytest.mark.parametrize("safe", [True, False])
def test_folders_of_transformers_are_read_in_python(tmp_path: Path, safe: bool) -> None:
    folder, net = hub_folder(tmp_path / "resnet-18", safe=safe)
    x = torch.rand(2, 3, 32, 32)
    assert identify(folder).dialect.name == "hf"
    for load in (load_network, from_pretrained):
        assert torch.equal(load(folder)(x), net(x))
        assert torch.equal(load(str(folder))(x), net(x))


def test_a_folder_without_weights_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    for load in (load_network, from_pretrained):
        with pytest.raises(WeightsError, match=r"not a weight file, and has no model\.safetensors"):
            load(tmp_path)


def test_entry_chooses_the_average(
    tmp_path: Path,
    reslearn: Run,
    monkeypatch: pytest.MonkeyPatch,
    make_pictures: Callable[..., Path],
) -> None:
    monkeypatch.chdir(tmp_path)
    dialect = dialect_named("cifar-linear")
    last, average = trained(), trained()
    average.get_classifier().weight.data.mul_(2)
    names = {"state_dict": last, "state_dict_ema": average}
    torch.save({key: foreign_state_dict(net, dialect) for key, net in names.items()}, "both.pth")
    x = torch.rand(2, 1, 16, 16)
    for entry, net in names.items():
        assert torch.equal(load_network("both.pth", entry=entry)(x), net(x))
        options = ("--to", "cifar-linear", "--entry", entry)
        status, _, errors = reslearn("export", "both.pth", *options, "--out", f"{entry}.pth")
        assert (status, errors) == (0, "")
        assert torch.equal(load_network(f"{entry}.pth")(x), net(x))
    pictures = make_pictures(tmp_path / "photos", test=1)
    outputs = [
        reslearn("predict", "both.pth", pictures, *USUAL, "--csv", *entry)
        for entry in ((), ("--entry", "state_dict"), ("--entry", "state_dict_ema"))
    ]
    assert [status for status, _, _ in outputs] == [0, 0, 0]
    assert outputs[0][1] == outputs[1][1] != outputs[2][1]
    options = ("--mean", "0.5", "--std", "0.25", "--size", "8", "--no-views", "--json")
    losses = []
    for entry in names:
        status, output, errors = reslearn(
            "evaluate", "both.pth", "digits", *options, "--entry", entry
        )
        assert status == 0, errors
        losses.append(json.loads(output)["loss"])
    assert losses[0] != losses[1]
    status, _, errors = reslearn("predict", "both.pth", pictures, *USUAL, "--entry", "ema")
    assert (status, errors.count("\n")) == (2, 1)
    assert "has no entry 'ema'" in errors and "'state_dict_ema'" in errors


@pytest.mark.parametrize("option", [("--entry", "state_dict_ema"), ("--partial",)])
def test_options_of_weights_without_weights_are_refused(
    option: tuple[str, ...], reslearn: Run
) -> None:
    status, output, errors = reslearn("train", "digits", *option)
    assert (status, output, errors.count("\n")) == (2, "", 1)
    assert f"{' '.join(option)} needs weights to start from" in errors
