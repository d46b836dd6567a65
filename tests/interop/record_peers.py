"""Record names and shapes of other projects' tensors in tests/interop/recorded/*.json.

    python tests/interop/record_peers.py [DIALECT ...]

Run `make peers` first, and run this script again if versions there change. hf and keras also need
transformers and Keras. Projects that are not in a package registry are listed from the names of
layers in their source, which each dialect file cites. The listing does not use the dialect files.
"""

import json
import os
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[2]))
from benchmarks import peers

Shapes = dict[str, list[int]]
HERE = Path(__file__).parent / "recorded"
BATCH_NORM = ("weight", "bias", "running_mean", "running_var")
COUNTED = (*BATCH_NORM, "num_batches_tracked")


def state(net: torch.nn.Module) -> Shapes:
    return {name: list(tensor.shape) for name, tensor in net.state_dict().items()}


def from_torchvision() -> dict[str, Shapes]:
    import torchvision

    names = ("resnet18", "resnet50", "wide_resnet50_2", "resnext50_32x4d")
    return {name: state(torchvision.models.get_model(name)) for name in names}


def from_timm(*names: str) -> dict[str, Shapes]:
    import timm

    return {name: state(timm.create_model(name)) for name in names}


def from_transformers() -> dict[str, Shapes]:
    from transformers import ResNetConfig, ResNetForImageClassification

    basic = ResNetConfig(
        depths=[2, 2, 2, 2], hidden_sizes=[64, 128, 256, 512], layer_type="basic", num_labels=1000
    )
    bottleneck = ResNetConfig(depths=[3, 4, 6, 3], num_labels=1000)
    return {
        "resnet18": state(ResNetForImageClassification(basic)),
        "resnet50": state(ResNetForImageClassification(bottleneck)),
    }


def from_keras() -> dict[str, Shapes]:
    os.environ["KERAS_BACKEND"] = "torch"
    import keras

    with torch.device("cpu"):
        net = keras.applications.ResNet50(weights=None)
    return {
        "resnet50": {
            f"{layer.name}/{weight.path}": list(weight.shape)
            for layer in net.layers
            for weight in layer.weights
        }
    }


def bottlenecks(blocks: tuple[int, ...]) -> Iterator[tuple[int, int, list[tuple[str, list[int]]]]]:
    """Yield the blocks of a bottleneck ResNet of Table 1.

    A block is its stage (from 0), its number, and its layers: "1", "2", "3" or "projection", each
    with its shape.
    """
    channels = 64
    for stage, count in enumerate(blocks):
        width = 64 * 2**stage
        for block in range(count):
            layers = [("projection", [width * 4, channels, 1, 1])] if block == 0 else []
            layers += [
                ("1", [width, channels, 1, 1]),
                ("2", [width, width, 3, 3]),
                ("3", [width * 4, width, 1, 1]),
            ]
            yield stage, block, layers
            channels = width * 4


def normalized(
    convolution: str, batch_norm: str, shape: list[int], leaves: tuple[str, ...]
) -> Shapes:
    """Return the tensors of a convolution and its batch norm."""
    shapes = {f"{convolution}.weight": shape}
    return shapes | {
        f"{batch_norm}.{leaf}": [] if leaf == "num_batches_tracked" else [shape[0]]
        for leaf in leaves
    }


