"""Every dialect goes through: the project's own names and shapes are recognized; written, identified, read and compared bit for bit."""

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
from reslearn.models import Network

RECORDED = Path(__file__).parents[1] / "interop" / "recorded"
SUFFIXES = {
    "pth": ".pth",
    "safetensors": ".safetensors",
    "pkl": ".pkl",
    "caffemodel": ".caffemodel",
    "h5": ".h5",
}
# As small as the dialect's networks come.
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
        raise AssertionError("identified by names and shapes alone")

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
    # And the other way round: what is written has the project's names, each in the project's shape, and no others.
    with torch.device("meta"):
        network = models.build(**identity.spec, num_classes=identity.num_classes or 1)
    written = {
        theirs: name
        for name in network.state_dict()
        if (theirs := identity.dialect.foreign_name(name)) is not None
    }
    extra = {name for name in shapes if name not in written}
    assert set(written) <= set(shapes)
    assert all(identity.dialect.extra for _ in extra), extra


@pytest.mark.parametrize(
    ("name", "shape"),
    [("bn_conv1.2", [0]), ("bn_conv1.2", [2]), ("conv1.1", [1]), ("conv1.1", [2, 64])],
)
def test_what_is_divided_by_or_taken_off_has_its_shape_too(name: str, shape: list[int]) -> None:
    """A bias of one number would be taken off every channel without a word, and a factor of none is no factor."""
    caffe = next(shapes for dialect, _, shapes in RECORDS if dialect == "caffe")
    with pytest.raises(WeightsError, match=f"nearest dialect is caffe, but {name} is"):
        identify_checkpoint(checkpoint_of({**caffe, name: shape}))


def test_every_dialect_was_recorded_or_is_listed_as_unsupported() -> None:
    assert {dialect for dialect, _, _ in RECORDS} | {"reslearn"} == set(dialects())
    assert not set(unsupported()) & set(dialects())
    assert all(reason for reason in unsupported().values())


def network(dialect: Dialect) -> Network:
    """The smallest network of a dialect, with weights, statistics and counters of chance."""
    switches = {
        key: value[0] if isinstance(value, list) else value for key, value in dialect.spec.items()
    }
    name = SMALLEST.get(dialect.name, dialect.example)
    if not name.endswith("50"):
        switches.pop("stride_in", None)  # of bottlenecks only
    if switches.get("shortcut") != "A":
        switches = {
            key: value for key, value in switches.items() if key not in ("zero_pad", "subsample")
        }
    net = models.build(name, num_classes=7, **switches)
    for tensor in net.state_dict().values():
        if tensor.is_floating_point():
            tensor.uniform_(0.5, 1.5)
    return net


@pytest.mark.parametrize(
    "name", [name for name in dialects() if name != "caffe-deep"]
)  # 170 MB, and caffe's own rules but for block names
def test_written_identified_read_and_compared(name: str, tmp_path: Path) -> None:
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
        same: dict[str, Any] = {
            key: value for key, value in net.spec.items() if key not in ("init", "num_classes")
        }
        assert {key: value for key, value in identity.spec.items() if key in same} == same
        with torch.device("meta"):
            again = models.build(**identity.spec, num_classes=7)
        again = again.to_empty(device="cpu")
        loaded = load_weights(again, identity)
        fresh = () if dialect.has_head else ("head.fc.weight", "head.fc.bias")
        assert (loaded.fresh, loaded.adapted, loaded.unused) == (fresh, (), ())
        ours, theirs = net.state_dict(), again.state_dict()
        assert [
            key
            for key, value in ours.items()
            if key not in fresh and not torch.equal(value, theirs[key])
        ] == []
        assert list(tmp_path.iterdir()) == [path], "nothing is left beside it"
        path.unlink()


def test_a_wide_network_computes_what_its_source_says(tmp_path: Path) -> None:
    """Names and shapes are not all: what the projection and the shortcut see is. wideresnet.py, told again in a few lines of functions."""
    net = network(dialects()["wrn"])
    write_weights(net, tmp_path / "wide.pth", dialects()["wrn"])
    state = torch.load(tmp_path / "wide.pth")

    def active(name: str, x: torch.Tensor) -> torch.Tensor:
        mean, variance, weight, bias = (
            state[f"{name}.{leaf}"] for leaf in ("running_mean", "running_var", "weight", "bias")
        )
        return functional.relu(functional.batch_norm(x, mean, variance, weight, bias))

    image = torch.rand(2, 3, 16, 16)
    x = functional.conv2d(image, state["conv1.weight"], padding=1)
    for stage in (1, 2, 3):  # of one block each, which all project
        begin, stride = f"block{stage}.layer.0.", 1 if stage == 1 else 2
        x = active(f"{begin}bn1", x)
        shortcut = functional.conv2d(x, state[f"{begin}convShortcut.weight"], stride=stride)
        x = functional.conv2d(x, state[f"{begin}conv1.weight"], stride=stride, padding=1)
        x = (
            functional.conv2d(active(f"{begin}bn2", x), state[f"{begin}conv2.weight"], padding=1)
            + shortcut
        )
    logits = functional.linear(active("bn1", x).mean((2, 3)), state["fc.weight"], state["fc.bias"])
    torch.testing.assert_close(load_network(tmp_path / "wide.pth")(image), logits)


def test_a_checkpoint_of_a_training_is_looked_through(tmp_path: Path) -> None:
    """A prefix, a wrapper, an average, an optimizer and settings: the habits of trainers."""
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


def test_a_prefix_is_found_where_every_block_calls_a_layer_as_the_stem_does(tmp_path: Path) -> None:
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


def test_a_network_that_the_project_does_not_have_is_not_written(tmp_path: Path) -> None:
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
