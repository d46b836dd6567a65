"""The tables and figure of ImageNet: which networks, by which protocol of testing, and their errors read off finished runs.

They need ILSVRC2012 as class folders. Any other folder of images runs through the same code as a stand-in; its errors are shown and
never judged against the paper's. Paper: Sec. 3.4 and 4.1.
"""

import math
from collections.abc import Iterable, Sequence
from pathlib import Path

from reslearn.paper.claim import Budget, Runs, RunSpec
from reslearn.paper.exhibit import MARGIN_PCT, Line, against_paper, not_run
from reslearn.paper.numbers import numbers, top5
from reslearn.runs import RunFolder

# The label of a row of the paper to the network it stands for.
NETS: dict[str, tuple[str, tuple[str, ...]]] = {
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
_CLASSES, _IMAGES = (
    ("n01440764", "n15075141"),
    1_281_167,
)  # the first and the last of 1,000, and how many there are to train on
MISSING = "needs ImageNet (ILSVRC2012 as class folders train/ and val/): --data FOLDER"

RULE = (
    f"Reproduced: two one-sided t tests at 5 % place the mean within {MARGIN_PCT:g} points of the paper's number (one seed has no "
    "interval, and is undecided). Only runs of the paper's own recipe on ImageNet are judged."
)

_SMOKE = (
    "data.size_px=32",
    "train.batch_size=8",
    "train.read_every_steps=2",
    "schedule.kind=constant",
    'schedule.duration="4 steps"',
    'evaluation.every="2 steps"',
    "evaluation.test_curve=true",
    "evaluation.recompute_images=16",
)


def imagenet_budget(name: str, data: str | None, *, seeds: int | None = None) -> Budget:
    """Smoke: does it run, on any folder. Short: the recipe `imagenet-smoke`. Full: the paper's own, one seed as there."""
    if name not in ("smoke", "short", "full"):
        raise ValueError(f"--budget {name}: allowed are smoke, short and full")
    overrides = {
        "smoke": _SMOKE,
        "short": ("evaluation.test_curve=true",),
        "full": ("evaluation.test_curve=true",),
    }[name]
    return Budget(
        name=name,  # type: ignore[arg-type]
        data=data or "",
        recipe="imagenet" if name == "full" else "imagenet-smoke",
        overrides=overrides,
        depths=(),
        learning_rates=(0.1,),
        choice_seeds=(),
        judge_seeds=tuple(range(seeds or 1)),
    )


def condition(label: str, seed: int) -> RunSpec:
    """The run of a row."""
    model, switches = NETS[label]
    return RunSpec(model=model, seed=seed, overrides=switches, why=f"as {label}")


def conditions(budget: Budget, labels: Iterable[str]) -> list[RunSpec]:
    """A run for each row and seed; none without data."""
    return (
        [condition(label, seed) for label in labels for seed in budget.judge_seeds]
        if budget.data
        else []
    )


def lines(evidence: Runs, table: str, labels: Sequence[str], protocol: str) -> tuple[Line, ...]:
    """Top-1 and, where the paper has it, top-5 error of every row of a table, those that were not run too."""
    made = []
    judged = is_papers_own(evidence)
    for printed, place in ((numbers(table), 0), (top5(table), 1)):
        for label, paper in printed.items():
            what = f"{label}, top-{(1, 5)[place]} error"
            if not evidence.budget.data or label not in labels:
                because = "not at this budget" if evidence.budget.data else MISSING
                made.append(not_run(what, because, unit="%", paper=paper))
                continue
            values = [
                errors(evidence, label, seed, protocol) for seed in evidence.budget.judge_seeds
            ]
            if place == 1 and any(
                math.isfinite(top1) and math.isnan(top5_) for top1, top5_ in values
            ):
                made.append(not_run(what, "fewer than six classes", unit="%", paper=paper))
                continue
            made.append(
                against_paper(what, [pair[place] for pair in values], paper, same_protocol=judged)
            )
    return tuple(made)


def errors(evidence: Runs, label: str, seed: int, protocol: str) -> tuple[float, float]:
    """Top-1 and top-5 error in per cent, nan where the run diverged (top-5 also where there are too few classes)."""
    run = evidence.runs.get(condition(label, seed))
    return (math.nan, math.nan) if run is None else measured(evidence, [run], protocol)


def measured(evidence: Runs, runs: Sequence[RunFolder], protocol: str) -> tuple[float, float]:
    """Errors of one run or of an ensemble by a protocol of testing, kept in the (first) run as analysis/evaluation-PROTOCOL.json."""
    name = f"evaluation-{protocol}" + (f"-{len(runs)}" if len(runs) > 1 else "")
    record, names = runs[0].analysis(name), [run.path.name for run in runs]
    seals = [
        run.result["checksum"] for run in runs
    ]  # the record itself is bound to the first alone
    if record is None or record["runs"] != names or record.get("seals") != seals:
        found = evidence.evaluate(
            [run.path for run in runs], protocol=protocol, data_dir=evidence.data_dir
        )
        record = {
            "protocol": protocol,
            "runs": names,
            "seals": seals,
            "images": found.num_images,
            "loss": found.loss,
            "top1_error_pct": found.top1_error_pct,
            "top5_error_pct": found.top5_error_pct,
        }
        runs[0].write_analysis(name, record)
    top5_error = record["top5_error_pct"]
    return float(record["top1_error_pct"]), math.nan if top5_error is None else float(top5_error)


def is_imagenet(evidence: Runs) -> bool:
    """Whether what was trained on is ILSVRC2012: by its classes, and by the images that an epoch has."""
    run = next(iter(evidence.runs.values()), None)
    if run is None:
        return False
    classes, result = sorted(run.environment.get("data", {}).get("classes", ())), run.result
    whole = abs(result["images"] - result["epochs"] * _IMAGES) < 1e-6 * result["images"]
    return len(classes) == 1000 and (classes[0], classes[-1]) == _CLASSES and whole


def is_papers_own(evidence: Runs) -> bool:
    """Whether the runs are those of Sec. 3.4: its recipe in full, on ImageNet."""
    return evidence.budget.name == "full" and is_imagenet(evidence)


def notes(evidence: Runs) -> tuple[str, ...]:
    """What a reader must know before the numbers."""
    if not evidence.budget.data or is_imagenet(evidence):
        return ()
    name = Path(evidence.budget.data).name
    return (
        f"{name} is a stand-in: it is not ImageNet, so that its errors have no reason to agree with the paper's.",
    )
