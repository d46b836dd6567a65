"""Heads and averages that lie in another table of the file than their network."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from reslearn.interop import Identity, identify_checkpoint, load_network, read_checkpoint

sys.path.insert(0, str(Path(__file__).parent))
from layouts import State, behind, small_network, state_of, without_head

Run = Callable[..., tuple[int, str, str]]
IMAGE = torch.rand(1, 3, 32, 32)
NETWORK = small_network()
STATE = state_of(NETWORK)
TRUNK = without_head(STATE)
HEAD: State = {"weight": STATE["fc.weight"], "bias": STATE["fc.bias"]}


def saved(path: Path, **content: Any) -> Path:
    torch.save(content, path)
    return path


def identified(path: Path, **content: Any) -> Identity:
    return identify_checkpoint(read_checkpoint(saved(path, **content)))


FILES: dict[str, dict[str, Any]] = {
    "classifier_state_dict": {"state_dict": TRUNK, "classifier_state_dict": HEAD},
    "backbone and head": {"backbone": behind("module.", TRUNK), "head": behind("fc.", HEAD)},
    "nested": {"model": {"backbone": TRUNK, "fc": HEAD}, "epoch": 3},
    "loose": {"backbone": TRUNK, **behind("fc.", HEAD)},
    "average": {
        "backbone": TRUNK,
        "classifier": HEAD,
        "classifier_ema": {name: torch.zeros_like(tensor) for name, tensor in HEAD.items()},
    },
}


@pytest.mark.parametrize("kind", FILES)
def test_the_only_head_in_another_table_is_taken(tmp_path: Path, kind: str) -> None:
    identity = identified(tmp_path / "net.pth", **FILES[kind])
    assert (identity.num_classes, identity.unexplained) == (5, ())
    assert identity.checkpoint.other_keys in ((), ("epoch",), ("classifier_ema",))
    assert any("its head is taken from the" in note for note in identity.notes)
    assert torch.equal(load_network(identity)(IMAGE), NETWORK(IMAGE))


def test_a_head_without_a_bias_in_another_table(tmp_path: Path) -> None:
    head = {"weight": HEAD["weight"]}
    identity = identified(tmp_path / "net.pth", backbone=TRUNK, classifier=head)
    outputs = load_network(identity)(IMAGE) + HEAD["bias"]
    torch.testing.assert_close(outputs, NETWORK(IMAGE))


NO_HEADS: dict[str, dict[str, Any]] = {
    "two": {"classifier": HEAD, "head": HEAD | {"bias": torch.ones(5)}},
    "several layers": {"head": {"0.weight": torch.zeros(8, 64), "2.weight": torch.zeros(5, 8)}},
    "a batch norm": {"head": {**HEAD, "running_mean": torch.zeros(5)}},
    "a kernel": {"head": {"conv.weight": torch.zeros(5, 64, 1, 1)}},
    "an average": {"head_ema": HEAD},
    "another width": {"head": {"weight": torch.zeros(5, 128), "bias": torch.zeros(5)}},
    "projection": {"projection_head": HEAD},
    "metric learning": {"arcface_head": {"weight": HEAD["weight"]}},
    "another task": {"domain_classifier": HEAD},
    "no name": {"second": HEAD},
}


@pytest.mark.parametrize("kind", NO_HEADS)
def test_what_may_be_no_head_is_named(tmp_path: Path, kind: str) -> None:
    tables = NO_HEADS[kind]
    identity = identified(tmp_path / "net.pth", backbone=TRUNK, **tables)
    assert (identity.entry, identity.num_classes) == ("backbone", None)
    (note,) = [note for note in identity.notes if "so there are no classes" in note]
    assert all(name in note for name in tables)


def test_a_matrix_in_the_own_table_may_lie_before_the_head(tmp_path: Path) -> None:
    table = behind("net.", TRUNK) | {"projector.weight": torch.zeros(64, 64)}
    identity = identified(tmp_path / "net.pth", state_dict=table, classifier=HEAD)
    assert identity.num_classes is None
    assert any("another table (classifier)" in note for note in identity.notes)


AVERAGED_STATE = state_of(small_network(seed=1))
SHADOW = {
    name: tensor for name, tensor in AVERAGED_STATE.items() if name.endswith((".weight", ".bias"))
}
AVERAGES: dict[str, tuple[str, dict[str, Any]]] = {
    "names": ("ema.shadow", {"state_dict": STATE, "ema": {"decay": 0.9, "shadow": SHADOW}}),
    "other prefix": (
        "model_ema",
        {"model": behind("module.", STATE), "model_ema": behind("net.", SHADOW)},
    ),
    "order": (
        "ema.shadow_params",
        {"model": STATE, "ema": {"decay": 0.9, "shadow_params": [*SHADOW.values()]}},
    ),
    "order at the top": (
        "shadow_params",
        {"model": STATE, "shadow_params": [*SHADOW.values()], "collected_params": None},
    ),
}


def test_a_list_of_all_averages_has_statistics_of_its_own(tmp_path: Path) -> None:
    path = saved(tmp_path / "net.pth", model=STATE, ema=[*AVERAGED_STATE.values()])
    outputs = load_network(path, entry="ema")(IMAGE)
    assert torch.equal(outputs, small_network(seed=1)(IMAGE))


@pytest.mark.parametrize("kind", AVERAGES)
def test_an_average_of_parameters_has_the_statistics_of_the_network(
    tmp_path: Path, kind: str
) -> None:
    entry, content = AVERAGES[kind]
    path = saved(tmp_path / "net.pth", **content)
    assert torch.equal(load_network(path)(IMAGE), NETWORK(IMAGE))
    identity = identify_checkpoint(read_checkpoint(path))
    assert [(each.entry, each.is_average) for each in identity.further] == [(entry, True)]
    assert identity.unread_averages == ()
    average = identify_checkpoint(read_checkpoint(path), entry=entry)
    assert any("batch-norm statistics are those of" in note for note in average.notes)
    expected = small_network(seed=1)
    statistics = {
        name: tensor for name, tensor in NETWORK.state_dict().items() if "running" in name
    }
    expected.load_state_dict(statistics, strict=False)
    assert average.unexplained == ()
    assert torch.equal(load_network(path, entry=entry)(IMAGE), expected(IMAGE))


NO_AVERAGES: dict[str, Any] = {
    "shadow_params": [*SHADOW.values()][1:],
    "shadow": {name: tensor for name, tensor in SHADOW.items() if "layer2" not in name},
    "momentum": SHADOW,
    "exp_avg": SHADOW,
}


@pytest.mark.parametrize("name", NO_AVERAGES)
def test_averages_that_do_not_fit_are_not_offered(tmp_path: Path, name: str, reslearn: Run) -> None:
    path = saved(tmp_path / "net.pth", model=STATE, **{name: NO_AVERAGES[name]})
    inspection = json.loads(reslearn("inspect", path, "--json")[1])
    assert (inspection["averages"], inspection["networks"]) == ([], [])
    assert any(note.startswith(f"{name} is named as an average") for note in inspection["notes"])
    status, _, errors = reslearn("inspect", path, "--entry", name)
    assert status == 2 and "does not fit the parameters of another table" in errors


def test_inspect_names_the_table_of_the_head(tmp_path: Path, reslearn: Run) -> None:
    path = saved(tmp_path / "net.pth", **FILES["classifier_state_dict"])
    status, output, errors = reslearn("inspect", path, "--json")
    inspection = json.loads(output)
    assert (status, errors, inspection["num_classes"], inspection["others"]) == (0, "", 5, [])
    assert "taken from the table classifier_state_dict" in " ".join(inspection["notes"])
