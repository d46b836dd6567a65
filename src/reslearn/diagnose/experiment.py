"""The experiments in the order in which they are made, until the verdict is certain or the time is used up.

First what costs nothing (do inputs and targets vary, what do nearest neighbours reach), then learning rates, each condition at a few on a
seed of its own, further out where the best lies at an end, then seed after seed of every condition, paired, with a look at the rules
after the third and each further one. What depth or the rate seems to cost is tried once more with LONGER times the steps: a deeper network
may only be slower to begin.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import nn

from reslearn.diagnose.by_layer import LayerSignal, response_ratio, signals_by_layer
from reslearn.diagnose.conditions import Condition, Conditions, initialised, make_conditions, shallowest, standardised, wide
from reslearn.diagnose.problem import DiagnosisError, Problem
from reslearn.diagnose.proof import Proof, prove
from reslearn.diagnose.trial import WORST_SCORE, Signals, Trial, run_trial, signals
from reslearn.diagnose.verdict import DEAD_SHARE, FEWEST_SEEDS, GRADIENT_RATIO, MARGIN, NEED_LONGER, Evidence, Verdict, decide, suspect

LR_FACTORS = (1 / 16, 1 / 4, 1.0, 4.0)
LR_STEP, MAX_WIDENINGS = 4.0, 4
CHOICE_SEED = 1000
LONGER = 4
MAX_SEEDS = {1: 4, LONGER: 6}
"""By how many times the steps."""
FEWEST_STEPS, MIN_STEPS, MAX_STEPS = 4, 30, 2000
SCALE_LIMITS = (0.05, 20.0)
"""Inputs whose root mean square, or mean over deviation, lies outside are tried standardised too."""
_SHARE_OF_CHOICE = 0.5


@dataclass(frozen=True, kw_only=True, eq=False)
class Diagnosis:
    """The verdict and all it rests on. `rates`: the learning rate taken for each condition, and the scores it was chosen by. `layers`: of
    "deep" and "shortcuts" at the start. `proof`: where it was asked for, and shortcuts can be had. `interrupted`: by Ctrl-C; the verdict
    is that of the evidence until then."""

    problem: Problem
    verdict: Verdict
    evidence: Evidence
    conditions: Conditions
    trials: tuple[Trial, ...]
    rates: dict[str, tuple[float, dict[float, float]]]
    start: Signals
    layers: dict[str, tuple[LayerSignal, ...]]
    steps: int
    seconds: float
    proof: Proof | None = None
    interrupted: bool = False


@dataclass(kw_only=True)
class _Clock:
    """Time that may be spent."""

    seconds: float
    started: float = field(default_factory=time.monotonic)

    def used(self) -> float:
        return time.monotonic() - self.started

    def left(self) -> float:
        return self.seconds - self.used()


def diagnose(
    problem: Problem, *, minutes: float = 10.0, steps: int | None = None, with_proof: bool = False,
    say: Callable[[str], None] = lambda text: None,
) -> Diagnosis:  # fmt: skip
    """Tell by experiment whether depth hurts the network, or what else does. `say` is told what is being tried and what was ruled out.

    steps: of a trial, by default as many as let all fit into `minutes`; given, the outcome does not hang on the speed of the machine, as
    long as the time suffices. with_proof: train it before and after shortcuts too, on a seed by which nothing was judged; the minutes are
    shared out so that this fits in. Raises DiagnosisError where the time does not suffice for a single trial.
    """
    if not minutes > 0:
        raise DiagnosisError(f"minutes {minutes}: more than 0 is needed")
    if steps is not None and steps < FEWEST_STEPS:
        raise DiagnosisError(f"steps {steps}: {FEWEST_STEPS} or more are needed")
    clock = _Clock(seconds=60 * minutes)
    fault = _fault_of_data(problem)
    start = signals(problem.net(CHOICE_SEED), problem)
    conditions = _conditions(problem, start)
    trials: list[Trial] = []
    evidence = _evidence(trials, conditions, 1.0, fault)
    rates: dict[str, tuple[float, dict[float, float]]] = {}
    layers: dict[str, tuple[LayerSignal, ...]] = {}
    proof: Proof | None = None
    interrupted = False
    length = 0
    response: float | None = None
    if not fault:
        layers = signals_by_layer(problem, conditions.made, seed=CHOICE_SEED)
        response = response_ratio(layers.get("deep", ()))
        if response is not None and not 1 / GRADIENT_RATIO < response < GRADIENT_RATIO:
            conditions.made.setdefault("initialised", initialised(problem))
        with_proof = with_proof and "shortcuts" in conditions.made
        say("nearest neighbours, as a yardstick")
        neighbours = _neighbours(problem)
        try:
            steps = steps or _steps(problem, conditions, clock, num_more=2 if with_proof else 0)
            _rates(problem, conditions, steps, neighbours, trials, rates, say)
            length = steps
            for times in MAX_SEEDS:
                if times > 1 and not _lasts(trials, clock, times, reserves=with_proof):
                    say("no time is left for longer trials")
                    break
                length = times * steps
                evidence = _judge(problem, conditions, rates, steps, times, neighbours, trials, clock, say, reserves=with_proof)
                if suspect(evidence).name not in NEED_LONGER:
                    break
            if with_proof:
                say(f"before and after on a fresh seed: about {_pair_seconds(trials):.0f} s")
                proof = prove(conditions.made, {name: lr for name, (lr, _) in rates.items()}, steps=length)
        except KeyboardInterrupt:
            say("stopped: the verdict is that of the evidence until here")
            interrupted = True
            if sum(trial.condition == "deep" and trial.steps == length for trial in trials) < FEWEST_SEEDS:
                length = steps or 0  # the short trials tell more
            evidence = _evidence(trials, conditions, neighbours, "", length=length, is_short=length <= (steps or 0))
    evidence = replace(evidence, response_ratio=response)
    return Diagnosis(
        problem=problem, verdict=decide(evidence), evidence=evidence, conditions=conditions, trials=tuple(trials), rates=rates, start=start,
        layers=layers, steps=length, seconds=clock.used(), proof=proof, interrupted=interrupted,
    )  # fmt: skip


def _rates(
    problem: Problem, conditions: Conditions, steps: int, neighbours: float, trials: list[Trial],
    rates: dict[str, tuple[float, dict[float, float]]], say: Callable[[str], None],
) -> None:  # fmt: skip
    """Fill in `rates`, and add the conditions that what was seen on the way asks for."""
    _choose_rates(conditions.made, steps, trials, rates, say)
    learns = any(min(rates[name][1].values()) <= 1 - MARGIN for name in ("deep", "shallow") if name in rates)
    if not learns and (least := shallowest(problem)) is not None:
        conditions.made["shallowest"] = least
        _choose_rates({"shallowest": least}, steps, trials, rates, say)
    if min(rates["deep"][1].values()) - neighbours > MARGIN:  # it fits less than neighbours tell of what they never saw
        conditions.made["wide"] = wide(problem)
        _choose_rates({"wide": conditions.made["wide"]}, steps, trials, rates, say)


def _fault_of_data(problem: Problem) -> str:
    """What is plainly wrong with the data, without any training."""
    if not problem.inputs.is_floating_point():
        return ""
    if not (torch.isfinite(problem.inputs).all() and torch.isfinite(problem.held_inputs).all()):
        return "inputs are not finite: nan or infinity among them"
    return "inputs do not vary: every example is the same" if float(problem.inputs.std(0).max()) == 0 else ""


def _conditions(problem: Problem, start: Signals) -> Conditions:
    """Those that the network allows, and those that something about data or start suggests."""
    found = make_conditions(problem)
    made = dict(found.made)
    if problem.inputs.is_floating_point() and torch.isfinite(problem.inputs).all():
        strength = float(problem.inputs.square().mean().sqrt())
        shift = float(problem.inputs.mean().abs() / problem.inputs.std().clamp_min(1e-12))
        if not SCALE_LIMITS[0] < strength < SCALE_LIMITS[1] or shift > SCALE_LIMITS[1]:
            made["standardised"] = standardised(problem)
    ratio, dead = start.gradient_ratio, start.dead_share
    if (dead is not None and dead >= DEAD_SHARE) or (ratio is not None and not 1 / GRADIENT_RATIO < ratio < GRADIENT_RATIO):
        made["initialised"] = initialised(problem)
    return Conditions(**{**vars(found), "made": made})


def _neighbours(problem: Problem) -> float:
    """Held-out score of ten nearest neighbours on standardised inputs: says that there is something to learn, whoever learns it."""
    from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor
    from sklearn.preprocessing import StandardScaler

    x, y = problem.inputs[:4000].flatten(1).numpy(), problem.targets[:4000]
    held, answers = problem.held_inputs[:1000].flatten(1).numpy(), problem.held_targets[:1000]
    scaler = StandardScaler().fit(x)
    number = min(10, len(x))
    if problem.task == "regression":
        model: Any = KNeighborsRegressor(number).fit(scaler.transform(x), y.flatten(1) if y.ndim > 1 else y)
        outputs = torch.as_tensor(model.predict(scaler.transform(held)), dtype=torch.float32).view_as(answers)
    else:
        model = KNeighborsClassifier(number).fit(scaler.transform(x), y)
        width = int(max(problem.targets.max(), problem.held_targets.max())) + 1
        shares = torch.full((len(answers), width), 0.5 / number)  # a class that no neighbour has is unlikely, not impossible
        shares[:, torch.as_tensor(model.classes_)] += torch.as_tensor(model.predict_proba(scaler.transform(held)), dtype=torch.float32)
        outputs = (shares / shares.sum(1, keepdim=True)).log()
    return min(WORST_SCORE, float(problem.loss(outputs, answers)) / problem.guess_loss)


def _steps(problem: Problem, conditions: Conditions, clock: _Clock, *, num_more: int = 0) -> int:
    """Steps a trial: learning rates, all seeds and `num_more` trials fit into the time. DiagnosisError where not even the fewest do."""
    number = len(conditions.made) + 2  # and the network at the rate given, and one that comes on the way
    num_trials = number * (len(LR_FACTORS) + MAX_SEEDS[1] + FEWEST_SEEDS) + num_more
    full_length = number * (len(LR_FACTORS) * _SHARE_OF_CHOICE + MAX_SEEDS[1] + LONGER * FEWEST_SEEDS) + LONGER * num_more

    def fitting(a_trial: float, a_step: float) -> int:
        """Raises DiagnosisError where the time is too short for the fewest steps."""
        fit = int((0.9 * clock.left() - num_trials * a_trial) / (full_length * a_step))
        if fit < MIN_STEPS:
            needed = math.ceil((num_trials * a_trial + full_length * a_step * 2 * MIN_STEPS + clock.used()) / 0.9 / 60)
            raise DiagnosisError(f"{clock.seconds / 60:g} minutes are too few for this network on this machine: give {needed} or more")
        return min(MAX_STEPS, fit)

    seconds = []
    for probe in (1, 2, 22):  # the first is not counted: it waits for what torch imports at its first step, seconds of it
        began = time.monotonic()
        lowest = problem.lr * LR_FACTORS[0]
        run_trial(problem, problem.net(CHOICE_SEED), condition="probe", lr=lowest, seed=CHOICE_SEED, steps=probe)
        seconds.append(time.monotonic() - began)
        if probe == 2:
            fitting(seconds[1], seconds[1] / 100)  # too long already, whatever a step takes
    return fitting(seconds[1], max(1e-5, (seconds[2] - seconds[1]) / 20))


def _choose_rates(
    conditions: dict[str, Condition], steps: int, trials: list[Trial], rates: dict[str, tuple[float, dict[float, float]]],
    say: Callable[[str], None],
) -> None:  # fmt: skip
    """For each condition a rate by the training score, on a seed that nothing is judged by."""
    short = max(MIN_STEPS, int(_SHARE_OF_CHOICE * steps)) if steps > MIN_STEPS else steps
    for condition in conditions.values():
        scores: dict[float, float] = {}
        wanted = [condition.problem.lr * part for part in LR_FACTORS]
        while wanted:
            lr = wanted.pop(0)
            say(f"learning rates: {condition.name} at {lr:.3g}")
            trial = _trial(condition, lr, CHOICE_SEED, short, name=f"{condition.name}, to choose its rate")
            trials.append(trial)
            scores[lr] = trial.train_score
            if not wanted and len(scores) < len(LR_FACTORS) + MAX_WIDENINGS:
                wanted = further_rates(scores)
        rates[condition.name] = (chosen_rate(scores), scores)


def chosen_rate(scores: dict[float, float]) -> float:
    """The smallest whose score by rate is within half the MARGIN of the best: the largest that trains one seed fails on another."""
    return min(lr for lr, score in scores.items() if score <= min(scores.values()) + MARGIN / 2)


def further_rates(scores: dict[float, float]) -> list[float]:
    """One more, beyond the end at which the best of `scores` by rate lies, if it gained by more than MARGIN there or nothing learns yet."""
    ordered, best = sorted(scores), _best(scores)
    if len(ordered) < 2 or best not in (ordered[0], ordered[-1]):
        return []
    beside = ordered[1] if best == ordered[0] else ordered[-2]
    if scores[beside] - scores[best] <= MARGIN and scores[best] <= 1 - MARGIN:
        return []
    return [best / LR_STEP if best == ordered[0] else best * LR_STEP]


def _best(scores: dict[float, float]) -> float:
    return min(scores, key=lambda lr: (scores[lr], lr))


def _judge(
    problem: Problem, conditions: Conditions, rates: dict[str, tuple[float, dict[float, float]]], steps: int, times: int, neighbours: float,
    trials: list[Trial], clock: _Clock, say: Callable[[str], None], *, reserves: bool,
) -> Evidence:  # fmt: skip
    """Seed after seed of `times` the steps until a verdict is certain, or no time is left for another (nor, where it `reserves` that, for
    a proof)."""
    length = times * steps
    looks = MAX_SEEDS[times] - FEWEST_SEEDS + 1
    evidence = _evidence(trials, conditions, neighbours, "", length=length, looks=looks, is_short=times == 1)
    longest = 0.0
    for seed in range(MAX_SEEDS[times]):
        if seed and clock.left() < longest + (_pair_seconds(trials) if reserves else 0):
            say(f"no time is left for another seed: {seed} were judged")
            break
        began = time.monotonic()
        for condition in conditions.made.values():
            say(f"seed {seed}, {length} steps: {condition.name} ({condition.what})")
            trials.append(_trial(condition, rates[condition.name][0], seed, length))
        if problem.lr_is_given and rates["deep"][0] != problem.lr:
            say(f"seed {seed}, {length} steps: the network at the learning rate given, {problem.lr:.3g}")
            trials.append(_trial(conditions.made["deep"], problem.lr, seed, length, name="given"))
        longest = max(longest, time.monotonic() - began)
        evidence = _evidence(trials, conditions, neighbours, "", length=length, looks=looks, is_short=times == 1)
        if seed + 1 >= FEWEST_SEEDS:
            found = suspect(evidence)
            say(f"after {seed + 1} seeds: {found.name}; {found.because}")
            if found.certain:
                break
    return evidence


def _lasts(trials: list[Trial], clock: _Clock, times: int, *, reserves: bool) -> bool:
    """Whether there is time for the fewest seeds of `times` the steps, and for a proof of as many where it `reserves` that."""
    a_seed = max(sum(trial.seconds for trial in trials if trial.seed == seed) for seed in range(FEWEST_SEEDS))
    return clock.left() >= times * (FEWEST_SEEDS * a_seed + (_pair_seconds(trials) if reserves else 0))


def _pair_seconds(trials: list[Trial]) -> float:
    """Of one seed of the network and its form with shortcuts."""
    return sum(next(trial.seconds for trial in reversed(trials) if trial.condition == name) for name in ("deep", "shortcuts"))


def _trial(condition: Condition, lr: float, seed: int, steps: int, *, name: str | None = None) -> Trial:
    """A condition at a rate; looked into where it goes by its own name and is the network itself."""
    net: nn.Module = condition.make(seed)
    look = name is None and condition.name == "deep"
    return run_trial(condition.problem, net, condition=name or condition.name, lr=lr, seed=seed, steps=steps, look=look)


def _evidence(
    trials: list[Trial], conditions: Conditions, neighbours: float, fault: str, *, length: int = 0, looks: int = 1, is_short: bool = False
) -> Evidence:  # fmt: skip
    """From the trials of `length` steps by which is judged."""
    judged = [trial for trial in trials if trial.seed != CHOICE_SEED and trial.steps == length]
    names = list(dict.fromkeys(trial.condition for trial in judged))
    by_name = {name: [trial for trial in judged if trial.condition == name] for name in names}
    deep = by_name.get("deep", [])
    return Evidence(
        train={name: [trial.train_score for trial in own] for name, own in by_name.items()},
        held={name: [trial.held_score for trial in own] for name, own in by_name.items()},
        held_at_half={name: [trial.held_at_half for trial in own] for name, own in by_name.items()},
        neighbours=neighbours,
        looks=looks,
        is_short=is_short,
        fault=fault,
        num_layers=conditions.num_layers,
        gradient_ratios=[(trial.start.gradient_ratio, trial.end.gradient_ratio) for trial in deep],
        dead_shares=[_larger(trial.start.dead_share, trial.end.dead_share) for trial in deep],
    )


def _larger(a: float | None, b: float | None) -> float | None:
    known = [value for value in (a, b) if value is not None]
    return max(known) if known else None
