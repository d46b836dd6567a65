"""Tables 2 to 4: errors of single networks on ImageNet, which differ in the networks and in how they are tested.

Table 2: plain and residual nets of 18 and 34 layers, ten crops: plain ones get worse with depth, residual ones better. Table 3: options A,
B and C, and bottleneck nets of 50 to 152 layers, ten crops. Table 4: single models on whole pictures at five scales, scores averaged.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from reslearn.paper import imagenet
from reslearn.paper.claim import Budget, Runs, RunSpec
from reslearn.paper.exhibit import Depths, Exhibit, Measured


@dataclass(frozen=True, kw_only=True)
class ImageNetTable:
    """Does what a module of paper/exhibits does. `labels`: the rows that a budget runs; all are printed."""

    EXHIBIT: Exhibit
    DEPTHS: Mapping[str, Depths] = field(default_factory=dict)
    labels: Mapping[str, tuple[str, ...]]
    protocol: str

    def conditions(self, budget: Budget) -> list[RunSpec]:
        """The nets of the budget."""
        return imagenet.conditions(budget, self.labels[budget.name])

    def measure(self, evidence: Runs) -> Measured:
        """A line a net."""
        made = imagenet.lines(
            evidence, self.EXHIBIT.name, self.labels[evidence.budget.name], self.protocol
        )
        return Measured(lines=made, notes=imagenet.notes(evidence))


def _table(number: int, title: str, protocol: str, **labels: tuple[str, ...]) -> ImageNetTable:
    exhibit = Exhibit(
        name=f"table{number}",
        title=title,
        section=f"Table {number}",
        data="ImageNet",
        rule=imagenet.RULE,
    )
    return ImageNetTable(EXHIBIT=exhibit, labels=labels, protocol=protocol)


_PLAIN_AND_RESIDUAL = ("plain18", "plain34", "resnet18", "resnet34")
_OPTIONS = ("resnet34 A", "resnet34 B", "resnet34 C")
_DEEP = ("resnet50", "resnet101", "resnet152")

TABLES = {
    "table2": _table(
        2,
        "Plain and residual nets on ImageNet, ten crops",
        "ten-crop",
        smoke=_PLAIN_AND_RESIDUAL,
        short=_PLAIN_AND_RESIDUAL,
        full=_PLAIN_AND_RESIDUAL,
    ),
    "table3": _table(
        3,
        "Shortcut options and depth on ImageNet, ten crops",
        "ten-crop",
        smoke=_OPTIONS,
        short=("plain34", *_OPTIONS, "resnet50"),
        full=("plain34", *_OPTIONS, *_DEEP),
    ),
    "table4": _table(
        4,
        "Single models on ImageNet, whole pictures at five scales",
        "multi-scale",
        smoke=("resnet34 B",),
        short=("resnet34 B", "resnet34 C", "resnet50"),
        full=("resnet34 B", "resnet34 C", *_DEEP),
    ),
}
