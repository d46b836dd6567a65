"""Quick rounds of few steps, before the experiments.

Many causes need no long trials: if a network learns nothing, and learns with one change, the change
is the cure. A round trains the network at the user's rate, then with each change at the same rate,
then each at its best rate. It ends the diagnosis only if `is_plain` holds. Rounds grow while they
take a small share of the time. They come before the plan of the experiments, which costs seconds.
"""

from __future__ import annotations

import statistics
from dataclasses import replace

from reslearn.diagnose.experiment import LONGER, TrialRunner
from reslearn.diagnose.interventions import bare, clipped, initialized, warmed_up
from reslearn.diagnose.plan import MIN_STEPS, RateChoice, speedup
from reslearn.diagnose.rate_rules import is_rate_at_fault
from reslearn.diagnose.regularization import unregularized
from reslearn.diagnose.scores import AT_GIVEN_RATE, LEARNS, MARGIN
from reslearn.diagnose.variant import Variant
from reslearn.diagnose.verdict import (
    FEWEST_SEEDS,
    is_plain,
    ruled_out,
    suspect,
)
from reslearn.diagnose.verdict_rules import NetworkVerdict

BEFORE_DEPTH = ("standardized", "bare", "initialized", "unregularized")
"""Variants for causes that few trials settle."""
_MAX_STEPS = 480
"""Steps of a round with changes, at most."""
_IMPROVEMENT = 0.8
"""A loss that fell to this share in the second half of a round may still fall to the margin."""
_SHARE_OF_TIME = 0.1
"""A round may take this share of the time that is left."""


def settle_quickly(runner: TrialRunner, steps: int | None) -> bool:
    """Run rounds until one settles the verdict; return whether one does.

    The steps of the last round are the steps of the runner.

    Args:
        steps: Steps of the only round; by default, rounds grow from MIN_STEPS.
    """
    runner.restart(steps or MIN_STEPS)
    if _settles(runner, with_rates=steps is not None):
        return True
    while steps is None:
        next_steps, needs_no_change = _next_steps(runner), _needs_no_change(runner)
        if not next_steps:
            break
        runner.restart(next_steps)
        if needs_no_change and not _first_seed_is_healthy(runner):
            continue
        if _settles(runner, with_rates=True):
            return True
    return False


def _next_steps(runner: TrialRunner) -> int:
    """Return the steps of the next round, or 0 if there is none.

    A network that learns gets more steps while its loss is falling: then it may be healthy. On
    inputs that are not scaled it may learn slowly, and more steps show the difference.
    """
    scores = runner.scores()
    if runner.is_out_of_time or not runner.judged("deep"):
        return 0
    growth, num_variants = LONGER, 1 + 2 * len(runner.active)
    if _needs_no_change(runner):
        growth, num_variants = 2, 1
        half = statistics.fmean(scores.train_at_half["deep"])
        if scores.mean("deep") > _IMPROVEMENT * half:
            return 0
    elif runner.steps >= _MAX_STEPS:
        return 0
    num_trials = FEWEST_SEEDS * num_variants
    seconds = num_trials * runner.seconds_of("deep", growth * runner.steps)
    seconds /= speedup(num_trials, runner.jobs)
    is_affordable = seconds < _SHARE_OF_TIME * runner.deadline.remaining()
    return growth * runner.steps if is_affordable else 0


def _needs_no_change(runner: TrialRunner) -> bool:
    """Return whether the network learns, and its inputs are scaled."""
    return runner.scores().learns("deep") and "standardized" not in runner.variants.by_name


def _first_seed_is_healthy(runner: TrialRunner) -> bool:
    """Train one seed of a network that learns; while it fails, the other seeds change nothing."""
    runner.active = ["deep"]
    runner.rates["deep"] = RateChoice(runner.problem.lr, {})
    runner.train_seeds(1)
    scores = runner.scores().train.get("deep", ())
    return bool(scores) and max(scores) < MARGIN


