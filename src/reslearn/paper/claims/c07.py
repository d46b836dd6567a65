"""C7: with depth, accuracy saturates and then degrades rapidly.

Paper: Sec. 1, "a degradation problem has been exposed".
"""

from reslearn.paper.experiment import Experiment, Result
from reslearn.paper.rules import all_of, effect_test, verdict_on_claim
from reslearn.paper.text import effect_text, means_text
from reslearn.paper.trained import TEST_ERROR, Trained, is_shallow_run_lost
from reslearn.study import margin_test, summary, withhold

MARGIN_POINTS = 1.0

EXPERIMENT = Experiment(
    name="C7",
    text="Degradation: with depth accuracy saturates, then falls rapidly",
    section="Sec. 1, Fig. 1",
    rule=(
        "Each judged seed gives two slopes of the test error of plain networks: the early slope "
        "between the two shallowest depths, and the late slope from the second to the deepest. "
        "Shown: the late rise has a 95 % interval above 0 and a mean of more than 1 point, and "
        "the late minus the early slope has an interval above 0. Not shown: the interval of the "
        "late rise ends below 1 point, or the interval of late minus early slope lies below 0. "
        "Undecided: everything else."
    ),
    kinds=("plain",),
    min_depths=3,
)


def measure(trained: Trained) -> Result:
    """Judge the late rise, and the bend: the curve is flat or falling first, then rises rapidly."""
    depths = trained.budget.depths
    errors = trained.by_depth("plain", TEST_ERROR)
    late_rise = summary([curve[-1] - curve[1] for curve in errors])
    early_layers, late_layers = depths[1] - depths[0], depths[-1] - depths[1]
    bend = summary(
        [
            (curve[-1] - curve[1]) / late_layers - (curve[1] - curve[0]) / early_layers
            for curve in errors
        ]
    )
    is_lost = is_shallow_run_lost(errors)
    rise_answer = effect_test(late_rise, MARGIN_POINTS)
    bend_answer = margin_test(bend.interval, 0.0)
    answer = all_of(
        withhold(rise_answer, rules_out_yes=is_lost, rules_out_no=late_rise.num_diverged > 0),
        withhold(bend_answer, rules_out_yes=is_lost, rules_out_no=bend.num_diverged > 0),
    )
    return Result(
        outcome=verdict_on_claim(answer),
        measured=f"plain test error {means_text(depths, errors)}; "
        f"{depths[1]} to {depths[-1]} layers {effect_text(late_rise, 'points', digits=1)}; "
        f"late minus early slope {effect_text(bend, 'points per layer')}",
        numbers={"depths": list(depths), "test_error_pct": errors},
    )
