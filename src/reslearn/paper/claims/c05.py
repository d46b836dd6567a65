"""C5: residual networks gain accuracy from considerably increased depth.

Paper: Abstract; Table 6, Fig. 6 middle.
"""

import math

from reslearn.paper.experiment import Experiment, Result
from reslearn.paper.rules import effect_test, verdict_on_claim
from reslearn.paper.text import effect_text, means_text
from reslearn.paper.trained import TEST_ERROR, Trained, is_any_run_lost
from reslearn.study import slope, withhold

MARGIN_POINTS = 0.5

EXPERIMENT = Experiment(
    name="C5",
    text="Residual networks gain accuracy from considerably increased depth",
    section="Abstract, Table 6",
    rule=(
        "Each judged seed gives the slope of test error over log2(depth) of the residual "
        "networks. Shown: the 95 % interval of the slopes lies below 0, and the mean gain from "
        "the shallowest to the deepest network is more than half a point. Not shown: the interval "
        "ends at a gain below half a point. Undecided: everything else."
    ),
    kinds=("residual",),
    min_depths=2,
)


def measure(trained: Trained) -> Result:
    """Judge the fall of test error over log2(depth), since gains per layer shrink with depth."""
    depths = trained.budget.depths_of("residual")
    errors = trained.by_depth("residual", TEST_ERROR)
    slopes = slope([math.log2(depth) for depth in depths], errors).summary
    is_lost = is_any_run_lost(errors)
    answer = withhold(
        effect_test(slopes, MARGIN_POINTS, scale=-math.log2(max(depths) / min(depths))),
        rules_out_yes=is_lost,
        rules_out_no=is_lost,
    )
    return Result(
        outcome=verdict_on_claim(answer),
        measured=f"residual test error {means_text(depths, errors)}; "
        f"{effect_text(slopes, 'points a doubling of depth')}",
        numbers={"depths": list(depths), "test_error_pct": errors},
    )
