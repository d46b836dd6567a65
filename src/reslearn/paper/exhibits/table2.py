"""Table 2: top-1 error on ImageNet, ten crops, of plain and residual nets: plain ones get worse with depth, residual ones better."""

from reslearn.paper import imagenet
from reslearn.paper.claim import Budget, Condition, Evidence
from reslearn.paper.exhibit import Depths, Exhibit, Measured

EXHIBIT = Exhibit(
    name="table2",
    title="Plain and residual nets on ImageNet, ten crops",
    section="Table 2",
    data="ImageNet",
    rule=imagenet.RULE,
)
DEPTHS: dict[str, Depths] = {}
LABELS = ("plain18", "plain34", "resnet18", "resnet34")


def conditions(budget: Budget) -> list[Condition]:
    """All four nets."""
    return imagenet.conditions(budget, LABELS)


def measure(evidence: Evidence) -> Measured:
    """A line a net."""
    return Measured(lines=imagenet.lines(evidence, "table2", LABELS, "ten-crop"), notes=imagenet.notes(evidence))
