"""Figure 4: training on ImageNet, plain and residual nets of 18 and 34 layers: thin training error, bold error on the images tested on."""

import math

from reslearn.paper import imagenet
from reslearn.paper.claim import Budget, Runs, RunSpec
from reslearn.paper.exhibit import OTHER_RUNS_RULE, Depths, Exhibit, Measured, not_run, rises
from reslearn.report import Figure, Panels, Series
from reslearn.report.curves import curve, error_styles, interval_note, seeds_series

EXHIBIT = Exhibit(
    name="fig4",
    title="Training on ImageNet: plain and residual nets of 18 and 34 layers",
    section="Fig. 4",
    data="ImageNet",
    rule=(
        "Training error on clean images, paired by seed. Reproduced: plain-34 minus plain-18, and ResNet-18 minus ResNet-34, have 95 % "
        "intervals above 0 and means of more than 1 point. With one seed, as in the paper, there is no interval and no verdict."
        f"{OTHER_RUNS_RULE}"
    ),
)
DEPTHS: dict[str, Depths] = {}
LABELS = ("plain18", "plain34", "resnet18", "resnet34")
_LINES = {
    "training error, plain-34 minus plain-18, is above 0": ("plain34", "plain18"),
    "training error, ResNet-18 minus ResNet-34, is above 0": ("resnet18", "resnet34"),
}
_FIELD = "train_recomputed_top1_error_pct"


def conditions(budget: Budget) -> list[RunSpec]:
    """The nets of table 2."""
    return imagenet.conditions(budget, LABELS)


def measure(evidence: Runs) -> Measured:
    """Two differences and two panels of curves."""
    if not evidence.budget.data:
        return Measured(lines=tuple(not_run(what, imagenet.MISSING) for what in _LINES))
    seeds = evidence.budget.judge_seeds
    runs = {
        label: {seed: evidence.runs.get(imagenet.condition(label, seed)) for seed in seeds}
        for label in LABELS
    }
    error = {
        label: [
            math.nan if run is None or run.result.get(_FIELD) is None else float(run.result[_FIELD])
            for run in by_seed.values()
        ]
        for label, by_seed in runs.items()
    }

    def minus(a: str, b: str) -> list[float]:
        return [x - y for x, y in zip(error[a], error[b], strict=True)]

    own = imagenet.is_papers_own(evidence)
    lines = tuple(rises(what, minus(*nets), same_protocol=own) for what, nets in _LINES.items())
    panels = []
    for kind, title in (("plain", "Plain networks"), ("resnet", "Residual networks")):
        series: list[Series] = []
        for label in (f"{kind}18", f"{kind}34"):
            records = {
                seed: None if run is None else run.metrics() for seed, run in runs[label].items()
            }
            for said, dashed in (("train", True), ("test", False)):
                curves = {
                    seed: None if lines_ is None else curve(lines_, said, "top1_error_pct")
                    for seed, lines_ in records.items()
                }
                name = f"{label}, {'training' if dashed else 'test'}"
                series += seeds_series(name, curves, group=label, dashed=dashed)
        caption = (
            "As the paper's figure 4. Training error is of running batches, test error of the center crop of the images tested on."
            f"{interval_note(len(seeds))}"
        )
        file, styles = f"figure-4-{kind}", error_styles(len(seeds))
        panels.append(
            Figure(
                file,
                title,
                caption,
                "iteration",
                "error (%)",
                series,
                y_limits=(0.0, 100.0),
                styles=styles,
            )
        )
    return Measured(
        lines=lines,
        figures=(Panels(panels),),
        notes=imagenet.notes(evidence),
        numbers={"training_error_pct": error},
    )