def torch_bottlenecks(dialect: str) -> dict[str, Shapes]:
    """Return ResNet-50 of detectron2, maskrcnn-benchmark or MMPretrain.

    mmpretrain-c and mmpretrain-d have the deep stems of ResNetV1c and ResNetV1d.
    """
    leaves = BATCH_NORM if dialect == "maskrcnn-benchmark" else COUNTED
    stem = {
        "detectron2": ("stem.conv1", "stem.conv1.norm"),
        "maskrcnn-benchmark": ("stem.conv1", "stem.bn1"),
    }
    if dialect in ("mmpretrain-c", "mmpretrain-d"):
        shapes: Shapes = {}
        for number, (channels, width) in enumerate(((3, 32), (32, 32), (32, 64))):
            shapes |= normalized(
                f"backbone.stem.{number}.conv",
                f"backbone.stem.{number}.bn",
                [width, channels, 3, 3],
                leaves,
            )
    else:
        shapes = normalized(
            *stem.get(dialect, ("backbone.conv1", "backbone.bn1")), [64, 3, 7, 7], leaves
        )
    for stage, block, layers in bottlenecks((3, 4, 6, 3)):
        for layer, shape in layers:
            if dialect == "detectron2":
                name = f"res{stage + 2}.{block}." + (
                    "shortcut" if layer == "projection" else f"conv{layer}"
                )
                shapes |= normalized(name, f"{name}.norm", shape, leaves)
            else:
                begin = (
                    f"layer{stage + 1}.{block}."
                    if dialect == "maskrcnn-benchmark"
                    else f"backbone.layer{stage + 1}.{block}."
                )
                pooled = (
                    dialect == "mmpretrain-d" and stage > 0
                )  # pooling is a module before the projection
                projection = (
                    ("downsample.1", "downsample.2") if pooled else ("downsample.0", "downsample.1")
                )
                pair = projection if layer == "projection" else (f"conv{layer}", f"bn{layer}")
                shapes |= normalized(begin + pair[0], begin + pair[1], shape, leaves)
    head = {"detectron2": "stem.fc", "maskrcnn-benchmark": None}.get(dialect, "head.fc")
    shapes |= {f"{head}.weight": [1000, 2048], f"{head}.bias": [1000]} if head else {}
    return {"resnet50d" if dialect == "mmpretrain-d" else "resnet50": shapes}


def caffe(blocks: tuple[int, ...], *, deep: bool) -> Shapes:
    """Return blobs by layer and index.

    BatchNorm has mean, variance and factor. Scale has gamma and beta.
    """

    def layer(name: str, suffix: str, shape: list[int]) -> Shapes:
        channels = shape[:1]
        return {
            f"{name}.0": shape,
            f"bn{suffix}.0": channels,
            f"bn{suffix}.1": channels,
            f"bn{suffix}.2": [1],
            f"scale{suffix}.0": channels,
            f"scale{suffix}.1": channels,
        }

    shapes = layer("conv1", "_conv1", [64, 3, 7, 7])
    for stage, block, layers in bottlenecks(blocks):
        numbered = deep and stage in (1, 2)
        name = "a" if block == 0 else f"b{block}" if numbered else "abcdef"[block]
        for kind, shape in layers:
            suffix = f"{stage + 2}{name}_branch" + (
                "1" if kind == "projection" else "2" + "abc"[int(kind) - 1]
            )
            shapes |= layer(f"res{suffix}", suffix, shape)
    return shapes | {"fc1000.0": [1000, 2048], "fc1000.1": [1000]}


# Convolution and batch norm of the stem, the beginning of a block's names, its two pairs of
# convolution and batch norm, its projection if there is one, and the head. {stage} and {block1}
# count from 1, {block} counts from 0.
CIFAR: dict[
    str, tuple[tuple[str, str], str, tuple[tuple[str, str], ...], tuple[str, str] | None, str]
] = {
    "cifar-linear": (
        ("conv1", "bn1"),
        "layer{stage}.{block}.",
        (("conv1", "bn1"), ("conv2", "bn2")),
        None,
        "linear",
    ),
    "cifar-fc": (
        ("conv1", "bn1"),
        "layer{stage}.{block}.",
        (("conv1", "bn1"), ("conv2", "bn2")),
        ("downsample.0", "downsample.1"),
        "fc",
    ),
    "cifar-zoo": (
        ("conv_1", "bn_1"),
        "stage_{stage}.{block}.",
        (("conv_1", "bn_1"), ("conv_2", "bn_2")),
        ("downsample.0", "downsample.1"),
        "fc",
    ),
    "cifar-hysts": (
        ("conv", "bn"),
        "stage{stage}.block{block1}.",
        (("conv1", "bn1"), ("conv2", "bn2")),
        ("shortcut.conv", "shortcut.bn"),
        "fc",
    ),
    "cifar-dxy": (
        ("conv_1_3x3", "bn_1"),
        "stage_{stage}.{block}.",
        (("conv_a", "bn_a"), ("conv_b", "bn_b")),
        None,
        "classifier",
    ),
}


