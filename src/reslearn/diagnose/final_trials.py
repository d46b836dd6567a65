"""Trials after the verdict: the solution by construction, and the proof of a repair."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from dataclasses import replace

import torch
from torch import nn

from reslearn.diagnose.experiment import TrialRunner
from reslearn.diagnose.interventions import bare
from reslearn.diagnose.parallel import run_parallel
from reslearn.diagnose.plan import RateChoice, TrialGroup, fitting_steps
from reslearn.diagnose.proof import PROOF_SEED, Proof
from reslearn.diagnose.registration import registered
from reslearn.diagnose.scores import AT_GIVEN_RATE
from reslearn.diagnose.trial import PlannedTrial, evaluate_untrained
from reslearn.diagnose.user_code import DiagnosisError
from reslearn.diagnose.variant import constructed
from reslearn.diagnose.verdict_rules import VerdictName

_SCREENED_STEPS = 300


def construct(runner: TrialRunner) -> None:
    """Evaluate the paper's solution by construction, and train it further while time is left.

    It is the deep network with the trained shallow one inside it and identities elsewhere.
    """
    runner.train(_planned_constructions(runner))


def _planned_constructions(runner: TrialRunner) -> Iterator[PlannedTrial]:
    """Construct a network per seed and evaluate it; yield its further training."""
    problem, by_name = runner.problem, runner.variants.by_name
    steps = runner.judged_steps
    for seed, weights in sorted(runner.shallow_weights.items()):
        shallow = by_name["shallow"].make(seed)
        shallow.load_state_dict(torch.load(io.BytesIO(weights), weights_only=True))
        net = constructed(problem, seed, shallow, runner.variants.removed_blocks)
        if isinstance(net, str):
            runner.say(f"There is no solution by construction: {net}.")
            return
        runner.say(f"Seed {seed}: constructed (the trained shallow network and identities).")
        runner.trials.append(
            evaluate_untrained(problem, net, variant="constructed", seed=seed, steps=steps)
        )
        runner.say(f"Seed {seed}, {steps} steps: further training of the constructed network.")
        variant = replace(by_name["deep"], make=_constant(net))
        yield PlannedTrial(variant, runner.rates["deep"].lr, seed, steps, name="continued")


def prove(runner: TrialRunner, repair: str) -> None:
    """Train the network before and after a repair on PROOF_SEED (see `Proof`)."""
    seconds = runner.pair_seconds()
    runner.say("Before and after on a fresh seed" + f": about {seconds:.0f} s." * (seconds > 0))
    deep, lr, best = runner.variants.by_name["deep"], runner.problem.lr, runner.rates["deep"].lr
    if repair == "given":
        pairs = [("before", deep, lr), ("after", deep, best)]
    else:
        repaired = runner.variants.by_name[repair]
        if f"{repair}{AT_GIVEN_RATE}" in runner.rates:  # the user's own rate works after the repair
            pairs = [("before", deep, lr), ("after", repaired, lr)]
        else:
            if repair not in runner.rates:
                runner.choose_rates([repair])
            pairs = [("before", deep, best), ("after", repaired, runner.rates[repair].lr)]
    tasks = [
        PlannedTrial(variant, rate, PROOF_SEED, runner.judged_steps, name=name).run
        for name, variant, rate in pairs
    ]
    (before, _), (after, _) = run_parallel(tasks, runner.jobs)
    runner.proof = Proof(before=before, after=after, repair=repair)


def prove_screened(runner: TrialRunner, cause: VerdictName, steps: int | None) -> None:
    """Train before and after the repair of a cause that screening proved, at the user's own rate.

    Nothing is trained if the cause has no repair, or if no time is left.

    Args:
        steps: Steps of both trials; by default, at most _SCREENED_STEPS.
    """
    variant = None
    if cause == "output layer":
        variant = bare(runner.problem)
    elif cause == "untrained parameters":
        variant = registered(runner.problem)
    if variant is None:
        return
    groups = [TrialGroup(2, 1, required=True)]
    try:
        runner.steps = steps or min(
            _SCREENED_STEPS,
            fitting_steps(groups, runner.deadline, runner.measure_seconds, jobs=runner.jobs),
        )
    except DiagnosisError:
        return
    runner.judged_steps = runner.steps
    runner.variants.by_name[variant.name] = variant
    for name in ("deep", variant.name):
        runner.rates[name] = RateChoice(runner.problem.lr, {})
    prove(runner, variant.name)


def _constant(net: nn.Module) -> Callable[[int], nn.Module]:
    return lambda seed: net