def _settles(runner: TrialRunner, *, with_rates: bool) -> bool:
    """Run a round: the network, then changes at its own rate, then all of them at other rates.

    Args:
        with_rates: Try other rates. This is too early in the first of several rounds.
    """
    if judge_as_given(runner):
        return True
    by_name = runner.variants.by_name
    candidates = ("standardized",) if runner.scores().learns("deep") else BEFORE_DEPTH
    names = [name for name in candidates if name in by_name]
    if not names:
        return False
    for name in names:
        runner.rates[name] = RateChoice(runner.problem.lr, {})
    runner.active += names
    runner.train_seeds(FEWEST_SEEDS)
    if _is_plain(runner) or (
        runner.scores().gains_by_scaling and _is_plain_with_more_seeds(runner)
    ):
        return True
    if runner.scores().learns("deep") or runner.is_out_of_time or not with_rates:
        return False
    runner.choose_rates(["deep", *names])
    runner.train_seeds(FEWEST_SEEDS)
    cures = cures_at_given_rate(runner)
    if cures:
        runner.active += cures
        runner.train_seeds(FEWEST_SEEDS)
    return _is_plain(runner)


def _is_plain_with_more_seeds(runner: TrialRunner) -> bool:
    runner.train_seeds(runner.max_seeds)
    return _is_plain(runner)


def _is_plain(runner: TrialRunner) -> bool:
    scores = runner.scores()
    verdict = suspect(scores)
    say_verdict(runner, verdict)
    return is_plain(scores, verdict)


def judge_as_given(runner: TrialRunner) -> bool:
    """Train the network at the user's learning rate; return whether nothing could be better."""
    runner.active = ["deep"]
    runner.rates["deep"] = RateChoice(runner.problem.lr, {})
    runner.train_seeds(FEWEST_SEEDS)
    verdict = suspect(runner.scores())
    is_healthy = verdict.name in ("healthy", "overfitting") and nothing_is_better(runner)
    is_healthy = is_healthy and not _fails_before_decay(runner)
    if is_healthy:
        say_verdict(runner, verdict)
    return is_healthy


def _fails_before_decay(runner: TrialRunner) -> bool:
    """Return whether a seed learns nothing until the rate falls, as it usually does not."""
    return max(runner.scores().train_at_half["deep"]) > LEARNS


def nothing_is_better(runner: TrialRunner) -> bool:
    """Return whether the network surely ends below the margin."""
    return runner.scores().is_below_margin("deep")


def cures_at_given_rate(runner: TrialRunner) -> list[str]:
    """Return changes at the user's own rate, if this rate seems to be at fault."""
    scores, problem, by_name = runner.scores(), runner.problem, runner.variants.by_name
    if not scores.train.get("given") or not scores.learns("deep"):
        return []
    is_suspected = scores.mean("given") - scores.mean("deep") > MARGIN
    if not (is_suspected or is_rate_at_fault(scores)):
        return []
    candidates = [by_name[name] for name in ("standardized", "bare") if name in by_name]
    if runner.signal:
        candidates.append(by_name["initialized"])
    if problem.lr > runner.rates["deep"].lr:
        candidates += [warmed_up(problem), clipped(problem)]
    return [_at_given_rate(runner, variant) for variant in candidates]


def _at_given_rate(runner: TrialRunner, variant: Variant) -> str:
    name = f"{variant.name}{AT_GIVEN_RATE}"
    description = f"{variant.description}; the learning rate is the given one"
    runner.variants.by_name[name] = replace(variant, name=name, description=description)
    runner.rates[name] = RateChoice(runner.problem.lr, {})
    return name


def say_verdict(runner: TrialRunner, verdict: NetworkVerdict) -> None:
    """Say what the scores suggest so far, and what they rule out."""
    scores = runner.scores()
    line = f"After {len(scores.train['deep'])} seeds: {verdict.name}. {verdict.reason}"
    causes = ruled_out(scores)
    if causes:
        line += f" Ruled out: {', '.join(causes)}."
    runner.say(line)


def add_interventions(runner: TrialRunner) -> None:
    """Add the variants that are always tried, if the network allows them."""
    by_name = runner.variants.by_name
    by_name.setdefault("initialized", initialized(runner.problem))
    without_activation = bare(runner.problem)
    if without_activation is not None:
        by_name["bare"] = without_activation
    without_regularization = unregularized(runner.problem)
    if without_regularization is not None:
        by_name["unregularized"] = without_regularization
