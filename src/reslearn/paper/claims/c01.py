"""C1: deeper plain networks are harder to train.

Paper: Sec. 1, Fig. 1 left; Sec. 4.2, Fig. 6 left.
"""

from reslearn.paper.experiment import Experiment, Result
from reslearn.paper.rules import effect_test, verdict_on_claim
from reslearn.paper.text import effect_text, means_text
from reslearn.paper.trained import TRAINING_ERROR, Trained, is_any_run_lost, is_shallow_run_lost
from reslearn.study import slope, withhold

MARGIN_POINTS = 1.0

EXPERIMENT = Experiment(
    name="C1",
    text="Deeper plain networks are harder to train",
    section="Sec. 1, Fig. 1",
    rule=(
        "Each judged seed gives the slope of training error over depth, with each network at its "
        "best learning rate. Shown: the 95 % interval of the slopes lies above 0, and the mean "
        "rise from the shallowest to the deepest network is more than 1 point. Not shown: the "
        "interval ends below a rise of 1 point. Undecided: everything else."
    ),
    kinds=("plain",),
    min_depths=2,
)


def measure(trained: Trained) -> Result:
    """Fit a line to the training errors of each seed (least squares) and judge the slopes."""
    depths = trained.budget.depths
    errors = trained.by_depth("plain", TRAINING_ERROR)
    slopes = slope(depths, errors)
    answer = withhold(
        effect_test(slopes.summary, MARGIN_POINTS, scale=max(depths) - min(depths)),
        rules_out_yes=is_shallow_run_lost(errors),
        rules_out_no=is_any_run_lost(errors),
    )
    return Result(
        outcome=verdict_on_claim(answer),
        measured=f"plain training error {means_text(depths, errors)}; "
        f"{effect_text(slopes.summary, 'points per layer')}",
        numbers={
            "depths": list(depths),
            "training_error_pct": errors,
            "slope_points_a_layer": list(slopes.per_seed),
        },
    )
