"""Table 3: options A, B and C, and bottleneck nets of 50 to 152 layers, on ImageNet by ten crops."""

from reslearn.paper import imagenet
from reslearn.paper.claim import Budget, Condition, Evidence
from reslearn.paper.exhibit import Depths, Exhibit, Measured

EXHIBIT = Exhibit(
    name="table3",
    title="Shortcut options and depth on ImageNet, ten crops",
    section="Table 3",
    data="ImageNet",
    rule=imagenet.RULE,
)
DEPTHS: dict[str, Depths] = {}
_OPTIONS = ("plain34", "resnet34 A", "resnet34 B", "resnet34 C")
LABELS = {"smoke": _OPTIONS[1:], "short": (*_OPTIONS, "resnet50"), "full": (*_OPTIONS, "resnet50", "resnet101", "resnet152")}


def conditions(budget: Budget) -> list[Condition]:
    """The nets of the budget."""
    return imagenet.conditions(budget, LABELS[budget.name])


def measure(evidence: Evidence) -> Measured:
    """A line a net."""
    return Measured(lines=imagenet.lines(evidence, "table3", LABELS[evidence.budget.name], "ten-crop"), notes=imagenet.notes(evidence))