def cifar(dialect: str) -> dict[str, Shapes]:
    """Return resnet20. It has projections only with option B, since option A has no weights."""
    stem, beginning, pairs, projection, head = CIFAR[dialect]
    shapes = normalized(*stem, [16, 3, 3, 3], COUNTED)
    channels = 16
    for stage, width in enumerate((16, 32, 64), start=1):
        for block in range(3):
            begin = beginning.format(stage=stage, block=block, block1=block + 1)
            for (convolution, batch_norm), incoming in zip(pairs, (channels, width), strict=True):
                shapes |= normalized(
                    begin + convolution, begin + batch_norm, [width, incoming, 3, 3], COUNTED
                )
            if projection and channels != width:
                shapes |= normalized(
                    begin + projection[0], begin + projection[1], [width, channels, 1, 1], COUNTED
                )
            channels = width
    return {"resnet20": shapes | {f"{head}.weight": [10, 64], f"{head}.bias": [10]}}


def wide(depth: int, widen_factor: int) -> Shapes:
    """Return xternalz's WideResNet.

    Batch norms come before convolutions, a projection has none, and the last one is before the
    head.
    """
    shapes: Shapes = {"conv1.weight": [16, 3, 3, 3]}

    def batch_norm(name: str, channels: int) -> Shapes:
        return {
            f"{name}.{leaf}": [] if leaf == "num_batches_tracked" else [channels]
            for leaf in COUNTED
        }

    channels = 16
    for stage in (1, 2, 3):
        width = 16 * 2 ** (stage - 1) * widen_factor
        for block in range((depth - 4) // 6):
            begin = f"block{stage}.layer.{block}."
            shapes |= batch_norm(f"{begin}bn1", channels) | {
                f"{begin}conv1.weight": [width, channels, 3, 3]
            }
            shapes |= batch_norm(f"{begin}bn2", width) | {
                f"{begin}conv2.weight": [width, width, 3, 3]
            }
            if channels != width:
                shapes[f"{begin}convShortcut.weight"] = [width, channels, 1, 1]
            channels = width
    return shapes | batch_norm("bn1", channels) | {"fc.weight": [10, channels], "fc.bias": [10]}


RECORDS: dict[str, Callable[[], dict[str, Shapes]]] = {
    "torchvision": from_torchvision,
    "timm-d": partial(from_timm, "resnet18d", "resnet50d"),
    "timm-v2": partial(from_timm, "resnetv2_18", "resnetv2_50"),
    "hf": from_transformers,
    "keras": from_keras,
    "detectron2": partial(torch_bottlenecks, "detectron2"),
    "maskrcnn-benchmark": partial(torch_bottlenecks, "maskrcnn-benchmark"),
    "mmpretrain": partial(torch_bottlenecks, "mmpretrain"),
    "mmpretrain-c": partial(torch_bottlenecks, "mmpretrain-c"),
    "mmpretrain-d": partial(torch_bottlenecks, "mmpretrain-d"),
    "caffe": lambda: {"resnet50": caffe((3, 4, 6, 3), deep=False)},
    "caffe-deep": lambda: {"resnet101": caffe((3, 4, 23, 3), deep=True)},
    **{name: partial(cifar, name) for name in CIFAR},
    "wrn": lambda: {"wrn28_10": wide(28, 10)},
}


if __name__ == "__main__":
    assert peers.installed(), peers.REASON
    for dialect in sys.argv[1:] or RECORDS:
        with torch.device("meta"):
            nets = RECORDS[dialect]()
        lines = ",\n".join(
            f" {json.dumps(net)}: {json.dumps(shapes, separators=(',', ':'))}"
            for net, shapes in nets.items()
        )
        (HERE / f"{dialect}.json").write_text("{\n" + lines + "\n}\n", encoding="utf-8")
