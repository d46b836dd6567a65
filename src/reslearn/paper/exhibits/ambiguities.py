"""Where re-implementations of the paper differ, each a switch: how much does the choice move the test error of resnet20?

Every switch against our default (the paper's where the paper says), paired by seed, all else equal; another net by --depths, one. What
such a net cannot tell (the stride of a bottleneck, the warm-up of 110 layers) is named as not run here.
"""

import math
import statistics

from reslearn.paper import protocol
from reslearn.paper.claim import Budget, Runs, RunSpec
from reslearn.paper.exhibit import Depths, Exhibit, Line, Measured, Outcome, not_run
from reslearn.report import Cell, Effect, Forest, Table
from reslearn.study import compare, holm, needed_pairs_text

DIFFERENCE_TO_SEE_PCT = 0.3
EXHIBIT = Exhibit(
    name="ambiguities",
    title="The worth of each choice that the paper leaves open",
    section="Sec. 3.3, 3.4, 4.2",
    data="CIFAR-10",
    most_depths=1,
    is_open=True,
    rule=(
        "Test error with the switch minus without, paired by seed. Shown (the choice moves the error): p, corrected for all switches at "
        f"once (Holm), is below 5 %. Not shown: the 95 % interval lies within {DIFFERENCE_TO_SEE_PCT:g} points on both sides. Undecided: "
        "neither."
    ),
)
DEPTHS = {name: Depths(both=(20,)) for name in ("smoke", "short", "medium", "full")}
_IMAGENETS = "mean and deviation of ImageNet"
SWITCHES: dict[str, tuple[str, ...]] = {
    "option A: zeros on both sides": ("model.zero_pad=split",),
    "option A: 2x2 average instead of slicing": ("model.subsample=average",),
    "batch norm over each half of a batch": ("train.accumulate=2",),
    "He initialization by fan-in": ("model.init=he_fan_in",),
    "last batch norm of a block starts at zero": ("model.zero_init=true",),
    "weight decay on weights only": ("optimizer.decay=weights",),
    "Nesterov momentum": ("optimizer.nesterov=true",),
    "mean and deviation per channel": ("data.mean=per-channel", "data.std=per-channel"),
    _IMAGENETS: ("data.mean=imagenet", "data.std=imagenet"),
    "padded with black before the mean": ("data.padding=black",),
    "exact batch-norm statistics after training": ("evaluation.batch_norm=exact",),
}
_IMAGES = "nine tenths of the training images"
_WARM_UP = {
    "warm-up of 400 steps, whatever the training error": ('schedule.warm_up_duration="400 steps"',),
    "warm-up of an epoch, whatever the training error": ('schedule.warm_up_duration="1 epochs"',),
}
_OTHER_NETS = {
    "stride in the 3x3 of a bottleneck": "nets for CIFAR have none",
}


def conditions(budget: Budget) -> list[RunSpec]:
    """The default, and each switch, on all seeds."""
    return [
        *protocol.fixed_conditions(budget, ["residual"]),
        *(
            _condition(budget, seed, switch, name)
            for name, switch in _switches(budget).items()
            for seed in budget.judge_seeds
        ),
    ]


def measure(evidence: Runs) -> Measured:
    """One line a switch, corrected for their number, and the seeds that it takes to see 0.3 points."""
    budget = evidence.budget
    seeds = budget.judge_seeds
    base = [
        one[0]
        for one in protocol.by_depth(evidence, "residual", protocol.TEST_ERROR, budget.depths)
    ]
    switches = _switches(budget)
    moved = {
        name: [_error(evidence, _condition(budget, seed, switch, name)) for seed in seeds]
        for name, switch in switches.items()
    }
    best = [_best_epoch(evidence, seed) for seed in seeds]
    if not all(math.isnan(value) for value in best):
        moved["best epoch on the test set (wrong) instead of the last"] = best
    comparisons = {name: compare(values, base, paired=True) for name, values in moved.items()}
    corrected = dict(zip(comparisons, holm([one.p for one in comparisons.values()]), strict=True))
    lines = [
        _line(name, [a - b for a, b in zip(moved[name], base, strict=True)], corrected[name])
        for name in moved
    ]
    elsewhere = {
        **_OTHER_NETS,
        **dict.fromkeys(
            _WARM_UP, f"in force from {protocol.WARM_UP_FROM_DEPTH} layers on: --depths 110"
        ),
        _IMAGES: "of digits and CIFAR alone",
        _IMAGENETS: "of three colors, and digits are gray",
    }
    lines += [not_run(name, why) for name, why in elsewhere.items() if name not in switches]
    finite = [value for value in base if math.isfinite(value)]
    best_run = f"The best of {len(finite)} runs, in place of their mean, is {math.fsum(finite) / len(finite) - min(finite):.2f} points lower."
    notes = (best_run,) if len(finite) > 1 else ()
    return Measured(
        lines=tuple(lines),
        figures=_forest(lines),
        tables=(_power(moved, base, corrected),),
        notes=notes,
        numbers={"test_error_pct": {"default": base, **moved}},
    )


