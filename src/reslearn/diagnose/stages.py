"""The experiments of a diagnosis, in order, until the verdict is certain or the time is used up.

1. Quick rounds of few steps (`quick_rounds.py`), then nearest neighbors and a linear model.
2. The unchanged network, at the user's learning rate. If it ends below the margin, it is healthy.
3. Causes that seconds settle: initial weights, the scale of the inputs, the output layer. Learning
   rates are chosen on separate seeds.
4. Depth: shallower networks, and the network with shortcuts.
5. The remaining causes, as far as the scores ask for them: warm-up, clipped gradients, capacity,
   and other causes at the user's own rate.
6. Longer trials of the variants that decide. A deeper network may only be slow at the start, and it
   may need a lower rate in the long run. So rates are tuned again.
7. Still more steps for the deep and the shallow network alone, if the deep one is still falling.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from reslearn.diagnose.experiment import CHOICE_LENGTH, LONGER, MAX_SEEDS, TrialRunner
from reslearn.diagnose.final_trials import construct, prove
from reslearn.diagnose.interventions import (
    clipped,
    linear_score,
    takes_free_outputs,
    warmed_up,
    wide,
)
from reslearn.diagnose.plan import LR_FACTORS, TrialGroup, fitting_steps, speedup
from reslearn.diagnose.quick_rounds import (
    BEFORE_DEPTH,
    add_interventions,
    cures_at_given_rate,
    judge_as_given,
    nothing_is_better,
    say_verdict,
    settle_quickly,
)
from reslearn.diagnose.scores import AT_GIVEN_RATE, MARGIN, is_worse
from reslearn.diagnose.screening import nearest_neighbor_score
from reslearn.diagnose.variant import shallowest
from reslearn.diagnose.verdict import (
    FEWEST_SEEDS,
    is_plain,
    is_still_falling,
    needs_longer,
    suspect,
)
from reslearn.diagnose.verdict_rules import CURES, NetworkVerdict, unrepaired

_RETUNED_RATES = 2
"""Number of rates at which a network is usually tuned again."""
_SHORTEST_EXTENSION = 1.5
"""Longer trials have at least so many times the steps. Else they would show nothing new."""
_SPARE_SHARE = 0.1
_DEPTH = ("shallow", "shortcuts")
_SHALLOWER = ("shallow", "shallowest")


def run_stages(runner: TrialRunner, steps: int | None) -> None:
    """Run all experiments in order."""
    add_interventions(runner)
    if settle_quickly(runner, steps):
        verdict = suspect(runner.scores())
    else:
        verdict = _experiment(runner, steps or _fitting_steps(runner))
    if verdict.name == "degradation" and "shallow" in runner.rates:
        construct(runner)
    repair = chosen_repair(runner, verdict) if runner.with_proof else ""
    if repair:
        prove(runner, repair)


def _experiment(runner: TrialRunner, steps: int) -> NetworkVerdict:
    """Run the experiments that follow the quick rounds; return what the scores suggest."""
    runner.say("Yardsticks: nearest neighbors and a linear model.")
    runner.neighbors = nearest_neighbor_score(runner.problem)
    runner.linear = linear_score(runner.problem)
    runner.restart(steps)
    return _examine(runner)


def chosen_repair(runner: TrialRunner, verdict: NetworkVerdict) -> str:
    """Return the variant that repairs the network, or "given" for another learning rate.

    Returns:
        "shortcuts" if no other variant helped. Empty if the network takes none, or if there is no
        patch for the verdict.
    """
    if unrepaired(verdict):
        return ""
    scores = runner.scores()
    repair = (CURES | {"data fault": "standardized"}).get(verdict.name, "")
    helps = is_worse(scores, "deep", repair) == "yes"
    helps = helps or is_worse(scores, "given", f"{repair}{AT_GIVEN_RATE}") == "yes"
    if repair and helps:
        return repair
    if verdict.name == "bad learning rate" and scores.train.get("given"):
        return "given"
    return "shortcuts" if "shortcuts" in runner.variants.by_name else ""


def _fitting_steps(runner: TrialRunner) -> int:
    names = [name for name in runner.variants.by_name if name != "deep"]
    runner.measure_seconds(1)  # not counted: the first step waits for imports of torch
    costs = runner.relative_costs(names, 12)
    groups = trial_groups(runner, sum(costs.values()) + 1)
    return fitting_steps(groups, runner.deadline, runner.measure_seconds, jobs=runner.jobs)


def trial_groups(runner: TrialRunner, total_cost: float) -> list[TrialGroup]:
    """Return all trials that may be needed. A verdict needs the rates and the fewest seeds.

    Args:
        total_cost: Time of one trial of every variant, in units of the deep network.
    """
    # Also the network at the given rate, and one variant that comes up during the diagnosis.
    num = len(runner.variants.by_name) + 2
    cost = (total_cost + 2) / num
    further_seeds = MAX_SEEDS[1] - FEWEST_SEEDS
    return [
        TrialGroup(num * (len(LR_FACTORS) + 1), CHOICE_LENGTH, required=True, cost=cost),
        TrialGroup(num * FEWEST_SEEDS, 1, required=True, cost=cost),
        *[TrialGroup(num, 1, cost=cost)] * further_seeds,
        TrialGroup(2 * _RETUNED_RATES, LONGER),
        TrialGroup(4 * FEWEST_SEEDS, LONGER, cost=cost),
        TrialGroup(2 * runner.with_proof, LONGER),
    ]


def _examine(runner: TrialRunner) -> NetworkVerdict:
    """Judge variants stage after stage; return what the scores suggest at the end."""
    if judge_as_given(runner):
        return suspect(runner.scores())
    for names_of in (_other_causes, _depth, _remaining):
        names = names_of(runner)
        if not names and _has_rate(runner, "deep"):
            continue
        _judge(runner, names)
        if _is_settled(runner):
            return suspect(runner.scores())
        if nothing_is_better(runner):
            _judge(runner, cures_at_given_rate(runner))
            break
        if runner.is_out_of_time:
            break
    verdict = _add_seeds(runner)
    if verdict.certain and not needs_longer(runner.scores(), verdict):
        return verdict
    if LONGER not in MAX_SEEDS:
        return verdict
    verdict = _judge_longer(runner, verdict)
    if verdict.suspicion == "degradation" and is_still_falling(runner.scores()):
        verdict = _extend(runner, verdict)
    return verdict


def _other_causes(runner: TrialRunner) -> list[str]:
    names = [name for name in BEFORE_DEPTH if name in runner.variants.by_name]
    if runner.scores().learns("deep"):  # it is regularized on purpose
        names = [name for name in names if name != "unregularized"]
    return names


def _depth(runner: TrialRunner) -> list[str]:
    return [name for name in _DEPTH if name in runner.variants.by_name]


def _remaining(runner: TrialRunner) -> list[str]:
    """Return the variants that the scores ask for, and add them."""
    scores, problem, by_name = runner.scores(), runner.problem, runner.variants.by_name
    names = []
    if not any(scores.learns(name) for name in ("deep", "shallow")):
        variant = shallowest(problem)
        if variant is not None:
            by_name["shallowest"] = variant
            names.append("shallowest")
        by_name |= {"warm-up": warmed_up(problem), "clipped": clipped(problem)}
        names += ["warm-up", "clipped"]
    # Does the network fit its training data worse than neighbors predict held-out data?
    fits_worse = scores.mean("deep") - runner.neighbors > MARGIN
    is_number = problem.inputs.is_floating_point()
    if fits_worse and is_number and takes_free_outputs(problem):
        by_name["wide"] = wide(problem)
        names.append("wide")
    return [*names, *cures_at_given_rate(runner)]


def _judge(runner: TrialRunner, names: Sequence[str]) -> None:
    """Choose rates for further variants, and for "deep" if it has none yet; then train them."""
    tuned = [name for name in ("deep", *names) if not _has_rate(runner, name)]
    runner.choose_rates(tuned)
    runner.active += [name for name in names if name not in runner.active]
    runner.train_seeds(FEWEST_SEEDS)


def _has_rate(runner: TrialRunner, name: str) -> bool:
    choice = runner.rates.get(name)
    return choice is not None and (bool(choice.scores) or name.endswith(AT_GIVEN_RATE))


def _is_settled(runner: TrialRunner) -> bool:
    """Return whether the verdict is certain, and variants that follow would not change it."""
    scores = runner.scores()
    verdict = suspect(scores)
    say_verdict(runner, verdict)
    if is_plain(scores, verdict):
        return True
    if not verdict.certain or needs_longer(scores, verdict):
        return False
    has_tried_depth = "shallow" in runner.active or "shallow" not in runner.variants.by_name
    if verdict.name in ("vanishing or exploding signal", "dead units"):
        return has_tried_depth or scores.is_below_margin("initialized")
    if verdict.subcause in ("scale of the inputs", "output activation"):
        return True
    return has_tried_depth or (nothing_is_better(runner) and verdict.name != "data fault")


def _add_seeds(runner: TrialRunner) -> NetworkVerdict:
    """Train seed after seed until a verdict is certain or the time is used up.

    Seeds between two looks run at the same time, so that cores are not idle. Each look judges only
    its own seeds, so the verdict does not depend on the number of cores.
    """
    verdict = suspect(runner.scores())
    for num_seeds in runner.look_counts()[1:]:
        if verdict.certain or runner.is_out_of_time:
            break
        runner.train_seeds(num_seeds)
        verdict = suspect(runner.scores())
        say_verdict(runner, verdict)
    return verdict


def _judge_longer(runner: TrialRunner, verdict: NetworkVerdict) -> NetworkVerdict:
    """Repeat the trials that decide with more steps, as many as the remaining time allows."""
    names = _deciding_names(runner, verdict)
    tuned = [name for name in ("deep", *_SHALLOWER) if name in names]
    num_trials = FEWEST_SEEDS * (len(names) + 1) + _RETUNED_RATES * len(tuned)
    growth = _affordable_growth(
        runner, names, num_trials, runner.steps, with_pair=runner.with_proof
    )
    if growth < _SHORTEST_EXTENSION:
        runner.say("No time is left for longer trials.")
        return verdict
    runner.lengthen(round(growth * runner.steps), names)
    runner.retune_rates(tuned)
    return _judge_lengthened(runner, verdict)


def _judge_lengthened(runner: TrialRunner, verdict: NetworkVerdict) -> NetworkVerdict:
    """Train at the new length; return `verdict`, the one before, if the time does not suffice."""
    runner.train_seeds(FEWEST_SEEDS)
    if runner.drop_incomplete_trials():
        return verdict
    verdict = suspect(runner.scores())
    say_verdict(runner, verdict)
    return _add_seeds(runner)


def _deciding_names(runner: TrialRunner, verdict: NetworkVerdict) -> list[str]:
    """Return the variants on which a suspicion rests, for the longer trials."""
    by_verdict: dict[str, tuple[str, ...]] = {
        "degradation": (*_SHALLOWER, "shortcuts"),
        "capacity too small": (*_SHALLOWER, "shortcuts", "wide"),
        "vanishing or exploding signal": ("initialized", "shallow"),
        "dead units": ("initialized", "shallow"),
        "output layer": ("bare", "shallow"),
        "too much regularization": ("unregularized",),
        "bad learning rate": ("warm-up", "clipped"),
    }
    variants = by_verdict.get(verdict.suspicion or verdict.name)
    if variants is None:
        return list(runner.active)
    scores = runner.scores()
    if verdict.name == "bad learning rate" and not nothing_is_better(runner):
        variants += ("shallow",)
    names = ["deep", *(name for name in variants if name in runner.active)]
    names += [
        name
        for name in runner.active
        if name.endswith(AT_GIVEN_RATE) and is_worse(scores, "given", name) != "no"
    ]
    return names


def _affordable_growth(
    runner: TrialRunner, names: Sequence[str], num_trials: int, steps: int, *, with_pair: bool
) -> float:
    """Return by how much trials may be longer in the remaining time, at most LONGER.

    Args:
        steps: Steps of the trials before.
        with_pair: Leave time for both trials of the proof at the new length.
    """
    seconds = max(runner.seconds_of(name, steps) for name in names)
    total = num_trials * seconds / speedup(num_trials, runner.jobs)
    if with_pair:
        total += 2 * seconds / speedup(2, runner.jobs)
    remaining = runner.deadline.remaining() * (1 - _SPARE_SHARE)
    return min(LONGER, remaining / max(1e-9, total))


def _extend(runner: TrialRunner, verdict: NetworkVerdict) -> NetworkVerdict:
    """Give the deep and the shallower network more steps, because the deep one is still falling."""
    scores = runner.scores()
    worse = [name for name in _SHALLOWER if is_worse(scores, "deep", name) == "yes"]
    names = ["deep", *worse[:1]]
    num_trials = FEWEST_SEEDS * len(names)
    growth = _affordable_growth(runner, names, num_trials, runner.judged_steps, with_pair=False)
    if growth < _SHORTEST_EXTENSION:
        runner.say("The deep network is still falling, and no time is left for more steps.")
        return verdict
    steps = math.ceil(growth * runner.judged_steps)
    runner.say(
        f"The deep network is still falling: it and the shallower one train for {steps} steps."
    )
    runner.lengthen(steps, names)
    runner.is_extended = True
    return _judge_lengthened(runner, verdict)
