"""The choices that the paper leaves open: how much does each one move the error of resnet20?

Re-implementations of the paper differ in these points. Every switch is compared with our default
(the paper's choice, where it names one), paired by seed, with everything else equal. --depths
selects another network. Choices that the network does not have, such as the stride of a bottleneck,
get a line without a verdict.
"""

import math
import statistics

from reslearn.paper.experiment import Budget, Experiment, Line, Result, RunSpec
from reslearn.paper.rules import moves, not_run
from reslearn.paper.trained import TEST_ERROR, WARM_UP_FROM_DEPTH, Trained, recipe_settings
from reslearn.report import Cell, Effect, Forest, Table
from reslearn.study import compare, holm, needed_pairs_text

DIFFERENCE_TO_SEE_PCT = 0.3
_IMAGENET_STATISTICS = "mean and deviation of ImageNet"
SWITCHES: dict[str, tuple[str, ...]] = {
    "option A: zeros on both sides": ("model.zero_pad=split",),
    "option A: 2x2 average instead of slicing": ("model.subsample=average",),
    "batch norm over each half of a batch": ("train.accumulate=2",),
    "He initialization by fan-in": ("model.init=he_fan_in",),
    "last batch norm of a block starts at zero": ("model.zero_init=true",),
    "weight decay on weights only": ("optimizer.decay=weights",),
    "Nesterov momentum": ("optimizer.nesterov=true",),
    "mean and deviation per channel": ("data.mean=per-channel", "data.std=per-channel"),
    _IMAGENET_STATISTICS: ("data.mean=imagenet", "data.std=imagenet"),
    "padded with black before the mean": ("data.padding=black",),
    "exact batch-norm statistics after training": ("evaluation.batch_norm=exact",),
}
_FEWER_IMAGES = "nine tenths of the training images"
_WARM_UP = {
    "warm-up of 400 steps, whatever the training error": ('schedule.warm_up_duration="400 steps"',),
    "warm-up of an epoch, whatever the training error": ('schedule.warm_up_duration="1 epochs"',),
}
_BEST_EPOCH = "best epoch on the test set (wrong) instead of the last"
# Lines of switches that are not run, and why. Lines of switches that are run are skipped.
_WITHOUT_EFFECT = {
    "stride in the 3x3 of a bottleneck": "networks for CIFAR have none",
    **dict.fromkeys(_WARM_UP, f"has an effect from {WARM_UP_FROM_DEPTH} layers on: --depths 110"),
    _FEWER_IMAGES: "only for digits and CIFAR",
    _IMAGENET_STATISTICS: "needs three colors, and digits are gray",
}

_ErrorsBySwitch = dict[str, list[float]]


def specs(budget: Budget) -> list[RunSpec]:
    """Return the runs of each switch on all seeds. The runs of the default come from `kinds`."""
    specs: list[RunSpec] = []
    for switch, settings in _switches(budget).items():
        specs += [_spec(budget, switch, settings, seed) for seed in budget.judge_seeds]
    return specs


EXPERIMENT = Experiment(
    name="ambiguities",
    text="The effect on the error of each choice that the paper leaves open",
    section="Sec. 3.3, 3.4, 4.2",
    max_depths=1,
    is_open=True,
    rule=(
        "Test error with the switch minus test error without it, paired by seed. Shown (the "
        "choice moves the error): p is below 5 % after Holm's correction for all switches. Not "
        f"shown: the 95 % interval lies within {DIFFERENCE_TO_SEE_PCT:g} points on both sides. "
        "Undecided: everything else."
    ),
    kinds=("residual",),
    specs=specs,
    depths=dict.fromkeys(("smoke", "short", "medium", "full"), (20,)),
)


def measure(trained: Trained) -> Result:
    """Judge each switch, and compute the number of seeds that a difference of 0.3 points takes."""
    budget = trained.budget
    default = [errors[0] for errors in trained.by_depth("residual", TEST_ERROR)]
    errors = {}
    for switch, settings in _switches(budget).items():
        runs = [_spec(budget, switch, settings, seed) for seed in trained.seeds]
        errors[switch] = [_error(trained, spec) for spec in runs]
    best_epochs = [_best_epoch(trained, seed) for seed in trained.seeds]
    if not all(math.isnan(error) for error in best_epochs):
        errors[_BEST_EPOCH] = best_epochs
    p_values = _corrected_p_values(errors, default)
    lines = []
    for switch, values in errors.items():
        differences = [a - b for a, b in zip(values, default, strict=True)]
        lines.append(moves(switch, differences, p=p_values[switch], margin=DIFFERENCE_TO_SEE_PCT))
    lines += [
        not_run(switch, because)
        for switch, because in _WITHOUT_EFFECT.items()
        if switch not in errors
    ]
    return Result(
        lines=tuple(lines),
        figures=_forest(lines),
        tables=(_power_table(errors, default, p_values),),
        notes=_best_run_note(default),
        numbers={"test_error_pct": {"default": default, **errors}},
    )


