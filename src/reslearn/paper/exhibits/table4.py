"""Table 4: single models on ImageNet, fully convolutional at five scales, scores averaged."""

from reslearn.paper import imagenet
from reslearn.paper.claim import Budget, Condition, Evidence
from reslearn.paper.exhibit import Depths, Exhibit, Measured

EXHIBIT = Exhibit(
    name="table4",
    title="Single models on ImageNet, whole pictures at five scales",
    section="Table 4",
    data="ImageNet",
    rule=imagenet.RULE,
)
DEPTHS: dict[str, Depths] = {}
LABELS = {
    "smoke": ("resnet34 B",),
    "short": ("resnet34 B", "resnet34 C", "resnet50"),
    "full": ("resnet34 B", "resnet34 C", "resnet50", "resnet101", "resnet152"),
}


def conditions(budget: Budget) -> list[Condition]:
    """The nets of the budget."""
    return imagenet.conditions(budget, LABELS[budget.name])


def measure(evidence: Evidence) -> Measured:
    """A line a net."""
    return Measured(lines=imagenet.lines(evidence, "table4", LABELS[evidence.budget.name], "multi-scale"), notes=imagenet.notes(evidence))
