"""Table 5: an ensemble of six networks on ImageNet, each at five scales, all scores averaged.

The paper's 3.57 is the error on the test set, whose labels are not public. Our number is the error
on the validation images, where the paper has no number for the ensemble, so both are shown without
a verdict. The paper does not say which six networks it used. Ours are the networks of Table 4 and a
second network of 152 layers.
"""

import math

from reslearn.paper import imagenet
from reslearn.paper.experiment import Budget, Experiment, Line, Result, RunSpec
from reslearn.paper.numbers import numbers
from reslearn.paper.rules import not_run
from reslearn.paper.trained import Trained

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


def specs(budget: Budget) -> list[RunSpec]:
    """Return the runs of the members, on the seeds of `MEMBERS`; nothing without data."""
    members = MEMBERS[budget.name] if budget.data else ()
    return [imagenet.spec(label, seed) for label, seed in members]


EXPERIMENT = Experiment(
    name="table5",
    text="An ensemble of six on ImageNet",
    section="Table 5",
    data="ImageNet",
    has_fixed_seeds=True,
    rule=(
        "There is no verdict: the paper's number is an error on test images whose labels are not "
        "public. Our number is shown beside it."
    ),
    specs=specs,
)


def measure(trained: Trained) -> Result:
    """Evaluate the ensemble, and each member alone."""
    paper = numbers("table5")["ensemble"]
    notes = imagenet.notes(trained)
    members = MEMBERS[trained.budget.name]
    runs = [trained.runs.get(imagenet.spec(label, seed)) for label, seed in members]
    finished = [run for run in runs if run is not None]
    if len(finished) < len(members):
        because = f"{len(members) - len(finished)} of {len(members)} members diverged"
        if not trained.budget.data:
            because = imagenet.MISSING
        line = not_run("ensemble, top-5 error", because, unit="%", paper=paper)
        return Result(lines=(line,), notes=notes)
    top1, top5 = imagenet.measured_errors(trained, finished, "multi-scale")
    lines = [
        _line(f"ensemble of {len(finished)}, top-5 error", top5, paper),
        _line("ensemble, top-1 error", top1),
    ]
    for (label, seed), run in zip(members, finished, strict=True):
        member_top1, _ = imagenet.measured_errors(trained, [run], "multi-scale")
        lines.append(_line(f"{label}, seed {seed}, alone, top-1 error", member_top1))
    return Result(lines=tuple(lines), notes=notes)


def _line(what: str, error: float, paper: float | None = None) -> Line:
    because = "" if paper is None else "the paper's number is of the test set"
    values = () if math.isnan(error) else (error,)
    return not_run(what, because, unit="%", paper=paper, values=values)
