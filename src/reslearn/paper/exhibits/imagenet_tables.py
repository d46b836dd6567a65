"""Tables 2 to 4: errors of single networks on ImageNet.

Table 2: plain and residual networks of 18 and 34 layers, ten crops; plain networks get worse with
depth, residual ones better. Table 3: options A, B and C, and bottleneck networks of 50 to 152
layers, ten crops. Table 4: single models on whole images at five scales, scores averaged.
"""

from __future__ import annotations

from dataclasses import dataclass

from reslearn.paper import imagenet
from reslearn.paper.experiment import Budget, Experiment, Result, RunSpec
from reslearn.paper.trained import Trained


@dataclass(frozen=True)
class ImageNetTable:
    """A table, used like a module of paper/exhibits.

    Attributes:
        labels: Rows by the name of the budget that trains them. The other rows are printed without
            a verdict.
        protocol: Protocol of testing.
    """

    EXPERIMENT: Experiment
    labels: dict[str, tuple[str, ...]]
    protocol: str

    def measure(self, trained: Trained) -> Result:
        """Return a line for each network."""
        labels = self.labels[trained.budget.name]
        lines = imagenet.error_lines(trained, self.EXPERIMENT.name, labels, self.protocol)
        return Result(lines=lines, notes=imagenet.notes(trained))


def _table(number: int, text: str, protocol: str, **labels: tuple[str, ...]) -> ImageNetTable:
    def specs(budget: Budget) -> list[RunSpec]:
        return imagenet.specs(budget, labels[budget.name])

    experiment = Experiment(
        name=f"table{number}",
        text=text,
        section=f"Table {number}",
        data="ImageNet",
        rule=imagenet.RULE,
        specs=specs,
    )
    return ImageNetTable(experiment, labels, protocol)


_PLAIN_AND_RESIDUAL = ("plain18", "plain34", "resnet18", "resnet34")
_OPTIONS = ("resnet34 A", "resnet34 B", "resnet34 C")
_DEEP = ("resnet50", "resnet101", "resnet152")

TABLES = {
    "table2": _table(
        2,
        "Plain and residual networks on ImageNet, ten crops",
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
        "Single models on ImageNet, whole images at five scales",
        "multi-scale",
        smoke=("resnet34 B",),
        short=("resnet34 B", "resnet34 C", "resnet50"),
        full=("resnet34 B", "resnet34 C", *_DEEP),
    ),
}
