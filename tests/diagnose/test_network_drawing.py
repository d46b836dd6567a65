"""The drawing of a network: all layers, frames around blocks, arcs for shortcuts."""

from copy import deepcopy

import torch
from torch import Tensor, nn

from reslearn.diagnose import make_problem, make_variants
from reslearn.diagnose.drawing import network_diagram
from reslearn.models import build
from reslearn.report import Diagram, LayerGroup
from reslearn.report.diagram import fold_repeats

LABELS = torch.arange(24) % 3


def draw(net: nn.Module, *shape: int) -> Diagram:
    problem = make_problem(lambda: deepcopy(net), (torch.randn(24, *shape), LABELS))
    diagram = network_diagram(problem, make_variants(problem))
    assert diagram is not None
    return diagram


def conv(in_channels: int, out_channels: int, stride: int = 1) -> list[nn.Module]:
    return [
        nn.Conv2d(in_channels, out_channels, 3, stride, padding=1),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(),
    ]


def box_texts(group: LayerGroup) -> list[str]:
    return [f"{box.text} [{box.shape}]" for box in group.boxes]


def test_a_plain_network_has_all_layers_and_an_arc_for_each_new_shortcut() -> None:
    layers = [*conv(2, 4), *conv(4, 4), *conv(4, 4), *conv(4, 8, 2), *conv(8, 8)]
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3)]
    groups = draw(nn.Sequential(*layers, *head), 2, 8, 8).groups
    assert [
        (group.name, group.arc, group.arc_label, group.after, group.marked) for group in groups
    ] == [
        ("", "none", "", "", False),
        ("3", "new", "", "ReLU", False),
        ("9", "new", "option A", "ReLU", False),
        ("", "none", "", "", False),
        ("", "none", "", "", False),
        ("", "none", "", "", False),
    ]
    assert box_texts(groups[2]) == [
        "conv 3×3, 4 → 8, stride 2 · batch norm · ReLU [8×4×4]",
        "conv 3×3, 8 → 8 · batch norm [8×4×4]",
    ]
    assert [box_texts(group) for group in groups[3:]] == [
        ["AdaptiveAvgPool2d [8×1×1]"],
        ["Flatten [8]"],
        ["linear 8 → 3 [3]"],
    ]


def test_equal_blocks_of_a_deep_network_are_folded_and_removed_ones_counted() -> None:
    parts = fold_repeats(draw(build("plain56", num_classes=3), 3, 32, 32).groups)
    assert [part.times for part in parts] == [1, 9, 1, 8, 1, 8, 1, 1, 1]
    assert [part.num_marked for part in parts[1:6:2]] == [(6,), (5,), (5,)]
    labels = [part.groups[0].arc_label for part in parts[1:6]]
    assert labels == ["", "option A", "", "option A", ""]


def test_shortcuts_of_the_network_itself_are_drawn_as_existing() -> None:
    drawing = draw(build("resnet14", num_classes=3), 3, 16, 16)
    groups = [group for group in drawing.groups if group.name]
    assert {group.arc for group in groups} == {"existing"}
    labels = [group.arc_label for group in groups]
    assert labels == ["", "", "sizes change", "", "sizes change", ""]
    assert [len(group.boxes) for group in groups] == [2] * 6


class Branching(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.layer(x if x.sum() > 0 else -x)
        return y


def test_a_network_that_cannot_be_traced_has_no_drawing() -> None:
    problem = make_problem(Branching, (torch.randn(24, 4), LABELS))
    assert network_diagram(problem, make_variants(problem)) is None


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm, self.first, self.second = nn.LayerNorm(8), nn.Linear(8, 8), nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = x + self.second(self.first(self.norm(x)).relu())
        return y


def test_activations_inside_branches_are_drawn() -> None:
    groups = draw(nn.Sequential(nn.Linear(4, 8), Block(), nn.Linear(8, 3)), 4).groups
    assert groups[1].arc == "existing"
    assert box_texts(groups[1]) == ["layer norm · linear 8 → 8 · relu []", "linear 8 → 8 [8]"]
