"""C14: low, mid and high level features integrate in one network, levels enriched by depth (Sec. 1). Linear probes at each stage."""

import itertools
import statistics
from typing import TYPE_CHECKING

from reslearn.paper import protocol
from reslearn.paper.claim import Budget, Claim, Finding, Outcome, Runs, RunSpec
from reslearn.paper.subjects import interval_text, judged_subjects, paired, rests_on, unless_lost
from reslearn.report import Figure, Series
from reslearn.report.curves import interval_note, seeds_series
from reslearn.study import Comparison

if TYPE_CHECKING:
    from reslearn.analysis import Subject

_MARGIN_PCT = 1.0
_LARGEST_NUM_IMAGES = 10_000

CLAIM = Claim(
    identifier="C14",
    text="Low, mid and high level features integrate in one network, their levels enriched by depth",
    section="Sec. 1",
    rule="Linear probes (logistic regression) on the output of stem and of each stage of the deepest ResNet that is compared, at "
    "equal dimension, fitted on training and read on test images, for the trained net and for the same net before its first "
    "step. The gain is the probe's error at the stem minus that at the last stage. Shown if the gain of the trained net, over "
    f"judged seeds, has a 95 % interval above {_MARGIN_PCT:g} point, no stage is on average worse than the one before by more "
    "than that, and the gain of the trained minus that of the untrained net, paired by seed, has an interval above 0. Not shown "
    "if either interval ends below its bound. Undecided otherwise, or with fewer than two seeds.",
)


def conditions(budget: Budget) -> list[RunSpec]:
    """The runs that choose the learning rates of residual nets."""
    return protocol.choice_conditions(budget, ["residual"])


def judged_conditions(evidence: Runs) -> list[RunSpec]:
    """Residual nets at their learning rates."""
    return protocol.judged_conditions(evidence, ["residual"])


def judge(evidence: Runs) -> Finding:
    """Probe, compare."""
    name = protocol.model_name("residual", max(evidence.budget.depths))
    subjects = judged_subjects(evidence, name)
    if not subjects:
        return Finding(
            claim=CLAIM, outcome="undecided", measured=f"no run of {name} came to its end"
        )
    errors = {
        kind: [_errors(subject, trained=kind == "trained") for subject in subjects.values()]
        for kind in ("trained", "untrained")
    }
    gains = {kind: [_gain(seed) for seed in found] for kind, found in errors.items()}
    gained, more = (
        paired(gains["trained"], [0.0] * len(subjects)),
        paired(gains["trained"], gains["untrained"]),
    )
    stages = list(errors["trained"][0])
    means = {
        kind: [statistics.mean(seed[stage] for seed in found) for stage in stages]
        for kind, found in errors.items()
    }
    told = {kind: ", ".join(f"{mean:.1f}" for mean in row) for kind, row in means.items()}
    return Finding(
        claim=CLAIM,
        outcome=unless_lost(_outcome(gained, more, means["trained"]), evidence, name),
        measured=f"{name}, probe error % at {', '.join(stages)}: trained {told['trained']}; untrained {told['untrained']}; gain "
        f"{interval_text(gained, 1)}, more than untrained by {interval_text(more, 1)}, n={gained.n_a}",
        numbers={
            "model": name,
            "seeds": list(subjects),
            "test_error_pct": errors,
            "gain_pct": gains,
        },
        figures=(_figure(name, stages, list(subjects), errors),),
        rests_on=rests_on(list(subjects.values())),
    )


def _outcome(gained: Comparison, more: Comparison, trained: list[float]) -> Outcome:
    if gained.interval is None or more.interval is None:
        return "undecided"
    if gained.interval.high < _MARGIN_PCT or more.interval.high < 0:
        return "not shown"
    steady = all(after <= before + _MARGIN_PCT for before, after in itertools.pairwise(trained))
    return (
        "shown"
        if steady and gained.interval.low > _MARGIN_PCT and more.interval.low > 0
        else "undecided"
    )


def _errors(subject: "Subject", *, trained: bool) -> dict[str, float]:
    """{stage: error of its probe on test images in per cent}."""
    from reslearn.analysis import probes

    images = subject.train.evenly_spaced(_LARGEST_NUM_IMAGES)
    found = probes(
        subject.network() if trained else subject.network(0),
        subject.batches(images),
        subject.batches(subject.test),
    )
    return {probe.stage: probe.test_error_pct for probe in found}


def _gain(errors: dict[str, float]) -> float:
    """Error at the stem minus that at the last stage."""
    first, *_, last = errors.values()
    return first - last


def _figure(
    name: str, stages: list[str], seeds: list[int], errors: dict[str, list[dict[str, float]]]
) -> Figure:
    series: list[Series] = []
    for kind, found in errors.items():
        curves = {
            number: list(enumerate(seed[stage] for stage in stages))
            for number, seed in zip(seeds, found, strict=True)
        }
        series += seeds_series(kind, curves, group=kind, dashed=kind == "untrained")
    return Figure(
        name="c14-probes",
        title=f"What a linear reader gets from each stage of {name}",
        caption=f"Error of a linear probe on test images. 0 is the stem, {len(stages) - 1} the last stage.{interval_note(len(seeds))}",
        x_label="stage",
        y_label="probe error (%)",
        series=series,
    )
