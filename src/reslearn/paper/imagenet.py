"""Experiments on ImageNet: their networks, and the errors of finished runs (Sec. 3.4 and 4.1).

They need ILSVRC2012 as class folders. Any other folder of images runs through the same code as a
stand-in. Its errors are shown without a verdict.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from pathlib import Path

from reslearn.paper.experiment import Budget, Line, RunSpec
from reslearn.paper.numbers import numbers, top5
from reslearn.paper.rules import MARGIN_PCT, against_paper, not_run
from reslearn.paper.trained import Trained
from reslearn.runs import RunFolder, read_analysis, write_analysis

# A row of the paper's tables: model and settings.
NETWORKS: dict[str, tuple[str, tuple[str, ...]]] = {
    "plain18": ("plain18", ()),
    "plain34": ("plain34", ()),
    "resnet18": ("resnet18", ()),
    "resnet34": ("resnet34", ()),
    "resnet34 A": ("resnet34", ()),
    "resnet34 B": ("resnet34", ("model.shortcut=B",)),
    "resnet34 C": ("resnet34", ("model.shortcut=C",)),
    "resnet50": ("resnet50", ()),
    "resnet101": ("resnet101", ()),
    "resnet152": ("resnet152", ()),
}
# ILSVRC2012: the first and the last of its 1,000 classes, and its number of training images.
_FIRST_CLASS, _LAST_CLASS, _NUM_CLASSES = "n01440764", "n15075141", 1000
_NUM_TRAIN_IMAGES = 1_281_167
MISSING = "needs ImageNet (ILSVRC2012 as class folders train/ and val/): --data FOLDER"

RULE = (
    f"Reproduced: two one-sided t tests at 5 % place the mean within {MARGIN_PCT:g} points of the "
    "paper's number. Not reproduced: the 95 % interval lies outside that margin. One seed has no "
    "interval, and is undecided. Only runs of the paper's own recipe on ImageNet get a verdict."
)


def spec(label: str, seed: int) -> RunSpec:
    """Return the run of a row."""
    model, settings = NETWORKS[label]
    return RunSpec(model=model, seed=seed, overrides=settings, why=f"as {label}")


def specs(budget: Budget, labels: Iterable[str]) -> list[RunSpec]:
    """Return a run for each row and seed; nothing without data."""
    if not budget.data:
        return []
    rows = itertools.product(labels, budget.judge_seeds)
    return [spec(label, seed) for label, seed in rows]


def error_lines(
    trained: Trained, table: str, labels: Sequence[str], protocol: str
) -> tuple[Line, ...]:
    """Return a line for each row of a table and each of top-1 and top-5 that the paper prints.

    Args:
        table: Name of the table, such as "table3".
        labels: The rows that the budget trains. The others get a line without a verdict.
        protocol: Protocol of testing, such as "ten-crop".
    """
    rows = [(label, 1, paper) for label, paper in numbers(table).items()]
    rows += [(label, 5, paper) for label, paper in top5(table).items()]
    return tuple(
        _error_line(trained, label, k, paper, protocol, is_trained=label in labels)
        for label, k, paper in rows
    )


def _error_line(
    trained: Trained, label: str, k: int, paper: float, protocol: str, *, is_trained: bool
) -> Line:
    what = f"{label}, top-{k} error"
    if not trained.budget.data:
        return not_run(what, MISSING, unit="%", paper=paper)
    if not is_trained:
        return not_run(what, "not at this budget", unit="%", paper=paper)
    errors = [_errors(trained, label, seed, protocol) for seed in trained.seeds]
    values = [top1 if k == 1 else top5_error for top1, top5_error in errors]
    has_top1 = [math.isfinite(top1) for top1, _ in errors]
    if any(finite and math.isnan(value) for finite, value in zip(has_top1, values, strict=True)):
        return not_run(what, "fewer than six classes", unit="%", paper=paper)
    return against_paper(what, values, paper, same_protocol=is_papers_own(trained))


def _errors(trained: Trained, label: str, seed: int, protocol: str) -> tuple[float, float]:
    run = trained.runs.get(spec(label, seed))
    return (math.nan, math.nan) if run is None else measured_errors(trained, [run], protocol)


def measured_errors(
    trained: Trained, runs: Sequence[RunFolder], protocol: str
) -> tuple[float, float]:
    """Return top-1 and top-5 error of a run or of an ensemble, in percent.

    The evaluation is saved in the first run as analysis/evaluation-PROTOCOL.json. The top-5 error
    is nan if there are fewer than six classes.
    """
    ensemble = f"-{len(runs)}" if len(runs) > 1 else ""
    name = f"evaluation-{protocol}{ensemble}"
    record = read_analysis(runs[0], name)
    run_names = [run.path.name for run in runs]
    # The record itself is bound to the first run alone.
    seals = [run.result["checksum"] for run in runs]
    if record is None or record["runs"] != run_names or record.get("seals") != seals:
        if trained.evaluate is None:
            raise ValueError(
                "there is no function to evaluate networks with: "
                "pass run_experiments(..., evaluate=reslearn.cli.paper.evaluate)"
            )
        metrics = trained.evaluate(
            [run.path for run in runs], protocol=protocol, data_dir=trained.data_dir
        )
        record = {
            "protocol": protocol,
            "runs": run_names,
            "seals": seals,
            "images": metrics.num_images,
            "loss": metrics.loss,
            "top1_error_pct": metrics.top1_error_pct,
            "top5_error_pct": metrics.top5_error_pct,
        }
        write_analysis(runs[0], name, record)
    top5_error = record["top5_error_pct"]
    return float(record["top1_error_pct"]), math.nan if top5_error is None else float(top5_error)


def is_imagenet(trained: Trained) -> bool:
    """Return whether the training data are ILSVRC2012: its classes, and its number of images."""
    run = next(iter(trained.runs.values()), None)
    if run is None:
        return False
    classes = sorted(run.environment.get("data", {}).get("classes", ()))
    result = run.result
    missing_images = result["images"] - result["epochs"] * _NUM_TRAIN_IMAGES
    return (
        len(classes) == _NUM_CLASSES
        and (classes[0], classes[-1]) == (_FIRST_CLASS, _LAST_CLASS)
        and abs(missing_images) < 1e-6 * result["images"]
    )


def is_papers_own(trained: Trained) -> bool:
    """Return whether the runs follow the full recipe of Sec. 3.4 on ImageNet."""
    return trained.budget.name == "full" and is_imagenet(trained)


def notes(trained: Trained) -> tuple[str, ...]:
    """Return a note for runs on other data than ImageNet."""
    if not trained.budget.data or is_imagenet(trained):
        return ()
    name = Path(trained.budget.data).name
    return (
        f"{name} is a stand-in: it is not ImageNet, so its errors have no reason to agree with the "
        "paper's.",
    )
