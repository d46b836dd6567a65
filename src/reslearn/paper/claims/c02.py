"""C2: the residual framework eases the training of much deeper networks.

Paper: Abstract; Sec. 4.2, Fig. 6.
"""

from reslearn.paper.experiment import BOTH, Experiment, Result
from reslearn.paper.rules import effect_test, verdict_on_claim
from reslearn.paper.text import effect_text, means_text
from reslearn.paper.trained import TRAINING_ERROR, Trained, is_any_run_lost
from reslearn.study import slope, summary, withhold

MARGIN_POINTS = 1.0

EXPERIMENT = Experiment(
    name="C2",
    text="The residual framework eases the training of much deeper networks",
    section="Abstract, Fig. 6",
    rule=(
        "Each judged seed gives the slope of training error over depth of the plain networks "
        "minus the slope of the residual networks, at the depths that both have. Shown: the 95 % "
        "interval of these differences lies above 0, and over the whole range of depths the mean "
        "difference is more than 1 point. Not shown: the interval ends below 1 point over the "
        "whole range. Undecided: everything else."
    ),
    kinds=BOTH,
    min_depths=2,
)


def measure(trained: Trained) -> Result:
    """Compare the slopes of both families seed by seed."""
    depths = trained.budget.depths
    plain = trained.by_depth("plain", TRAINING_ERROR, depths)
    residual = trained.by_depth("residual", TRAINING_ERROR, depths)
    slopes = zip(slope(depths, plain).per_seed, slope(depths, residual).per_seed, strict=True)
    difference = summary([plain_slope - residual_slope for plain_slope, residual_slope in slopes])
    # Lost runs are left out of means, and must not help the family that lost them.
    answer = withhold(
        effect_test(difference, MARGIN_POINTS, scale=max(depths) - min(depths)),
        rules_out_yes=is_any_run_lost(residual),
        rules_out_no=is_any_run_lost(plain),
    )
    return Result(
        outcome=verdict_on_claim(answer),
        measured=f"residual training error {means_text(depths, residual)}; "
        f"plain minus residual {effect_text(difference, 'points per layer')}",
        numbers={
            "depths": list(depths),
            "plain_training_error_pct": plain,
            "residual_training_error_pct": residual,
        },
    )
