"""The right network of a file is chosen; the others, and what lies beside them, are reported."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from reslearn.interop import Identity, WeightsError, identify_checkpoint, load_network

sys.path.insert(0, str(Path(__file__).parent))
from layouts import (
    State,
    behind,
    checkpoint_of,
    renamed,
    small_network,
    state_of,
    without_head,
)

Run = Callable[..., tuple[int, str, str]]
IMAGE = torch.rand(1, 3, 32, 32)
NETWORK, AVERAGE = small_network(), small_network(seed=1)
STATE, AVERAGED_STATE = state_of(NETWORK), state_of(AVERAGE)
NORMALIZER = {"new_mean": torch.full((3, 1, 1), 0.5), "new_std": torch.full((3, 1, 1), 0.25)}


def is_from(identity: Identity, state: State, prefix: str) -> bool:
    """Return whether an identity reads the values of this state behind a prefix."""
    name = identity.names["stem.conv.weight"]
    return name.startswith(prefix) and torch.equal(
        identity.read("stem.conv.weight"), state["conv1.weight"]
    )


def contrastive(version: int) -> State:
    """Return what MoCo saves: two encoders with projection heads, and a queue."""
    table: State = {}
    for encoder, state in (("encoder_q", STATE), ("encoder_k", AVERAGED_STATE)):
        tensors = dict(state)
        if version == 2:
            tensors["fc.2.weight"], tensors["fc.2.bias"] = (
                tensors.pop("fc.weight"),
                tensors.pop("fc.bias"),
            )
            tensors["fc.0.weight"], tensors["fc.0.bias"] = torch.zeros(64, 64), torch.zeros(64)
        table |= behind(f"module.{encoder}.", tensors)
    return table | {"module.queue": torch.zeros(5, 128), "module.queue_ptr": torch.zeros(1).long()}


@pytest.mark.parametrize("version", [1, 2])
def test_the_query_encoder_of_contrastive_learning_has_no_classes(version: int) -> None:
    identity = identify_checkpoint(checkpoint_of(state_dict=contrastive(version)))
    assert is_from(identity, STATE, "module.encoder_q.")
    assert identity.num_classes is None and identity.unexplained == ()
    assert {"module.queue", "module.queue_ptr"} < set(identity.beside)
    assert ("projection" if version == 1 else "a head of several layers") in identity.notes[0]
    assert [(each.entry, each.is_average) for each in identity.further] == [
        ("state_dict:module.encoder_k.", True)
    ]
    other = identify_checkpoint(
        checkpoint_of(state_dict=contrastive(version)), entry="state_dict:module.encoder_k."
    )
    assert is_from(other, AVERAGED_STATE, "module.encoder_k.")


@pytest.mark.parametrize("prefix", ["", "encoder.", "module.model.encoder."])
def test_a_queue_shows_that_a_head_is_a_projection(prefix: str) -> None:
    table = behind(prefix, STATE) | {"queue": torch.zeros(64, 5)}
    assert identify_checkpoint(checkpoint_of(table=table)).num_classes is None
    assert identify_checkpoint(checkpoint_of(table=behind(prefix, STATE))).num_classes == 5


def test_the_teacher_is_taken_if_it_averages_the_student() -> None:
    """DINO's own evaluation takes the teacher. Its heads lie outside the backbone."""
    head = {"mlp.0.weight": torch.zeros(8, 64), "mlp.2.weight": torch.zeros(4, 8)}
    head |= {"last_layer.weight_g": torch.ones(9, 1), "last_layer.weight_v": torch.zeros(9, 4)}
    tables = {
        name: behind("module.backbone.", without_head(state)) | behind("module.head.", head)
        for name, state in (("student", STATE), ("teacher", AVERAGED_STATE))
    }
    identity = identify_checkpoint(checkpoint_of(**tables))
    assert (identity.entry, identity.num_classes, identity.unexplained) == ("teacher", None, ())
    assert [(each.entry, each.is_average) for each in identity.further] == [("student", False)]
    assert "--entry student" in " ".join(identity.notes)
    assert identify_checkpoint(checkpoint_of(**tables), entry="student").entry == "student"


