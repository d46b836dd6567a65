"""The drawing of a stranger's network: every layer is there, blocks are framed, arcs are where shortcuts went or were."""

from copy import deepcopy

import torch
from torch import Tensor, nn

from reslearn.diagnose import make_conditions, make_problem
from reslearn.diagnose.drawing import network_diagram
from reslearn.models import build
from reslearn.report import Diagram, LayerGroup
from reslearn.report.diagram import fold_repeats

LABELS = torch.arange(24) % 3


def drawn(net: nn.Module, *shape: int) -> Diagram:
    problem = make_problem(lambda: deepcopy(net), (torch.randn(24, *shape), LABELS))
    found = network_diagram(problem, make_conditions(problem))
    assert found is not None
    return found


def conv(channels: int, wider: int, stride: int = 1) -> list[nn.Module]:
    return [nn.Conv2d(channels, wider, 3, stride, padding=1), nn.BatchNorm2d(wider), nn.ReLU()]


def text(group: LayerGroup) -> list[str]:
    return [f"{box.text} [{box.shape}]" for box in group.boxes]


def test_a_plain_network_has_all_layers_and_the_arcs_that_were_put_in() -> None:
    layers = [*conv(2, 4), *conv(4, 4), *conv(4, 4), *conv(4, 8, 2), *conv(8, 8)]
    found = drawn(
        nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3)), 2, 8, 8
    ).groups
    assert [
        (group.name, group.arc, group.arc_label, group.after, group.marked) for group in found
    ] == [
        ("", "none", "", "", False),
        ("3", "new", "", "ReLU", False),
        ("9", "new", "option A", "ReLU", False),
        ("", "none", "", "", False),
        ("", "none", "", "", False),
        ("", "none", "", "", False),
    ]
    assert text(found[2]) == [
        "conv 3×3, 4 → 8, stride 2 · batch norm · ReLU [8×4×4]",
        "conv 3×3, 8 → 8 · batch norm [8×4×4]",
    ]
    assert [text(group) for group in found[3:]] == [
        ["AdaptiveAvgPool2d [8×1×1]"],
        ["Flatten [8]"],
        ["linear 8 → 3 [3]"],
    ]


def test_a_deep_plain_network_is_as_short_as_its_stages_and_tells_what_is_left_out() -> None:
    found = fold_repeats(drawn(build("plain56", num_classes=3), 3, 32, 32).groups)
    assert [part.times for part in found] == [1, 9, 1, 8, 1, 8, 1, 1, 1]
    assert [part.num_marked for part in found[1:6:2]] == [(6,), (5,), (5,)]
    assert [part.groups[0].arc_label for part in found[1:6]] == ["", "option A", "", "option A", ""]


def test_shortcuts_that_were_there_are_drawn_as_such() -> None:
    found = [
        group for group in drawn(build("resnet14", num_classes=3), 3, 16, 16).groups if group.name
    ]
    assert {group.arc for group in found} == {"existing"}
    assert [group.arc_label for group in found] == ["", "", "sizes change", "", "sizes change", ""]
    assert [len(group.boxes) for group in found] == [2] * 6


class Branching(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.only = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.only(x if x.sum() > 0 else -x)  # type: ignore[no-any-return]


def test_a_network_that_cannot_be_laid_open_has_no_drawing() -> None:
    problem = make_problem(Branching, (torch.randn(24, 4), LABELS))
    assert network_diagram(problem, make_conditions(problem)) is None


def test_functions_within_branches_are_told_where_they_change_values() -> None:
    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm, self.first, self.second = nn.LayerNorm(8), nn.Linear(8, 8), nn.Linear(8, 8)

        def forward(self, x: Tensor) -> Tensor:
            return x + self.second(self.first(self.norm(x)).relu())

    found = drawn(nn.Sequential(nn.Linear(4, 8), Own(), nn.Linear(8, 3)), 4).groups
    assert (
        text(found[1]) == ["layer norm · linear 8 → 8 · relu []", "linear 8 → 8 [8]"]
        and found[1].arc == "existing"
    )
