"""Every dialect is recognized from recorded names, and written and read bit for bit."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional

from reslearn import models
from reslearn.interop import (
    Checkpoint,
    Identity,
    StoredTensor,
    WeightsError,
    dialects,
    identify,
    identify_checkpoint,
    load_network,
    load_weights,
    read_checkpoint,
    unsupported,
    write_weights,
)
from reslearn.interop.dialect import Dialect
from reslearn.interop.table_networks import names_and_structure
from reslearn.models import Network
from reslearn.switches import SWITCHES

RECORDED = Path(__file__).parents[1] / "interop" / "recorded"
SUFFIXES = {
    "pth": ".pth",
    "safetensors": ".safetensors",
    "pkl": ".pkl",
    "caffemodel": ".caffemodel",
    "h5": ".h5",
}
# The smallest network of each dialect.
SMALLEST = {
    "torchvision": "resnet18",
    "hf": "resnet18",
    "detectron2": "resnet18",
    "timm-d": "resnet18d",
    "timm-v2": "resnetv2_18",
    "mmpretrain": "resnet18",
    "mmpretrain-c": "resnet18",
    "mmpretrain-d": "resnet18d",
    "maskrcnn-benchmark": "resnet18",
    "cifar-linear": "resnet8",
    "cifar-fc": "resnet8",
    "cifar-zoo": "resnet8",
    "cifar-hysts": "resnet8",
    "cifar-dxy": "resnet8",
    "wrn": "wrn10_2",
    "reslearn": "resnet8",
}


def recorded() -> Iterator[tuple[str, str, dict[str, list[int]]]]:
    for path in sorted(RECORDED.glob("*.json")):
        for net, shapes in json.loads(path.read_text(encoding="utf-8")).items():
            yield path.stem, net, shapes


RECORDS = list(recorded())


def checkpoint_of(shapes: Mapping[str, list[int]]) -> Checkpoint:
    def never() -> torch.Tensor:
        raise AssertionError("identification must not read values")

    tensors = {
        name: StoredTensor(shape=tuple(shape), dtype=torch.float32, read=never)
        for name, shape in shapes.items()
    }
    return Checkpoint(path=Path("recorded"), container="recorded", entries={"": tensors})


@pytest.mark.parametrize(
    ("dialect", "net", "shapes"), RECORDS, ids=[f"{dialect}-{net}" for dialect, net, _ in RECORDS]
)
def test_names_and_shapes_recorded_from_the_project_are_recognized(
    dialect: str, net: str, shapes: dict[str, list[int]]
) -> None:
    identity = identify_checkpoint(checkpoint_of(shapes))
    assert (identity.dialect.name, identity.spec["name"], identity.unmatched) == (dialect, net, ())
    headless = dialect == "maskrcnn-benchmark"
    assert identity.num_classes == (
        None if headless else 10 if identity.spec["stem"] == "cifar" else 1000
    )
    # A written file has exactly the project's names.
    with torch.device("meta"):
        network = models.build(**identity.spec, num_classes=identity.num_classes or 1)
    names = {identity.dialect.foreign_name(name) for name in network.state_dict()} - {None}
    assert names <= set(shapes)
    # Only a dialect with extra tensors may have other names.
    assert identity.dialect.extra or names == set(shapes)


# Why structure alone does not read a dialect. Each other dialect is read in both ways.
_FLAT_NAMES = "its names have no paths, so no part of a name shows where a block begins"
_PRE_ACTIVATION = "its shapes do not show whether a projection comes before or after a batch norm"
NOT_BY_STRUCTURE = {
    "caffe": _FLAT_NAMES,
    "caffe-deep": _FLAT_NAMES,
    "keras": _FLAT_NAMES,
    "timm-v2": _PRE_ACTIVATION,
    "wrn": _PRE_ACTIVATION,
}
# Switches that names and shapes show, and the average pool that positions in a sequence show.
VISIBLE = [
    name for name, switch in SWITCHES.items() if switch.in_weights in ("visible", "by dialect")
]


def assert_structure_agrees(by_name: Identity, by_structure: Identity) -> None:
    assert (by_structure.names, by_structure.num_classes) == (by_name.names, by_name.num_classes)
    assert by_structure.unmatched == by_name.unmatched
    for key in ("in_channels", *VISIBLE):
        assert by_structure.spec[key] == by_name.spec[key], key


@pytest.mark.parametrize(
    ("dialect", "net", "shapes"), RECORDS, ids=[f"{dialect}-{net}" for dialect, net, _ in RECORDS]
)
def test_names_and_structure_agree(dialect: str, net: str, shapes: dict[str, list[int]]) -> None:
    (by_name,), by_structure = names_and_structure(checkpoint_of(shapes), "")
    if dialect in NOT_BY_STRUCTURE:
        assert not by_structure, f"remove it: {NOT_BY_STRUCTURE[dialect]}"
        return
    (identity,) = by_structure
    assert_structure_agrees(by_name, identity)


@pytest.mark.parametrize(
    ("name", "shape"),
    [("bn_conv1.2", [0]), ("bn_conv1.2", [2]), ("conv1.1", [1]), ("conv1.1", [2, 64])],
)
def test_factors_and_biases_of_a_wrong_shape_are_refused(name: str, shape: list[int]) -> None:
    """A bias of one value would silently be subtracted from every channel."""
    caffe = next(shapes for dialect, _, shapes in RECORDS if dialect == "caffe")
    with pytest.raises(WeightsError, match=f"nearest dialect is caffe, but {name} is"):
        identify_checkpoint(checkpoint_of({**caffe, name: shape}))


def test_every_dialect_is_recorded_or_unsupported() -> None:
    assert {dialect for dialect, _, _ in RECORDS} | {"reslearn"} == set(dialects())
    assert not set(unsupported()) & set(dialects())
    assert all(reason for reason in unsupported().values())


def network(dialect: Dialect) -> Network:
    """Return the smallest network of a dialect, with random weights and statistics."""
    switches = {
        key: value[0] if isinstance(value, list) else value for key, value in dialect.spec.items()
    }
    name = SMALLEST.get(dialect.name, dialect.example)
    if not name.endswith("50"):
        switches.pop("stride_in", None)  # it has an effect on bottlenecks only
    if switches.get("shortcut") != "A":
        switches = {
            key: value for key, value in switches.items() if key not in ("zero_pad", "subsample")
        }
    with torch.device("meta"):
        net = models.build(name, num_classes=7, **switches)
    net.to_empty(device="cpu")  # so that nothing is drawn twice
    for tensor in net.state_dict().values():
        if tensor.is_floating_point():
            tensor.uniform_(0.5, 1.5)
        else:
            tensor.zero_()
    return net


# caffe-deep would write 170 MB, and differs from caffe only in the names of blocks.
@pytest.mark.parametrize("name", [name for name in dialects() if name != "caffe-deep"])
def test_weights_are_written_identified_and_read_back(name: str, tmp_path: Path) -> None:
    dialect = dialects()[name]
    net = network(dialect)
    for container in dialect.containers if net.name == "resnet8" else dialect.containers[:1]:
        path = tmp_path / f"weights{SUFFIXES[container]}"
        write_weights(net, path, dialect)
        identity = identify(path)
        num_classes = 7 if dialect.has_head else None
        assert (
            identity.dialect.name,
            identity.prefix,
            identity.unmatched,
            identity.num_classes,
        ) == (name, "", (), num_classes)
        expected_spec: dict[str, Any] = {
            key: value for key, value in net.spec.items() if key not in ("init", "num_classes")
        }
        assert {
            key: value for key, value in identity.spec.items() if key in expected_spec
        } == expected_spec
        with torch.device("meta"):
            loaded = models.build(**identity.spec, num_classes=7)
        loaded = loaded.to_empty(device="cpu")
        report = load_weights(loaded, identity)
        fresh = () if dialect.has_head else ("head.fc.weight", "head.fc.bias")
        assert (report.left_initialized, report.adapted, report.unused) == (fresh, (), ())
        state = loaded.state_dict()
        for key, value in net.state_dict().items():
            assert key in fresh or torch.equal(value, state[key]), key
        assert list(tmp_path.iterdir()) == [path], "no temporary file is left"
        if name not in NOT_BY_STRUCTURE:
            _, (by_structure,) = names_and_structure(read_checkpoint(path), identity.entry)
            assert_structure_agrees(identity, by_structure)
            for key in identity.names:
                assert torch.equal(by_structure.read(key), identity.read(key)), key
        path.unlink()


def test_a_wide_network_computes_what_its_source_does(tmp_path: Path) -> None:
    """Compare with wideresnet.py, written as functions.

    Names and shapes do not show the inputs of projections and shortcuts.
    """
    net = network(dialects()["wrn"])
    write_weights(net, tmp_path / "wide.pth", dialects()["wrn"])
    state = torch.load(tmp_path / "wide.pth")

    def normalized_relu(name: str, x: torch.Tensor) -> torch.Tensor:
        mean, variance, weight, bias = (
            state[f"{name}.{leaf}"] for leaf in ("running_mean", "running_var", "weight", "bias")
        )
        return functional.relu(functional.batch_norm(x, mean, variance, weight, bias))

    image = torch.rand(2, 3, 16, 16)
    x = functional.conv2d(image, state["conv1.weight"], padding=1)
    for stage in (1, 2, 3):  # each has one block, with a projection
        begin, stride = f"block{stage}.layer.0.", 1 if stage == 1 else 2
        x = normalized_relu(f"{begin}bn1", x)
        shortcut = functional.conv2d(x, state[f"{begin}convShortcut.weight"], stride=stride)
        x = functional.conv2d(x, state[f"{begin}conv1.weight"], stride=stride, padding=1)
        x = (
            functional.conv2d(
                normalized_relu(f"{begin}bn2", x), state[f"{begin}conv2.weight"], padding=1
            )
            + shortcut
        )
    logits = functional.linear(
        normalized_relu("bn1", x).mean((2, 3)), state["fc.weight"], state["fc.bias"]
    )
    random_state = torch.random.get_rng_state()
    torch.testing.assert_close(load_network(tmp_path / "wide.pth")(image), logits)
    assert torch.equal(torch.random.get_rng_state(), random_state), "no weights are drawn"


def test_the_weights_in_a_training_checkpoint_are_found(tmp_path: Path) -> None:
    """Trainers add a prefix, a wrapper, an average, an optimizer and settings."""
    net = network(dialects()["cifar-linear"])
    write_weights(net, tmp_path / "plain.pth", dialects()["cifar-linear"])
    state = {
        f"module.{name}": tensor for name, tensor in torch.load(tmp_path / "plain.pth").items()
    }
    torch.save(
        {"epoch": 3, "state_dict": state, "state_dict_ema": state, "optimizer": {"state": {0: {}}}},
        tmp_path / "trained.th",
    )
    checkpoint = read_checkpoint(tmp_path / "trained.th")
    assert (checkpoint.default_entry(), checkpoint.averages, checkpoint.has_optimizer) == (
        "state_dict",
        ("state_dict_ema",),
        True,
    )
    identity = identify_checkpoint(checkpoint)
    assert (identity.prefix, identity.dialect.name) == ("module.", "cifar-linear")
    assert (identity.spec["shortcut"], identity.spec["zero_pad"]) == ("A", "split")


def test_prefix_is_found_if_blocks_and_stem_share_a_layer_name(tmp_path: Path) -> None:
    net = models.build("resnet110", num_classes=7, zero_pad="split")
    write_weights(net, tmp_path / "plain.pth", dialects()["cifar-linear"])
    state = {
        f"module.{name}": tensor for name, tensor in torch.load(tmp_path / "plain.pth").items()
    }
    torch.save(state | {"another.conv1.weight": torch.zeros(2)}, tmp_path / "prefixed.pth")
    identity = identify(tmp_path / "prefixed.pth")
    assert (identity.prefix, identity.spec["name"], identity.unmatched) == (
        "module.",
        "resnet110",
        ("another.conv1.weight",),
    )


def test_a_network_that_the_project_does_not_have_is_refused(tmp_path: Path) -> None:
    with torch.device("meta"):
        net = models.build("resnet50", num_classes=2)
    with pytest.raises(ValueError, match="stride_in='1x1'"):
        write_weights(net, tmp_path / "x.pth", dialects()["torchvision"])
    with pytest.raises(ValueError, match="written as"):
        write_weights(
            models.build("resnet8", num_classes=2),
            tmp_path / "x.caffemodel",
            dialects()["reslearn"],
        )
    assert list(tmp_path.iterdir()) == []