def _switches(budget: Budget) -> dict[str, tuple[str, ...]]:
    """Return the switches that have an effect on the network and data of the budget.

    With a tenth of the images set aside the number of steps stays the same, so that nothing but the
    images differs. A folder of images has no such switch: it has its own validation images, or any
    number of images.
    """
    is_digits = budget.data == "digits"
    switches = dict(SWITCHES)
    if is_digits:
        del switches[_IMAGENET_STATISTICS]
    if budget.depths[0] >= WARM_UP_FROM_DEPTH:
        switches.update(_WARM_UP)
    if not is_digits and budget.data not in ("cifar10", "cifar100"):
        return switches
    settings = [f"data.validation_images={143 if is_digits else 5000}"]
    if budget.name in ("short", "medium"):
        # 20 epochs of all digits, or 8 of CIFAR, with milestones at 1/2 and 3/4.
        steps, half, three_quarters = (898, 449, 674) if is_digits else (3125, 1563, 2344)
        settings += [
            f'schedule.duration="{steps} steps"',
            f'schedule.milestones=["{half} steps", "{three_quarters} steps"]',
        ]
    switches[_FEWER_IMAGES] = tuple(settings)
    return switches


def _spec(budget: Budget, switch: str, settings: tuple[str, ...], seed: int) -> RunSpec:
    (model,), (rate,) = budget.models(["residual"]), budget.learning_rates
    overrides = (*recipe_settings(model, rate), *settings)
    return RunSpec(model=model, seed=seed, overrides=overrides, why=f"with {switch}")


def _error(trained: Trained, spec: RunSpec) -> float:
    return float(trained.result(spec)[TEST_ERROR]) if spec in trained.runs else math.nan


def _best_epoch(trained: Trained, seed: int) -> float:
    """Return the lowest test error of the default's curve, which some papers report."""
    (model,) = trained.budget.models(["residual"])
    run = trained.run(model, seed)
    records = [] if run is None else run.metrics("test")
    return min((record["top1_error_pct"] for record in records), default=math.nan)


def _corrected_p_values(errors: _ErrorsBySwitch, default: list[float]) -> dict[str, float | None]:
    p_values = [compare(values, default, paired=True).p for values in errors.values()]
    return dict(zip(errors, holm(p_values), strict=True))


def _best_run_note(default: list[float]) -> tuple[str, ...]:
    finite = [error for error in default if math.isfinite(error)]
    if len(finite) < 2:
        return ()
    gain = math.fsum(finite) / len(finite) - min(finite)
    return (f"The best of {len(finite)} runs is {gain:.2f} points lower than their mean.",)


def _forest(lines: list[Line]) -> tuple[Forest, ...]:
    """Draw the lines that were run, the largest effect first."""
    effects = []
    for line in sorted(lines, key=lambda line: -abs(line.difference or 0.0)):
        if line.difference is not None:
            low, high = line.interval or (math.nan, math.nan)
            is_shown = line.outcome == "shown"
            effects.append(
                Effect(line.what, line.values, line.difference, low, high, decided=is_shown)
            )
    if not effects:
        return ()
    caption = (
        "Dots: pairs of seeds. Diamond: their mean, filled if the rule, which corrects for the "
        "number of switches, shows an effect. Line: 95 % confidence interval of the mean, not "
        f"corrected, cut at the axis. Shading: within {DIFFERENCE_TO_SEE_PCT:g} points. Left of 0 "
        "the switch lowers the error."
    )
    title = "Effect of each choice"
    label = "points of test error"
    return (Forest("effects", title, caption, label, effects, DIFFERENCE_TO_SEE_PCT),)


def _power_table(
    errors: _ErrorsBySwitch, default: list[float], p_values: dict[str, float | None]
) -> Table:
    """Return the p values, and how many pairs of seeds a difference of 0.3 points takes."""
    rows: list[list[Cell]] = []
    # Holm's correction asks this significance of the first switch that is shown.
    significance = 0.05 / len(errors)
    for switch, values in errors.items():
        differences = [a - b for a, b in zip(values, default, strict=True) if math.isfinite(a - b)]
        if len(differences) < 2:
            continue
        deviation = statistics.stdev(differences)
        p = p_values[switch]
        pairs = needed_pairs_text(DIFFERENCE_TO_SEE_PCT, deviation, significance=significance)
        rows.append([switch, "" if p is None else f"{p:.2g}", round(deviation, 2), pairs])
    caption = (
        f"p is corrected for all {len(errors)} choices (Holm). The last column is the number of "
        f"pairs of seeds that show a difference of {DIFFERENCE_TO_SEE_PCT:g} points with a power "
        f"of 80 % if no other choice is shown (p below 5 % / {len(errors)}), given the present "
        "spread."
    )
    heads = ["switch", "p", "standard deviation of the difference", "pairs needed"]
    return Table(caption, [*heads], rows)
