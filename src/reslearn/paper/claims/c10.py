"""C10: a good deep network exists by construction, yet the optimizer does not find it.

Paper: Sec. 1. The construction is a shallow network plus identity layers.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from typing import Any

from reslearn.paper.experiment import Experiment, Result, model_name
from reslearn.paper.rules import verdict_on_claim
from reslearn.paper.text import comparison_text
from reslearn.paper.trained import TRAINING_LOSS, Trained
from reslearn.report.content import VerdictOutcome
from reslearn.study import Comparison, compare, margin_test

_MARGIN = 0.01  # nats
_MAX_NUM_IMAGES = 10_000  # training images, evenly spaced, as many as for recomputed statistics

EXPERIMENT = Experiment(
    name="C10",
    text=(
        "A deeper plain net as good as the shallow one exists by construction, yet the optimizer "
        "does not find it"
    ),
    section="Sec. 1",
    rule=(
        "For each judged seed the trained plain network of the middle depth is extended to the "
        "greatest depth by identity layers. The difference is the training loss of the trained "
        "deepest plain network minus the loss of the constructed one, paired by seed. Shown: the "
        "function is unchanged for every seed (logits within 1e-4 of the largest), and the "
        f"difference has a 95 % interval above 0 and a mean of more than {_MARGIN} nats. Not "
        f"shown: the function is unchanged, and the interval ends below {_MARGIN} nats. Undecided: "
        "everything else, and fewer than two pairs. The constructed network keeps its batch-norm "
        "statistics. For the trained one the lower loss counts, with its statistics as saved or "
        "recomputed, which is in its favor."
    ),
    kinds=("plain",),
    min_depths=2,
)


def measure(trained: Trained) -> Result:
    """Extend the shallow network, test that it computes the same, and compare the losses."""
    from reslearn.analysis import construct

    depths = sorted(trained.budget.depths)
    middle, deepest = statistics.median_low(depths), depths[-1]
    models = (model_name("plain", middle), model_name("plain", deepest))
    shallow_subjects, deep_subjects = (trained.subjects(model) for model in models)
    seeds = sorted(shallow_subjects.keys() & deep_subjects.keys())
    if not seeds:
        return Result(
            outcome="undecided",
            measured=f"no seed has finished runs at both {middle} and {deepest} layers",
            rests_on=(),
        )
    constructions = []
    for seed in seeds:
        subject = shallow_subjects[seed]
        images = subject.batches(subject.train.evenly_spaced(_MAX_NUM_IMAGES))
        constructions.append(construct(subject.network(), models[1], images))
    results = [trained.result(trained.judged_spec(models[1], seed)) for seed in seeds]
    trained_losses = [_lowest_loss(result) for result in results]
    constructed_losses = [construction.constructed_loss for construction in constructions]
    difference = compare(trained_losses, constructed_losses, paired=True)
    outcome = decide(difference, all(construction.is_unchanged for construction in constructions))
    largest = max(construction.max_logit_difference for construction in constructions)
    subjects = [
        *(shallow_subjects[seed] for seed in seeds),
        *(deep_subjects[seed] for seed in seeds),
    ]
    return Result(
        outcome="undecided" if trained.is_lost(*models) else outcome,
        measured=(
            f"plain-{middle} deepened to {deepest} layers: logits move by at most {largest:.1g}, "
            f"training loss {statistics.mean(constructed_losses):.3f}; plain-{deepest} as trained "
            f"{statistics.mean(trained_losses):.3f}; difference {comparison_text(difference)}, "
            f"n={difference.n_a}"
        ),
        numbers={
            "seeds": seeds,
            "shallow_depth": middle,
            "depth": deepest,
            "constructed_loss": constructed_losses,
            "trained_loss": trained_losses,
            "max_logit_difference": [each.max_logit_difference for each in constructions],
            "constructed_top1_error_pct": [
                each.constructed_top1_error_pct for each in constructions
            ],
            "difference": difference.difference,
            "interval_low": difference.interval_low,
            "interval_high": difference.interval_high,
        },
        rests_on=tuple(subject.folder.path.name for subject in subjects),
    )


def decide(difference: Comparison, is_unchanged: bool) -> VerdictOutcome:
    """Apply the rule to the trained minus the constructed loss."""
    if not is_unchanged:
        return "undecided"
    answer = margin_test(difference.interval, _MARGIN, mean=difference.difference)
    return verdict_on_claim(answer)


def _lowest_loss(result: Mapping[str, Any]) -> float:
    losses = [result[key] for key in ("train_loss", TRAINING_LOSS)]
    return min(float(loss) for loss in losses if loss is not None)