def test_a_teacher_of_another_shape_is_no_average_and_comes_last() -> None:
    for teacher in (small_network(num_classes=7), small_network(width=2)):
        tables = {"student": STATE, "teacher": state_of(teacher)}
        assert identify_checkpoint(checkpoint_of(**tables)).entry == "student"


def test_a_network_that_is_there_twice_is_read_once() -> None:
    """MadryLab's robustness saves the network, the attacker with the network, and statistics."""
    table = behind("module.normalizer.", NORMALIZER) | behind("module.model.", STATE)
    table |= behind("module.attacker.normalize.", NORMALIZER)
    table |= behind("module.attacker.model.", STATE)
    identity = identify_checkpoint(checkpoint_of(model=table))
    assert (identity.prefix, identity.num_classes) == ("module.model.", 5)
    assert len(identity.beside) == 4 and identity.unexplained == ()
    assert [each.entry for each in identity.further] == ["model:module.attacker.model."]


NAMINGS: dict[str, Callable[[str], str]] = {
    "ema_": lambda name: "ema_" + name.replace(".", "_"),
    "model_ema.": lambda name: "model_ema." + name.replace(".", ""),
    "ema.": lambda name: "ema." + name,
    "_swa": lambda name: name + "_swa",
}


@pytest.mark.parametrize("naming", NAMINGS)
@pytest.mark.parametrize("with_statistics", [True, False])
def test_averages_inside_a_table_are_found(naming: str, with_statistics: bool) -> None:
    """MMDetection's hook averages the parameters; statistics are then those of the network."""
    averages = {
        NAMINGS[naming](f"backbone.{name}"): tensor
        for name, tensor in without_head(AVERAGED_STATE).items()
        if tensor.is_floating_point() and (with_statistics or "running" not in name)
    }
    if naming == "ema." and not with_statistics:
        pytest.skip("a network of its own, without statistics")
    table = behind("backbone.", without_head(STATE)) | averages
    table |= {"neck.convs.0.conv.weight": torch.zeros(8, 64, 1, 1)}
    checkpoint = checkpoint_of(state_dict=table)
    identity = identify_checkpoint(checkpoint)
    assert is_from(identity, STATE, "backbone.") and identity.unexplained == ()
    assert identity.beside == ("neck.convs.0.conv.weight",)
    (average,) = identity.further
    assert average.is_average and average.entry.startswith(f"state_dict:{naming}")
    taken = identify_checkpoint(checkpoint, entry=average.entry)
    assert torch.equal(taken.read("stage3.0.body.conv2.weight"), averaged("layer3.0.conv2.weight"))
    statistics = AVERAGED_STATE if with_statistics else STATE
    mean = taken.read("stage3.0.body.bn2.running_mean")
    assert torch.equal(mean, statistics["layer3.0.bn2.running_mean"])


def averaged(name: str) -> torch.Tensor:
    return AVERAGED_STATE[name]


def test_averages_behind_module() -> None:
    """DistributedDataParallel puts `module.` before the names of buffers too."""
    averages = {
        "module.ema_" + name.replace(".", "_"): tensor for name, tensor in AVERAGED_STATE.items()
    }
    checkpoint = checkpoint_of(state_dict=behind("module.", STATE) | averages)
    identity = identify_checkpoint(checkpoint)
    assert [each.entry for each in identity.further] == ["state_dict:module.ema_"]
    assert identity.num_classes == 5 and identity.unmatched == ()


def test_the_average_of_torchvisions_reference_training(tmp_path: Path, reslearn: Run) -> None:
    """With --model-ema a counter lies beside the average; neither it nor the prefix matters."""
    average = behind("module.", AVERAGED_STATE) | {"n_averaged": torch.tensor(1234)}
    path = tmp_path / "model_3.pth"
    torch.save({"model": STATE, "model_ema": average, "epoch": 3, "optimizer": {}}, path)
    status, output, errors = reslearn("inspect", path, "--json")
    inspection: dict[str, Any] = json.loads(output)
    assert (status, errors, inspection["entry"]) == (0, "", "model")
    assert inspection["averages"] == ["model_ema"] and inspection["unmatched"] == []
    assert inspection["networks"] == [{"entry": "model_ema", "model": "resnet8", "average": True}]
    assert torch.equal(load_network(path)(IMAGE), NETWORK(IMAGE))
    assert torch.equal(load_network(path, entry="model_ema")(IMAGE), AVERAGE(IMAGE))
    assert "average: resnet8, taken by --entry model_ema" in reslearn("inspect", path)[1]
    chosen = json.loads(reslearn("inspect", path, "--entry", "model_ema", "--json")[1])
    assert (chosen["unmatched"], chosen["beside"]) == (["n_averaged"], ["n_averaged"])
    assert chosen["command"] == f"reslearn train DATA --init {path} --entry model_ema"


