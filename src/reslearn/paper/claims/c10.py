"""C10: a solution by construction exists, shallow net plus identity layers, yet the optimizer does not find it (Sec. 1)."""

import statistics

from reslearn.paper import protocol
from reslearn.paper.claim import Budget, Claim, Finding, Outcome, Runs, RunSpec
from reslearn.paper.subjects import interval_text, judged_subjects, paired, rests_on, unless_lost
from reslearn.study import Comparison

_MARGIN = 0.01
_LARGEST_NUM_IMAGES = (
    10_000  # of the training images, evenly spaced; as many as statistics are recomputed on
)

CLAIM = Claim(
    identifier="C10",
    text="A deeper plain net as good as the shallow one exists by construction, yet the optimizer does not find it",
    section="Sec. 1",
    rule="For each judged seed the trained plain net of the middle depth is deepened by identity layers to the greatest depth. Shown "
    "if its function is unchanged for every seed (logits within 1e-4 of the greatest) and the training loss of the trained "
    "deepest plain net minus that of the constructed one, paired by seed, has a 95 % interval above 0 and a mean above "
    f"{_MARGIN} nats. Not shown if that interval ends below {_MARGIN}. Undecided otherwise, or with fewer than two pairs. The "
    "constructed net keeps its batch norm statistics; of the trained one the lower loss counts, with its statistics as saved or "
    "recomputed, which favors it.",
)


def conditions(budget: Budget) -> list[RunSpec]:
    """The runs that choose the learning rates of plain nets."""
    return protocol.choice_conditions(budget, ["plain"])


def judged_conditions(evidence: Runs) -> list[RunSpec]:
    """Plain nets at their learning rates."""
    return protocol.judged_conditions(evidence, ["plain"])


def judge(evidence: Runs) -> Finding:
    """Construct, check, compare."""
    from reslearn.analysis import construct

    depths = sorted(evidence.budget.depths)
    middle, deepest = statistics.median_low(depths), depths[-1]
    if middle == deepest:
        return Finding(
            claim=CLAIM,
            outcome="not testable here",
            measured=f"depth {deepest} alone: a shallower net is needed",
        )
    shallow = judged_subjects(evidence, protocol.model_name("plain", middle))
    deep = judged_subjects(evidence, protocol.model_name("plain", deepest))
    seeds = sorted(shallow.keys() & deep.keys())
    built = {}
    for seed in seeds:
        subject = shallow[seed]
        name = protocol.model_name("plain", deepest)
        built[seed] = construct(
            subject.network(),
            name,
            subject.batches(subject.train.evenly_spaced(_LARGEST_NUM_IMAGES)),
        )
    if not seeds:
        return Finding(
            claim=CLAIM,
            outcome="undecided",
            measured=f"no seed has finished runs at both {middle} and {deepest} layers",
        )
    results = [deep[seed].folder.result for seed in seeds]
    trained = [
        min(
            loss
            for key in ("train_loss", protocol.TRAINING_LOSS)
            if (loss := result[key]) is not None
        )
        for result in results
    ]
    constructed = [built[seed].constructed_loss for seed in seeds]
    comparison = paired(trained, constructed)
    unchanged = all(construction.is_unchanged for construction in built.values())
    largest = max(construction.max_logit_difference for construction in built.values())
    return Finding(
        claim=CLAIM,
        outcome=unless_lost(
            _outcome(comparison, unchanged),
            evidence,
            *(protocol.model_name("plain", depth) for depth in (middle, deepest)),
        ),
        measured=f"plain-{middle} deepened to {deepest} layers: logits move by at most {largest:.1g}, training loss "
        f"{statistics.mean(constructed):.3f}; plain-{deepest} as trained {statistics.mean(trained):.3f}; "
        f"difference {interval_text(comparison)}, n={comparison.n_a}",
        numbers={
            "seeds": seeds,
            "shallow_depth": middle,
            "depth": deepest,
            "constructed_loss": constructed,
            "trained_loss": trained,
            "max_logit_difference": [built[seed].max_logit_difference for seed in seeds],
            "constructed_top1_error_pct": [
                built[seed].constructed_top1_error_pct for seed in seeds
            ],
            "difference": comparison.difference,
            "interval_low": comparison.interval_low,
            "interval_high": comparison.interval_high,
        },
        rests_on=rests_on([*(shallow[seed] for seed in seeds), *(deep[seed] for seed in seeds)]),
    )


def _outcome(comparison: Comparison, unchanged: bool) -> Outcome:
    if not unchanged or comparison.interval is None:
        return "undecided"
    low, high = comparison.interval
    if low > 0 and comparison.difference > _MARGIN:
        return "shown"
    return "not shown" if high < _MARGIN else "undecided"
