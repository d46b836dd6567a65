"""C8: degradation is not caused by overfitting, because the training error rises too.

Paper: Sec. 1, Fig. 1 left.
"""

from reslearn.paper.experiment import Experiment, Result, model_name
from reslearn.paper.rules import effect_test, verdict_on_claim
from reslearn.paper.text import effect_text
from reslearn.paper.trained import TEST_ERROR, TRAINING_ERROR, Trained, is_shallow_run_lost
from reslearn.study import summary, withhold

MARGIN_POINTS = 1.0

EXPERIMENT = Experiment(
    name="C8",
    text="Degradation is not overfitting: the training error rises too",
    section="Sec. 1, Fig. 1",
    rule=(
        "The deepest plain network minus the shallowest, paired by seed. Shown: the rises of test "
        "error and of training error both have 95 % intervals above 0 and means of more than 1 "
        "point. Not shown: the test error rises in this way, and the interval of the training "
        "error ends below 1 point, which would be overfitting. Undecided: everything else, and "
        "where the test error does not rise, since there is then no degradation to explain."
    ),
    kinds=("plain",),
    min_depths=2,
)


def measure(trained: Trained) -> Result:
    """Judge the rise of the training error, provided that the test error rises."""
    depths = trained.budget.depths
    ends = (min(depths), max(depths))
    training = trained.by_depth("plain", TRAINING_ERROR, ends)
    test = trained.by_depth("plain", TEST_ERROR, ends)
    training_rise = summary([deep - shallow for shallow, deep in training])
    test_rise = summary([deep - shallow for shallow, deep in test])
    training_answer = withhold(
        effect_test(training_rise, MARGIN_POINTS),
        rules_out_yes=is_shallow_run_lost(training),
        rules_out_no=training_rise.num_diverged > 0,
    )
    is_degradation = effect_test(test_rise, MARGIN_POINTS) == "yes"
    return Result(
        outcome=verdict_on_claim(training_answer if is_degradation else "undecided"),
        measured=f"plain-{ends[1]} against plain-{ends[0]}: "
        f"training error {effect_text(training_rise, 'points', digits=1)}, "
        f"test error {effect_text(test_rise, 'points', digits=1)}",
        numbers={"depths": list(ends), "training_error_pct": training, "test_error_pct": test},
        rests_on=tuple(model_name("plain", depth) for depth in ends),
    )