def test_the_largest_network_of_a_file_is_taken_and_other_tables_are_passed_over() -> None:
    tables = {"discriminator": {"conv.weight": torch.zeros(4, 4, 3, 3)}, "generator": STATE}
    assert identify_checkpoint(checkpoint_of(**tables)).entry == "generator"
    sizes = {"small": without_head(STATE), "large": STATE}
    assert identify_checkpoint(checkpoint_of(**sizes)).entry == "large"


def test_evaluate_predict_and_export_take_an_entry(
    tmp_path: Path, reslearn: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    networks = [small_network(num_classes=10, in_channels=1, seed=seed) for seed in (0, 1)]
    first, second = (
        renamed(state_of(net), (r"^(conv1|bn1)", r"stem_\1"), (r"^fc", "last")) for net in networks
    )
    table = behind("first.", first) | behind("second.", second) | {"queue": torch.zeros(3, 3)}
    torch.save({"state_dict": table}, "two.pth")
    known = ("--mean", "0.5", "--std", "0.25", "--size", "8")
    losses = []
    for entry in ((), ("--entry", "state_dict:first."), ("--entry", "second.")):
        arguments = ("evaluate", "two.pth", "digits", *known, *entry, "--no-views", "--json")
        status, output, errors = reslearn(*arguments)
        assert (status, errors) == (0, "")
        losses.append(json.loads(output)["loss"])
    assert losses[0] == losses[1] != losses[2]
    Image.new("L", (8, 8), 200).save("gray.png")
    status, output, errors = reslearn(
        "predict", "two.pth", "gray.png", *known, "--entry", "second.", "--json"
    )
    pixels = torch.full((1, 1, 8, 8), (200 / 255 - 0.5) / 0.25)
    expected_class = str(int(networks[1](pixels).argmax()))
    assert (status, errors) == (0, "") and f'"{expected_class}"' in output
    arguments = ("--to", "cifar-fc", "--out", "second.pth")
    status, output, errors = reslearn("export", "two.pth", "--entry", "second.", *arguments)
    assert (status, errors) == (0, "") and "left out: queue" in output
    gray = torch.rand(1, 1, 8, 8)
    assert torch.equal(load_network("second.pth")(gray), networks[1](gray))


def test_a_backbone_without_classes_says_what_to_do(tmp_path: Path, reslearn: Run) -> None:
    torch.save({"state_dict": contrastive(1)}, tmp_path / "moco.pth")
    status, _, errors = reslearn("evaluate", tmp_path / "moco.pth", "digits")
    assert (status, errors.count("\n")) == (2, 1)
    assert "without a head of classes" in errors and "projection to 5 values" in errors
    assert f"reslearn train DATA --init {tmp_path / 'moco.pth'}" in errors


@pytest.mark.filterwarnings("default")  # warnings about the new head
def test_a_training_from_an_entry_of_a_file(tmp_path: Path, reslearn: Run) -> None:
    """The queue and the other encoder need no --partial."""
    path, folder = tmp_path / "moco.pth", tmp_path / "run"
    torch.save({"state_dict": contrastive(1)}, path)
    short = ("--set", "schedule.duration=1 steps", "--set", "schedule.kind=constant", "-b", "10")
    short += ("--set", "data.train_images=40", "--set", "evaluation.recompute_images=0")
    short += ("--set", "optimizer.lr=1e-12", "--threads", "1", "--out", str(folder), "--json")
    entry = "state_dict:module.encoder_k."
    status, _, errors = reslearn("train", "digits", "--init", path, "--entry", entry, *short)
    assert status == 0, errors
    recorded = json.loads((folder / "environment.json").read_text(encoding="utf-8"))["init"]
    assert recorded["fresh"] == ["head.fc.weight", "head.fc.bias"]
    trained = load_network(folder / "model.safetensors").state_dict()
    torch.testing.assert_close(
        trained["stage1.0.body.conv1.weight"],
        AVERAGED_STATE["layer1.0.conv1.weight"],
        rtol=0,
        atol=1e-6,
    )


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("state", "has no entry 'state'; its entries are 'state_dict'"),
        ("state_dict:encoder.", "begins with 'encoder.'; names begin with module."),
        ("state_dict:module.queue", "holds no network of the catalog"),
    ],
)
def test_an_entry_that_is_not_there_is_refused_in_one_line(entry: str, message: str) -> None:
    with pytest.raises(WeightsError) as raised:
        identify_checkpoint(checkpoint_of(state_dict=contrastive(1)), entry=entry)
    assert message in str(raised.value) and "\n" not in str(raised.value)


