"""Figure 1: a plain network of 56 layers has higher training and test error than one of 20."""

from reslearn.paper.experiment import Experiment, Result
from reslearn.paper.figures import figure_1
from reslearn.paper.rules import MARGIN_OF_A_RISE_PCT, OTHER_RUNS_RULE, is_papers_own, rises
from reslearn.paper.trained import TEST_ERROR, TRAINING_ERROR, Trained
from reslearn.report import Panels

EXPERIMENT = Experiment(
    name="fig1",
    text="Training and test error of a plain network and a deeper one",
    section="Fig. 1",
    rule=(
        "Differences between the deepest and the shallowest plain network, paired by seed. "
        "Training error is on clean images with recomputed batch-norm statistics. Reproduced: the "
        f"95 % interval lies above 0 and the mean is more than {MARGIN_OF_A_RISE_PCT:g} point. Not "
        f"reproduced: the interval ends at or below {MARGIN_OF_A_RISE_PCT:g} "
        f"point.{OTHER_RUNS_RULE}"
    ),
    kinds=("plain",),
    depths={"smoke": (8, 20), "short": (20, 56), "medium": (20, 56), "full": (20, 56)},
    min_depths=2,
)


def measure(trained: Trained) -> Result:
    """Judge both differences, and draw the curves."""
    depths = trained.budget.depths_of("plain")
    shallow, deep = min(depths), max(depths)
    lines, numbers = [], {}
    for result_field, name in ((TRAINING_ERROR, "training"), (TEST_ERROR, "test")):
        errors = trained.by_depth("plain", result_field, (shallow, deep))
        differences = [deep_error - shallow_error for shallow_error, deep_error in errors]
        what = f"{name} error, plain-{deep} minus plain-{shallow}, is above 0"
        lines.append(rises(what, differences, same_protocol=is_papers_own(trained)))
        numbers[f"{name}_error_pct"] = errors
    finished = trained.finished_depths("plain")
    return Result(
        lines=tuple(lines),
        figures=(Panels(figure_1(trained, finished)),) if len(finished) > 1 else (),
        numbers={"depths": [shallow, deep], **numbers},
    )
