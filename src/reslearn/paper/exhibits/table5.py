"""Table 5: an ensemble of six networks on ImageNet, two of them of 152 layers, each at five scales, all scores averaged.

The paper's 3.57 is of the test set, whose labels are not public: ours is of the validation images, where the paper gives no number for
the ensemble, so that it is shown beside and never judged. It does not say which six either; ours are those of Table 4 and a second 152.
"""

from reslearn.paper import imagenet
from reslearn.paper.claim import Budget, Runs, RunSpec
from reslearn.paper.exhibit import Depths, Exhibit, Line, Measured, not_run
from reslearn.paper.numbers import numbers

EXHIBIT = Exhibit(
    name="table5",
    title="An ensemble of six on ImageNet",
    section="Table 5",
    data="ImageNet",
    names_seeds=True,
    rule="Shown beside the paper's number, not judged: that is of test images whose labels are not public.",
)
DEPTHS: dict[str, Depths] = {}
MEMBERS: dict[str, tuple[tuple[str, int], ...]] = {
    "smoke": (("resnet18", 0), ("resnet34", 0)),
    "short": (("resnet34 B", 0), ("resnet34 C", 0), ("resnet50", 0)),
    "full": (
        ("resnet34 B", 0),
        ("resnet34 C", 0),
        ("resnet50", 0),
        ("resnet101", 0),
        ("resnet152", 0),
        ("resnet152", 1),
    ),
}


def conditions(budget: Budget) -> list[RunSpec]:
    """The members, on the seeds given here."""
    return (
        [imagenet.condition(label, seed) for label, seed in MEMBERS[budget.name]]
        if budget.data
        else []
    )


def measure(evidence: Runs) -> Measured:
    """The ensemble, and its members alone."""
    paper = numbers("table5")["ensemble"]
    wanted = [imagenet.condition(label, seed) for label, seed in MEMBERS[evidence.budget.name]]
    runs = [evidence.runs[condition] for condition in wanted if condition in evidence.runs]
    if len(runs) < len(wanted):
        because = (
            imagenet.MISSING
            if not evidence.budget.data
            else f"{len(wanted) - len(runs)} of {len(wanted)} members diverged"
        )
        return Measured(
            lines=(_line("ensemble, top-5 error", paper, None, because),),
            notes=imagenet.notes(evidence),
        )
    found = imagenet.measured(evidence, runs, "multi-scale")
    alone = [imagenet.measured(evidence, [run], "multi-scale") for run in runs]
    because = "the paper's is of the test set"
    made = [
        _line(f"ensemble of {len(runs)}, top-5 error", paper, found[1], because),
        _line("ensemble, top-1 error", None, found[0], ""),
    ]
    members = MEMBERS[evidence.budget.name]
    made += [
        _line(f"{label}, seed {seed}, alone, top-1 error", None, pair[0], "")
        for (label, seed), pair in zip(members, alone, strict=True)
    ]
    return Measured(lines=tuple(made), notes=imagenet.notes(evidence))


def _line(what: str, paper: float | None, ours: float | None, because: str) -> Line:
    values = () if ours is None or ours != ours else (ours,)
    return not_run(what, because, unit="%", paper=paper, values=values)
