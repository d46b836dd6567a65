"""C14: low, mid and high level features integrate in one network, their levels enriched by depth.

Paper: Sec. 1.
Linear probes measure what each stage has learned.
"""

from __future__ import annotations

import itertools
import statistics
from typing import TYPE_CHECKING

from reslearn.paper.experiment import Experiment, Result, model_name
from reslearn.paper.rules import all_of, verdict_on_claim
from reslearn.paper.text import comparison_text
from reslearn.paper.trained import Trained
from reslearn.report import Figure, Series
from reslearn.report.content import VerdictOutcome
from reslearn.report.curves import interval_note, seeds_series
from reslearn.study import Comparison, compare, margin_test, withhold

if TYPE_CHECKING:
    from reslearn.analysis import Subject

_MARGIN_PCT = 1.0
_MAX_NUM_IMAGES = 10_000

EXPERIMENT = Experiment(
    name="C14",
    text=(
        "Low, mid and high level features integrate in one network, their levels enriched by depth"
    ),
    section="Sec. 1",
    rule=(
        "Linear probes (logistic regression) read the output of the stem and of each stage of the "
        "deepest ResNet that is compared, at equal dimension. They are fitted on training images "
        "and evaluated on test images, for the trained network and for the same network before "
        "its first step. The gain is the error of the probe at the stem minus its error at the "
        "last stage. Shown: the gain of the trained network over judged seeds has a 95 % interval "
        f"above {_MARGIN_PCT:g} point, no stage is on average worse than the stage before by more "
        f"than {_MARGIN_PCT:g} point, and the gain of the trained minus the gain of the untrained "
        "network, paired by seed, has an interval above 0. Not shown: either interval ends below "
        "its bound. Undecided: everything else, and fewer than two seeds."
    ),
    kinds=("residual",),
)

_ErrorsByStage = dict[str, float]


def measure(trained: Trained) -> Result:
    """Probe the stages of the trained and of the untrained network, and compare the gains."""
    model = model_name("residual", max(trained.budget.depths))
    subjects = trained.subjects(model)
    if not subjects:
        return Result(
            outcome="undecided", measured=f"no finished run of {model}: all diverged", rests_on=()
        )
    errors = {
        "trained": [_probe_errors(subject, is_trained=True) for subject in subjects.values()],
        "untrained": [_probe_errors(subject, is_trained=False) for subject in subjects.values()],
    }
    gains = {kind: list(map(_gain, errors[kind])) for kind in errors}
    gain = compare(gains["trained"], [0.0] * len(subjects), paired=True)
    gain_by_training = compare(gains["trained"], gains["untrained"], paired=True)
    stages = list(errors["trained"][0])
    means = {kind: _means(errors[kind], stages) for kind in errors}
    outcome = decide(gain, gain_by_training, means["trained"])
    return Result(
        outcome="undecided" if trained.is_lost(model) else outcome,
        measured=(
            f"{model}, probe error % at {', '.join(stages)}: "
            f"trained {_text(means['trained'])}; untrained {_text(means['untrained'])}; "
            f"gain {comparison_text(gain, digits=1)}, "
            f"more than untrained by {comparison_text(gain_by_training, digits=1)}, n={gain.n_a}"
        ),
        numbers={
            "model": model,
            "seeds": list(subjects),
            "test_error_pct": errors,
            "gain_pct": gains,
        },
        figures=(_figure(model, stages, list(subjects), errors),),
        rests_on=tuple(subject.folder.path.name for subject in subjects.values()),
    )


def decide(
    gain: Comparison, gain_by_training: Comparison, trained_means: list[float]
) -> VerdictOutcome:
    """Apply the rule to the gain, its excess over the untrained network, and the mean errors."""
    answer = all_of(
        margin_test(gain.interval, _MARGIN_PCT), margin_test(gain_by_training.interval, 0.0)
    )
    pairs = itertools.pairwise(trained_means)
    is_steady = all(after <= before + _MARGIN_PCT for before, after in pairs)
    return verdict_on_claim(withhold(answer, rules_out_yes=not is_steady))


def _probe_errors(subject: Subject, *, is_trained: bool) -> _ErrorsByStage:
    """Return the error of each stage's probe on test images, in percent."""
    from reslearn.analysis import probes

    network = subject.network() if is_trained else subject.network(0)
    images = subject.train.evenly_spaced(_MAX_NUM_IMAGES)
    stage_probes = probes(network, subject.batches(images), subject.batches(subject.test))
    return {probe.stage: probe.test_error_pct for probe in stage_probes}


def _gain(errors: _ErrorsByStage) -> float:
    """Return the error at the stem minus the error at the last stage."""
    first, *_, last = errors.values()
    return first - last


def _means(errors: list[_ErrorsByStage], stages: list[str]) -> list[float]:
    return [statistics.mean(by_stage[stage] for by_stage in errors) for stage in stages]


def _text(means: list[float]) -> str:
    return ", ".join(f"{mean:.1f}" for mean in means)


def _figure(
    model: str, stages: list[str], seeds: list[int], errors: dict[str, list[_ErrorsByStage]]
) -> Figure:
    series: list[Series] = []
    for kind, by_seed in errors.items():
        curves = {
            seed: list(enumerate(by_stage[stage] for stage in stages))
            for seed, by_stage in zip(seeds, by_seed, strict=True)
        }
        series += seeds_series(kind, curves, group=kind, dashed=kind == "untrained")
    return Figure(
        name="c14-probes",
        title=f"Error of a linear probe at each stage of {model}",
        caption=(
            f"Error on test images. Stage 0 is the stem, stage {len(stages) - 1} the last "
            f"stage.{interval_note(len(seeds))}"
        ),
        x_label="stage",
        y_label="probe error (%)",
        series=series,
    )