def _switches(budget: Budget) -> dict[str, tuple[str, ...]]:
    """All of them. With a tenth of the images set aside the steps stay as many, so that nothing but the images differs; of a folder,
    which has validation images of its own or as many images as it happens to have, that is left out."""
    digits = budget.data == "digits"
    own = {name: switch for name, switch in SWITCHES.items() if not (digits and name == _IMAGENETS)}
    if budget.depths[0] >= protocol.WARM_UP_FROM_DEPTH:
        own = {**own, **_WARM_UP}
    if not digits and budget.data not in ("cifar10", "cifar100"):
        return own
    fewer: tuple[str, ...] = (f"data.validation_images={143 if digits else 5000}",)
    if budget.name in ("short", "medium"):
        steps = (
            (898, 449, 674) if digits else (3125, 1563, 2344)
        )  # 20 epochs of digits, 8 of CIFAR; then the milestones at 1/2 and 3/4
        fewer += (
            f'schedule.duration="{steps[0]} steps"',
            f'schedule.milestones=["{steps[1]} steps", "{steps[2]} steps"]',
        )
    return {**own, _IMAGES: fewer}


def _condition(budget: Budget, seed: int, switch: tuple[str, ...], name: str) -> RunSpec:
    net, (lr,) = _net(budget), budget.learning_rates
    return RunSpec(
        model=net, seed=seed, overrides=(*protocol.overrides(net, lr), *switch), why=f"with {name}"
    )


def _net(budget: Budget) -> str:
    (net,) = protocol.models(budget, ["residual"])
    return net


def _error(evidence: Runs, condition: RunSpec) -> float:
    run = evidence.runs.get(condition)
    return math.nan if run is None else float(run.result[protocol.TEST_ERROR])


def _best_epoch(evidence: Runs, seed: int) -> float:
    """The lowest test error that the curve of the default shows: what is reported where the last epoch is not."""
    run = protocol.judged_run(evidence, _net(evidence.budget), seed)
    curve = [] if run is None else [record["top1_error_pct"] for record in run.metrics("test")]
    return min(curve, default=math.nan)


def _line(name: str, differences: list[float], p: float | None) -> Line:
    numbers = compare(differences, [0.0] * len(differences), paired=True)
    outcome: Outcome = "undecided"
    because = "" if p is not None else "fewer than two seeds"
    if numbers.interval is not None and not numbers.num_diverged:
        low, high = numbers.interval
        if p is not None and p < 0.05:
            outcome = "shown"
        elif low > -DIFFERENCE_TO_SEE_PCT and high < DIFFERENCE_TO_SEE_PCT:
            outcome = "not shown"
    mean = None if math.isnan(numbers.difference) else numbers.difference
    return Line(
        what=name,
        unit="points",
        paper=None,
        values=tuple(differences),
        difference=mean,
        interval=numbers.interval,
        outcome=outcome,
        because=because,
        num_lost=numbers.num_diverged,
    )


def _forest(lines: list[Line]) -> tuple[Forest, ...]:
    """The lines that were run, the largest effect first."""
    run = sorted(
        (line for line in lines if line.difference is not None),
        key=lambda line: -abs(line.difference or 0.0),
    )
    effects = []
    for line in run:
        low, high = line.interval or (math.nan, math.nan)
        effects.append(
            Effect(
                line.what,
                line.values,
                line.difference or 0.0,
                low,
                high,
                decided=line.outcome == "shown",
            )
        )
    caption = (
        "Dots: pairs of seeds. Diamond: their mean, full where the rule, which corrects for the number of switches, shows an effect. Line: "
        f"the 95 % interval of each by itself, cut at the axis. Shaded: within {DIFFERENCE_TO_SEE_PCT:g} points. Left of 0 the switch "
        "lowers the error."
    )
    title = "What each choice is worth"
    return (
        (Forest("effects", title, caption, "points of test error", effects, DIFFERENCE_TO_SEE_PCT),)
        if effects
        else ()
    )


def _power(
    moved: dict[str, list[float]], base: list[float], corrected: dict[str, float | None]
) -> Table:
    """The p values, and how many pairs of seeds it takes to see 0.3 points, from the spread of the differences."""
    rows: list[list[Cell]] = []
    significance = 0.05 / len(moved)  # what Holm's correction asks of the first to be shown
    for name, values in moved.items():
        differences = [a - b for a, b in zip(values, base, strict=True) if math.isfinite(a - b)]
        if len(differences) > 1:
            deviation = statistics.stdev(differences)
            p, needed = (
                corrected[name],
                needed_pairs_text(DIFFERENCE_TO_SEE_PCT, deviation, significance=significance),
            )
            rows.append([name, "" if p is None else f"{p:.2g}", round(deviation, 2), needed])
    caption = (
        f"p by Holm's correction for all {len(moved)} choices. Pairs of seeds needed: to show {DIFFERENCE_TO_SEE_PCT:g} points with a "
        f"power of 80 % where no other choice is shown (p below 5 % / {len(moved)}), from the spread of the differences here."
    )
    return Table(
        caption, ["switch", "p", "standard deviation of the difference", "pairs needed"], rows
    )
