"""Figure 4: training on ImageNet, plain and residual networks of 18 and 34 layers."""

import math

from reslearn.paper import imagenet
from reslearn.paper.experiment import Budget, Experiment, Result, RunSpec
from reslearn.paper.rules import MARGIN_OF_A_RISE_PCT, OTHER_RUNS_RULE, not_run, rises
from reslearn.paper.trained import TRAINING_ERROR, Trained
from reslearn.report import Figure, Panels, Series
from reslearn.report.curves import Curve, curve, error_styles, interval_note, seeds_series

LABELS = ("plain18", "plain34", "resnet18", "resnet34")
_DIFFERENCES = {
    "training error, plain-34 minus plain-18, is above 0": ("plain34", "plain18"),
    "training error, ResNet-18 minus ResNet-34, is above 0": ("resnet18", "resnet34"),
}


def specs(budget: Budget) -> list[RunSpec]:
    """Return the runs of the four networks, which are the networks of Table 2."""
    return imagenet.specs(budget, LABELS)


EXPERIMENT = Experiment(
    name="fig4",
    text="Training on ImageNet: plain and residual networks of 18 and 34 layers",
    section="Fig. 4",
    data="ImageNet",
    rule=(
        "Differences of training error on clean images, paired by seed: plain-34 minus plain-18, "
        "and ResNet-18 minus ResNet-34. Reproduced: the 95 % interval lies above 0 and the mean "
        f"is more than {MARGIN_OF_A_RISE_PCT:g} point. Not reproduced: the interval ends at or "
        f"below {MARGIN_OF_A_RISE_PCT:g} point. With one seed, as in the paper, there is no "
        f"interval and no verdict.{OTHER_RUNS_RULE}"
    ),
    specs=specs,
)


def measure(trained: Trained) -> Result:
    """Judge two differences, and draw two panels of curves."""
    if not trained.budget.data:
        return Result(lines=tuple(not_run(what, imagenet.MISSING) for what in _DIFFERENCES))
    errors = {label: _training_errors(trained, label) for label in LABELS}
    is_same = imagenet.is_papers_own(trained)
    lines = []
    for what, (larger, smaller) in _DIFFERENCES.items():
        pairs = zip(errors[larger], errors[smaller], strict=True)
        lines.append(rises(what, [a - b for a, b in pairs], same_protocol=is_same))
    panels = [
        _panel(trained, "plain", "Plain networks"),
        _panel(trained, "resnet", "Residual networks"),
    ]
    return Result(
        lines=tuple(lines),
        figures=(Panels(panels),),
        notes=imagenet.notes(trained),
        numbers={"training_error_pct": errors},
    )


def _training_errors(trained: Trained, label: str) -> list[float]:
    """Return the training error on each seed; nan for a diverged run."""
    specs_by_seed = [imagenet.spec(label, seed) for seed in trained.seeds]
    return [
        float(trained.result(spec)[TRAINING_ERROR]) if spec in trained.runs else math.nan
        for spec in specs_by_seed
    ]


def _panel(trained: Trained, kind: str, title: str) -> Figure:
    series: list[Series] = []
    for label in (f"{kind}18", f"{kind}34"):
        for records, name in (("train", "training"), ("test", "test")):
            curves = _curves(trained, label, records)
            is_dashed = records == "train"
            series += seeds_series(f"{label}, {name}", curves, group=label, dashed=is_dashed)
    num_seeds = len(trained.seeds)
    return Figure(
        f"figure-4-{kind}",
        title,
        "As in Figure 4 of the paper. Training error is the error of the training batches. Test "
        f"error is the error on the center crops of the test images.{interval_note(num_seeds)}",
        "iteration",
        "error (%)",
        series,
        y_limits=(0.0, 100.0),
        styles=error_styles(num_seeds),
    )


def _curves(trained: Trained, label: str, records: str) -> dict[int, Curve | None]:
    """Return the curve of each seed; None for a diverged run."""
    curves: dict[int, Curve | None] = {}
    for seed in trained.seeds:
        run = trained.runs.get(imagenet.spec(label, seed))
        curves[seed] = None if run is None else curve(run.metrics(), records, "top1_error_pct")
    return curves
