"""C8: degradation is not caused by overfitting: the training error rises too (Sec. 1, Fig. 1 left).

The rule, before any data, on the deepest plain net against the shallowest, paired by judged seed: "shown" where the 95 % intervals of
both rises, in test and in training error, lie above 0 and both means are more than 1 point; "not shown" where the test error so rises and
the training error's interval ends below 1 point (that would be overfitting); "undecided" otherwise, and where the test error does
not rise, because then there is no degradation to explain.
"""

from collections.abc import Sequence

from reslearn.paper import protocol
from reslearn.paper.claim import Budget, Claim, Finding, Outcome, Runs, RunSpec
from reslearn.paper.protocol import lost_but_deepest
from reslearn.paper.wording import interval
from reslearn.study import Summary, summary

MARGIN_POINTS = 1.0

CLAIM = Claim(
    identifier="C8",
    text="Degradation is not overfitting: the training error rises too",
    section="Sec. 1, Fig. 1",
    rule=(
        "Deepest against shallowest plain net, paired by seed. Shown: test and training error both rise by more than 1 point, both 95 % "
        "intervals above 0. Not shown: the test error rises and the training error's interval ends below 1 point."
    ),
)


def conditions(budget: Budget) -> list[RunSpec]:
    """Plain nets of all depths, to choose their learning rates."""
    return protocol.choice_conditions(budget, ["plain"])


def judged_conditions(evidence: Runs) -> list[RunSpec]:
    """Plain nets at the learning rates chosen."""
    return protocol.judged_conditions(evidence, ["plain"])


def judge(evidence: Runs) -> Finding:
    """Apply the rule."""
    ends = (min(evidence.budget.depths), max(evidence.budget.depths))
    training = protocol.by_depth(evidence, "plain", protocol.TRAINING_ERROR, ends)
    test = protocol.by_depth(evidence, "plain", protocol.TEST_ERROR, ends)
    outcome, training_rise, test_rise = decide(training, test)
    measured = (
        f"plain-{ends[1]} against plain-{ends[0]}: training error {interval(training_rise, 'points', digits=1)}, "
        f"test error {interval(test_rise, 'points', digits=1)}"
    )
    numbers = {"depths": list(ends), "training_error_pct": training, "test_error_pct": test}
    return Finding(
        claim=CLAIM,
        outcome=outcome,
        measured=measured,
        numbers=numbers,
        rests_on=tuple(protocol.model_name("plain", depth) for depth in ends),
    )


def decide(
    training: Sequence[Sequence[float]], test: Sequence[Sequence[float]]
) -> tuple[Outcome, Summary, Summary]:
    """The rule of this module, with the rises of training and test error (points): one (shallowest, deepest) pair a seed."""
    training_rise = summary([deep - shallow for shallow, deep in training])
    test_rise = summary([deep - shallow for shallow, deep in test])
    if training_rise.interval is None or test_rise.interval is None or not _rises(test_rise):
        return "undecided", training_rise, test_rise
    if _rises(training_rise):
        return ("undecided" if lost_but_deepest(training) else "shown"), training_rise, test_rise
    if training_rise.interval.high < MARGIN_POINTS:
        return (
            ("undecided" if training_rise.num_diverged else "not shown"),
            training_rise,
            test_rise,
        )
    return "undecided", training_rise, test_rise


def _rises(rise: Summary) -> bool:
    return rise.interval is not None and rise.interval.low > 0 and rise.mean > MARGIN_POINTS