def test_what_may_change_the_function_still_needs_partial() -> None:
    """A batch norm between trunk and head, and a convolution in the network's own scope."""
    for name, tensors in {
        "neck.weight": {f"neck.{leaf}": torch.ones(64) for leaf in ("weight", "running_var")},
        "extra.weight": {"extra.weight": torch.zeros(8, 64, 3, 3)},
    }.items():
        identity = identify_checkpoint(checkpoint_of(table=STATE | tensors))
        assert name in identity.unexplained


def test_batch_norms_in_a_head_of_several_layers_need_no_partial() -> None:
    """MoCo v3 and SimSiam put such a head into the encoder, in the place of its fc."""
    norm = {f"fc.1.{leaf}": torch.ones(32) for leaf in ("weight", "bias", "running_mean")}
    norm["fc.1.running_var"] = torch.ones(32)
    matrices = {"fc.0.weight": torch.zeros(32, 64), "fc.3.weight": torch.zeros(16, 32)}
    table = behind("module.base_encoder.", without_head(STATE) | matrices | norm)
    identity = identify_checkpoint(checkpoint_of(state_dict=table))
    assert (identity.num_classes, identity.unexplained, len(identity.beside)) == (None, (), 6)


@pytest.mark.parametrize(
    ("shape", "is_beside"), [((4, 64), True), ((64, 64), False), ((1, 64), False)]
)
def test_a_second_head_lies_beside_the_network(shape: tuple[int, int], is_beside: bool) -> None:
    """A square matrix may lie before the head, and a single output may weight positions."""
    table = STATE | {"rotation.weight": torch.zeros(shape), "rotation.bias": torch.zeros(shape[0])}
    identity = identify_checkpoint(checkpoint_of(state_dict=table))
    assert identity.num_classes == 5
    names = ("rotation.weight", "rotation.bias")
    assert (identity.beside, identity.unexplained) == ((names, ()) if is_beside else ((), names))


def test_two_equal_heads_are_called_several() -> None:
    heads = {"age.weight": torch.zeros(9, 64), "kind.weight": torch.zeros(2, 64)}
    identity = identify_checkpoint(checkpoint_of(state_dict=without_head(STATE) | heads))
    assert identity.num_classes is None and identity.unexplained == ()
    assert "age.weight, kind.weight: it has several heads" in " ".join(identity.notes)


def test_a_head_behind_another_layer_is_left_out() -> None:
    """Without the batch norm between them the head would see other values."""
    table = behind("backbone.", without_head(STATE))
    neck = {f"neck.{leaf}": torch.ones(64) for leaf in ("weight", "running_mean", "running_var")}
    head = {"classifier.weight": torch.zeros(5, 64), "classifier.bias": torch.zeros(5)}
    assert identify_checkpoint(checkpoint_of(table=table | head)).num_classes == 5
    identity = identify_checkpoint(checkpoint_of(table=table | neck | head))
    assert identity.num_classes is None
    assert "classifier.weight is left out" in " ".join(identity.notes)
