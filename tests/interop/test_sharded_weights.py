"""Weights in several files with an index, as save_pretrained writes large networks."""

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import safetensors.torch
import torch

from reslearn.interop import WeightsError, identify, load_network, read_checkpoint

sys.path.insert(0, str(Path(__file__).parent))
from layouts import small_network, state_of

Run = Callable[..., tuple[int, str, str]]
IMAGE = torch.rand(1, 3, 32, 32)


def sharded(folder: Path, *, safe: bool = True) -> Path:
    """Write resnet8 as two files and an index, and return the folder."""
    folder.mkdir()
    state = state_of(small_network())
    stem, suffix = ("model", ".safetensors") if safe else ("pytorch_model", ".bin")
    weight_map = {}
    for number in (1, 2):
        names = [name for name in state if name.startswith("layer") == (number == 2)]
        part = {name: state[name] for name in names}
        file_name = f"{stem}-0000{number}-of-00002{suffix}"
        if safe:
            safetensors.torch.save_file(part, folder / file_name, {"format": "pt"})
        else:
            torch.save(part, folder / file_name)
        weight_map |= dict.fromkeys(part, file_name)
    index = {"metadata": {"total_size": 1}, "weight_map": weight_map}
    (folder / f"{stem}{suffix}.index.json").write_text(json.dumps(index))
    return folder


def with_map(folder: Path, change: Callable[[dict[str, str]], None]) -> Path:
    path = folder / "model.safetensors.index.json"
    content = json.loads(path.read_text())
    change(content["weight_map"])
    path.write_text(json.dumps(content))
    return path


@pytest.mark.parametrize("safe", [True, False])
def test_all_files_are_one_network(safe: bool, tmp_path: Path, reslearn: Run) -> None:
    folder = sharded(tmp_path / "hub", safe=safe)
    assert torch.equal(load_network(folder)(IMAGE), small_network()(IMAGE))
    checkpoint = identify(folder).checkpoint
    assert len(checkpoint.shards) == 2 and checkpoint.container.endswith(", 2 files")
    assert load_network(checkpoint.path)(IMAGE).shape == (1, 5), "the index is a source too"
    status, output, errors = reslearn("inspect", folder)
    assert (status, errors) == (0, "") and "resnet8: shortcut B" in output


def test_a_missing_file_is_named(tmp_path: Path, reslearn: Run) -> None:
    folder = sharded(tmp_path / "hub")
    (folder / "model-00002-of-00002.safetensors").unlink()
    status, _, errors = reslearn("inspect", folder)
    assert (status, errors.count("\n")) == (2, 1)
    assert "model-00002-of-00002.safetensors is missing" in errors


@pytest.mark.parametrize(
    "place",
    [
        "../model.safetensors",
        "/etc/model.safetensors",
        "sub/model.safetensors",
        "..\\model.safetensors",
        "C:model.safetensors",
        "",
        "..",
        "model.safetensors.index.json",
        "model.py",
        "a\n.safetensors",
    ],
)
def test_an_index_that_points_elsewhere_is_refused(place: str, tmp_path: Path) -> None:
    folder = sharded(tmp_path / "hub")
    (tmp_path / "model.safetensors").write_bytes(b"")
    path = with_map(folder, lambda weight_map: weight_map.update({"conv1.weight": place}))
    with pytest.raises(WeightsError, match=r"refused: it names .* must lie beside it") as raised:
        identify(folder)
    assert str(path) in str(raised.value) and "\n" not in str(raised.value)


def test_a_tensor_that_is_not_in_its_file_is_named(tmp_path: Path) -> None:
    folder = sharded(tmp_path / "hub")
    other = "model-00002-of-00002.safetensors"
    with_map(folder, lambda weight_map: weight_map.update({"conv1.weight": other}))
    with pytest.raises(WeightsError, match=rf"conv1\.weight is not in {re.escape(other)}"):
        identify(folder)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"weight_map": {}}', '{"weight_map": {"a": 3}}'])
def test_a_damaged_index_is_refused(text: str, tmp_path: Path) -> None:
    folder = sharded(tmp_path / "hub")
    (folder / "model.safetensors.index.json").write_text(text)
    with pytest.raises(WeightsError, match=r"the file is empty|damaged, or not an index"):
        identify(folder)


def test_the_number_of_files_has_a_limit(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors.index.json"
    names = {f"{number}": f"{number}.safetensors" for number in range(1_001)}
    path.write_text(json.dumps({"weight_map": names}))
    with pytest.raises(WeightsError, match="names 1,001 files; at most 1,000"):
        read_checkpoint(path)


@pytest.mark.filterwarnings("ignore:hub:UserWarning")
def test_a_changed_file_is_another_start_of_a_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """environment.json records a digest of all files, not of the index alone."""
    from reslearn.train.initial_weights import _sha256

    monkeypatch.chdir(tmp_path)
    folder = sharded(tmp_path / "hub")
    digests = [_sha256(identify(folder), "hub", None)]
    state = safetensors.torch.load_file(folder / "model-00002-of-00002.safetensors")
    first = next(iter(state))
    safetensors.torch.save_file(
        {**state, first: state[first] + 1}, folder / "model-00002-of-00002.safetensors"
    )
    digests.append(_sha256(identify(folder), "hub", None))
    assert digests[0] != digests[1]
