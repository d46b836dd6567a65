"""Writes tests/interop/recorded/*.json: names and shapes of tensors as other projects have them, from their installed packages.

    python tests/interop/record_peers.py       (after `make peers`; run again when the versions in it change)

What cannot be installed from a registry is listed by `read_sources`, from the names of layers in the source that each dialect file
names; that listing knows nothing of the dialect files.
"""

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parent))
import peers

Shapes = dict[str, list[int]]
HERE = Path(__file__).parent / "recorded"
BATCH_NORM = ("weight", "bias", "running_mean", "running_var")


def state(net: torch.nn.Module) -> Shapes:
    return {name: list(tensor.shape) for name, tensor in net.state_dict().items()}


def from_packages() -> dict[str, dict[str, Shapes]]:
    """torchvision, timm, transformers and Keras."""
    import keras
    import timm
    import torchvision
    from transformers import ResNetConfig, ResNetForImageClassification

    with torch.device("meta"):
        found = {
            "torchvision": {name: state(torchvision.models.get_model(name)) for name in ("resnet18", "resnet50", "resnext50_32x4d")},
            "timm-d": {name: state(timm.create_model(name)) for name in ("resnet18d", "resnet50d")},
            "timm-v2": {name: state(timm.create_model(name)) for name in ("resnetv2_18", "resnetv2_50")},
        }
        basic = ResNetConfig(depths=[2, 2, 2, 2], hidden_sizes=[64, 128, 256, 512], layer_type="basic", num_labels=1000)
        found["hf"] = {"resnet18": state(ResNetForImageClassification(basic))}
        found["hf"]["resnet50"] = state(ResNetForImageClassification(ResNetConfig(depths=[3, 4, 6, 3], num_labels=1000)))
    net = keras.applications.ResNet50(weights=None)
    found["keras"] = {"resnet50": {f"{layer.name}/{weight.path}": list(weight.shape) for layer in net.layers for weight in layer.weights}}
    return found


def bottlenecks(blocks: tuple[int, ...]) -> Iterator[tuple[int, int, list[tuple[str, list[int]]]]]:
    """(stage from 0, block, [(layer "1", "2", "3" or "projection", shape)]) of a ResNet with bottlenecks, as drawn in Table 1."""
    channels = 64
    for stage, count in enumerate(blocks):
        width = 64 * 2**stage
        for block in range(count):
            layers = [("projection", [width * 4, channels, 1, 1])] if block == 0 else []
            layers += [("1", [width, channels, 1, 1]), ("2", [width, width, 3, 3]), ("3", [width * 4, width, 1, 1])]
            yield stage, block, layers
            channels = width * 4


def normalised(convolution: str, batch_norm: str, shape: list[int], leaves: tuple[str, ...]) -> Shapes:
    """A convolution's weight, and a batch norm's."""
    shapes = {f"{convolution}.weight": shape}
    return shapes | {f"{batch_norm}.{leaf}": [] if leaf == "num_batches_tracked" else [shape[0]] for leaf in leaves}


def torch_bottlenecks(dialect: str) -> Shapes:
    """detectron2, maskrcnn-benchmark and MMPretrain, of ResNet-50."""
    leaves = BATCH_NORM if dialect == "maskrcnn-benchmark" else (*BATCH_NORM, "num_batches_tracked")
    stem = {"detectron2": ("stem.conv1", "stem.conv1.norm"), "maskrcnn-benchmark": ("stem.conv1", "stem.bn1")}
    shapes = normalised(*stem.get(dialect, ("backbone.conv1", "backbone.bn1")), [64, 3, 7, 7], leaves)
    for stage, block, layers in bottlenecks((3, 4, 6, 3)):
        for layer, shape in layers:
            if dialect == "detectron2":
                name = f"res{stage + 2}.{block}." + ("shortcut" if layer == "projection" else f"conv{layer}")
                shapes |= normalised(name, f"{name}.norm", shape, leaves)
            else:
                begin = f"layer{stage + 1}.{block}." if dialect == "maskrcnn-benchmark" else f"backbone.layer{stage + 1}.{block}."
                pair = ("downsample.0", "downsample.1") if layer == "projection" else (f"conv{layer}", f"bn{layer}")
                shapes |= normalised(begin + pair[0], begin + pair[1], shape, leaves)
    head = {"detectron2": "stem.fc", "mmpretrain": "head.fc"}.get(dialect)
    return shapes | ({f"{head}.weight": [1000, 2048], f"{head}.bias": [1000]} if head else {})


def caffe(blocks: tuple[int, ...], *, deep: bool) -> Shapes:
    """Blobs by layer and index: BatchNorm has mean, variance and factor, Scale has gamma and beta."""

    def layer(name: str, suffix: str, shape: list[int]) -> Shapes:
        channels = shape[:1]
        return {
            f"{name}.0": shape, f"bn{suffix}.0": channels, f"bn{suffix}.1": channels, f"bn{suffix}.2": [1], f"scale{suffix}.0": channels,
            f"scale{suffix}.1": channels,
        }  # fmt: skip

    shapes = layer("conv1", "_conv1", [64, 3, 7, 7])
    for stage, block, layers in bottlenecks(blocks):
        numbered = deep and stage in (1, 2)
        name = "a" if block == 0 else f"b{block}" if numbered else "abcdef"[block]
        for kind, shape in layers:
            suffix = f"{stage + 2}{name}_branch" + ("1" if kind == "projection" else "2" + "abc"[int(kind) - 1])
            shapes |= layer(f"res{suffix}", suffix, shape)
    return shapes | {"fc1000.0": [1000, 2048], "fc1000.1": [1000]}


def cifar(option: str) -> Shapes:
    """resnet20 of akamaster (option A: no weights in shortcuts; the head is called linear) and of chenyaofo (option B, downsample, fc)."""
    leaves = (*BATCH_NORM, "num_batches_tracked")
    shapes = normalised("conv1", "bn1", [16, 3, 3, 3], leaves)
    channels = 16
    for stage, width in enumerate((16, 32, 64), start=1):
        for block in range(3):
            begin = f"layer{stage}.{block}."
            shapes |= normalised(begin + "conv1", begin + "bn1", [width, channels, 3, 3], leaves)
            shapes |= normalised(begin + "conv2", begin + "bn2", [width, width, 3, 3], leaves)
            if option == "B" and channels != width:
                shapes |= normalised(begin + "downsample.0", begin + "downsample.1", [width, channels, 1, 1], leaves)
            channels = width
    head = "linear" if option == "A" else "fc"
    return shapes | {f"{head}.weight": [10, 64], f"{head}.bias": [10]}


def read_sources() -> dict[str, dict[str, Shapes]]:
    """What was read in source, where there is no package."""
    found = {name: {"resnet50": torch_bottlenecks(name)} for name in ("detectron2", "maskrcnn-benchmark", "mmpretrain")}
    found["caffe"] = {"resnet50": caffe((3, 4, 6, 3), deep=False)}
    found["caffe-deep"] = {"resnet101": caffe((3, 4, 23, 3), deep=True)}
    found["cifar-linear"] = {"resnet20": cifar("A")}
    found["cifar-fc"] = {"resnet20": cifar("B")}
    return found


if __name__ == "__main__":
    os.environ["KERAS_BACKEND"] = "torch"
    assert peers.installed(), peers.REASON
    for dialect, nets in {**from_packages(), **read_sources()}.items():
        lines = ",\n".join(f" {json.dumps(net)}: {json.dumps(shapes, separators=(',', ':'))}" for net, shapes in nets.items())
        (HERE / f"{dialect}.json").write_text("{\n" + lines + "\n}\n", encoding="utf-8")
