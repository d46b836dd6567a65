"""State dicts with the names of many projects, made from a small network of reslearn."""

import re
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor

from reslearn import models
from reslearn.interop import Checkpoint, StoredTensor, dialect_named
from reslearn.interop.write import foreign_state_dict
from reslearn.models import Network

State = dict[str, Tensor]
Rule = tuple[str, str | Callable[[re.Match[str]], str]]


def small_network(*, num_classes: int = 5, seed: int = 0, **switches: object) -> Network:
    """Return resnet8 with option B, random weights and random statistics."""
    torch.manual_seed(seed)
    net = models.build("resnet8", num_classes=num_classes, **{"shortcut": "B", **switches})
    for name, tensor in net.state_dict().items():
        if tensor.is_floating_point() and ".bn" in name:
            tensor.uniform_(0.5, 1.5)
    return net.eval()


def state_of(net: Network, dialect: str = "cifar-fc") -> State:
    """Return the state dict in the names of a dialect; cifar-fc has those of torchvision."""
    return foreign_state_dict(net, dialect_named(dialect))


def behind(prefix: str, state: Mapping[str, Tensor]) -> State:
    return {prefix + name: tensor for name, tensor in state.items()}


def renamed(state: Mapping[str, Tensor], *rules: Rule) -> State:
    """Return the state with the names that regular expressions make of its names, in its order."""
    names = {}
    for name, tensor in state.items():
        new_name = name
        for pattern, replacement in rules:
            new_name = re.sub(pattern, replacement, new_name)
        names[new_name] = tensor
    assert len(names) == len(state)
    return names


def net_state(net: Network) -> State:
    """Return the state of a network on the meta device in torchvision's names."""
    rules = (
        (r"^stem\.(conv|bn)\.", r"\g<1>1."),
        (r"^stage(\d)\.(\d+)\.body\.", r"layer\1.\2."),
        (r"^stage(\d)\.(\d+)\.shortcut\.conv", r"layer\1.\2.downsample.0"),
        (r"^stage(\d)\.(\d+)\.shortcut\.bn", r"layer\1.\2.downsample.1"),
        (r"^head\.fc", "fc"),
    )
    return renamed(net.state_dict(), *rules)


def without_head(state: Mapping[str, Tensor]) -> State:
    return {name: tensor for name, tensor in state.items() if not name.startswith("fc.")}


def checkpoint_of(**tables: Mapping[str, Tensor]) -> Checkpoint:
    """Return a checkpoint of these tables, as if it was read from a file."""
    entries = {
        entry: {
            name: StoredTensor(shape=tuple(tensor.shape), dtype=tensor.dtype, read=tensor.clone)
            for name, tensor in table.items()
        }
        for entry, table in tables.items()
    }
    return Checkpoint(path=Path("stranger.pth"), container="torch zip", entries=entries)


def with_squeeze(state: Mapping[str, Tensor], *names: str) -> State:
    """Return the state with further tensors in each block, as in SE networks."""
    extended = dict(state)
    for name in state:
        if match := re.fullmatch(r"(layer\d\.\d)\.conv2\.weight", name):
            for extra in names:
                extended[f"{match[1]}.{extra}"] = torch.zeros(4, 8, 1, 1)
    return extended


_RESIDUAL = r"layer(\d)\.(\d+)\."
# Layouts that no dialect has, as rules on torchvision's names.
LAYOUTS: dict[str, Callable[[State], State]] = {
    "stem called conv and bn": lambda state: renamed(
        state, (r"^conv1\.", "conv."), (r"^bn1\.", "bn."), (r"^fc\.", "linear.")
    ),
    "cut into nn.Sequential": lambda state: renamed(
        state,
        (r"^conv1\.", "0."),
        (r"^bn1\.", "1."),
        (r"^layer(\d)", lambda match: str(int(match[1]) + 3)),
    ),
    "cut, behind backbone": lambda state: renamed(
        state,
        (r"^conv1\.", "backbone.0."),
        (r"^bn1\.", "backbone.1."),
        (r"^layer(\d)", lambda match: f"backbone.{int(match[1]) + 3}"),
        (r"^fc\.", "classifier."),
    ),
    "last_linear": lambda state: renamed(state, (r"^fc\.", "last_linear.")),
    "residual_function": lambda state: renamed(
        state,
        (r"^conv1\.", "conv1.0."),
        (r"^bn1\.", "conv1.1."),
        (_RESIDUAL + "conv1", r"conv\1_x.\2.residual_function.0"),
        (_RESIDUAL + "bn1", r"conv\1_x.\2.residual_function.1"),
        (_RESIDUAL + "conv2", r"conv\1_x.\2.residual_function.3"),
        (_RESIDUAL + "bn2", r"conv\1_x.\2.residual_function.4"),
        (_RESIDUAL + "downsample", r"conv\1_x.\2.shortcut"),
    ),
    "a batch norm inside each convolution": lambda state: renamed(
        state,
        (r"\bconv(\d)\.", r"unit\1.conv."),
        (r"\bbn(\d)\.", r"unit\1.bn."),
        (r"downsample\.0", "projection.conv"),
        (r"downsample\.1", "projection.bn"),
    ),
    "flat shortcut": lambda state: renamed(
        state, (r"downsample\.0", "conv_sc"), (r"downsample\.1", "bn_sc")
    ),
    "TensorFlow's leaves": lambda state: renamed(
        state,
        (r"(bn\d|downsample\.1)\.weight", r"\1.gamma"),
        (r"(bn\d|downsample\.1)\.bias", r"\1.beta"),
        (r"running_mean", "moving_mean"),
        (r"running_var", "moving_variance"),
        (r"^conv1", "first"),
    ),
    "a dropout before the head": lambda state: renamed(state, (r"^fc\.", "head.1.")),
}
