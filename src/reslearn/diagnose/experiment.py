"""The experiments in the order in which they are made, until the verdict is certain or the time is used up.

First what costs nothing (do inputs and targets vary, what do nearest neighbours reach), then learning rates, each condition at a few on a
seed of its own, further out where the best lies at an end, then seed after seed of every condition, paired, with a look at the rules
after the third and each further one. What depth or the rate seems to cost is tried once more with LONGER times the steps: a deeper network
may only be slower to begin, and get along with a lower rate in the long run.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from torch import nn

from reslearn.diagnose.before import fault_of_data, neighbours, suggested
from reslearn.diagnose.by_layer import LayerSignal, response_ratio, signals_by_layer
from reslearn.diagnose.conditions import Condition, Conditions, constructed, make_conditions, shallowest, wide
from reslearn.diagnose.problem import DiagnosisError, Problem
from reslearn.diagnose.proof import Proof, prove
from reslearn.diagnose.trial import Signals, Trial, as_it_is, run_trial, signals
from reslearn.diagnose.verdict import FEWEST_SEEDS, MARGIN, NEED_LONGER, Evidence, Verdict, decide, ruled_out, suspect

LR_FACTORS = (1 / 16, 1 / 4, 1.0, 4.0)
LR_STEP, MAX_WIDENINGS = 4.0, 4
CHOICE_SEED = 1000
LONGER = 4
MAX_SEEDS = {1: 4, LONGER: 6}
"""By how many times the steps."""
NUM_AGAIN = 3
"""Rates that a network and its shallower one are tried at in longer trials, mostly."""
FEWEST_STEPS, MIN_STEPS, MAX_STEPS = 4, 30, 2000
_SHARE_OF_CHOICE = 0.5


@dataclass(frozen=True, kw_only=True, eq=False)
class Diagnosis:
    """The verdict and all it rests on. `steps`: of the trials judged; `short_steps`: of those made first, which `steps` of `diagnose` sets
    and which repeat it on any machine. `rates`: the learning rate taken for each condition, and the scores it was chosen by. `layers`: of
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
    short_steps: int
    seconds: float
    proof: Proof | None = None
    interrupted: bool = False


@dataclass(kw_only=True)
class Clock:
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

    steps: of a short trial, by default as many as let all fit into `minutes`; given, the outcome does not hang on the speed of the machine,
    as long as the time suffices. with_proof: train it before and after shortcuts too, on a seed by which nothing was judged; the minutes
    are shared out so that this fits in. Raises DiagnosisError where the time does not suffice for a single trial.
    """
    if not minutes > 0:
        raise DiagnosisError(f"minutes {minutes}: more than 0 is needed")
    if steps is not None and steps < FEWEST_STEPS:
        raise DiagnosisError(f"steps {steps}: {FEWEST_STEPS} or more are needed")
    clock = Clock(seconds=60 * minutes)
    fault = fault_of_data(problem)
    start = signals(problem.net(CHOICE_SEED), problem)
    conditions = make_conditions(problem)
    layers = {} if fault else signals_by_layer(problem, conditions.made, seed=CHOICE_SEED)
    ratio = response_ratio(layers.get("deep", ()))
    if not fault:
        conditions.made.update(suggested(problem, start, ratio))
    made = _Experiment(
        problem=problem, conditions=conditions, response_ratio=ratio, clock=clock, say=say,
        with_proof=with_proof and "shortcuts" in conditions.made,
    )  # fmt: skip
    interrupted = False
    if fault:
        evidence = replace(made.evidence(), fault=fault)
    else:
        try:
            made.run(steps)
        except KeyboardInterrupt:
            say("stopped: the verdict is that of the evidence until here")
            interrupted = True
            made.back_to_what_is_whole()
        evidence = made.evidence()
    return Diagnosis(
        problem=problem, verdict=decide(evidence), evidence=evidence, conditions=conditions, trials=tuple(made.trials), rates=made.rates,
        start=start, layers=layers, steps=made.times * made.steps, short_steps=made.steps, seconds=clock.used(), proof=made.proof,
        interrupted=interrupted,
    )  # fmt: skip


@dataclass(kw_only=True, eq=False)
class _Experiment:
    """What was trained until now. Trials of `times` the `steps` are those that are judged."""

    problem: Problem
    conditions: Conditions
    response_ratio: float | None
    clock: Clock
    say: Callable[[str], None]
    with_proof: bool
    neighbours: float = 1.0
    steps: int = 0
    times: int = 1
    trials: list[Trial] = field(default_factory=list)
    rates: dict[str, tuple[float, dict[float, float]]] = field(default_factory=dict)
    shallow: dict[int, nn.Module] = field(default_factory=dict)  # trained, by seed
    proof: Proof | None = None

    def run(self, steps: int | None) -> None:
        """All of it, in order."""
        self.say("nearest neighbours, as a yardstick")
        self.neighbours = neighbours(self.problem)
        self.steps = steps or fitting_steps(self.problem, self.conditions, self.clock, num_more=2 if self.with_proof else 0)
        self.choose_rates()
        for times in MAX_SEEDS:
            if times > 1 and not self.lasts(times):
                break
            self.times = times
            if times > 1:
                self.choose_rates_again()
            self.judge()
            if suspect(self.evidence()).name not in NEED_LONGER:
                break
        if suspect(self.evidence()).name == "degradation":
            self.construct()
        if self.with_proof:
            self.say(f"before and after on a fresh seed: about {self.pair_seconds():.0f} s")
            self.proof = prove(self.conditions.made, {name: lr for name, (lr, _) in self.rates.items()}, steps=self.times * self.steps)

    def choose_rates(self) -> None:
        """For all conditions, and for those that what is seen on the way asks for."""
        made, rates = self.conditions.made, self.rates
        for condition in list(made.values()):
            self.choose_rate(condition)
        something = any(learns(rates[name][1]) for name in ("deep", "shallow") if name in rates)
        if not something and (least := shallowest(self.problem)) is not None:
            made["shallowest"] = least
            self.choose_rate(least)
        fits_less = min(rates["deep"][1].values()) - self.neighbours > MARGIN  # than neighbours tell of what they never saw
        if fits_less and self.problem.inputs.is_floating_point():
            made["wide"] = wide(self.problem)
            self.choose_rate(made["wide"])

    def choose_rate(self, condition: Condition) -> None:
        """By the training score, on a seed that nothing is judged by."""
        short = max(MIN_STEPS, int(_SHARE_OF_CHOICE * self.steps)) if self.steps > MIN_STEPS else self.steps
        scores: dict[float, float] = {}
        wanted = [condition.problem.lr * part for part in LR_FACTORS]
        while wanted:
            lr = wanted.pop(0)
            self.say(f"learning rates: {condition.name} at {lr:.3g}")
            trial = _trial(condition, lr, CHOICE_SEED, short, name=f"{condition.name}, to choose its rate")
            self.trials.append(trial)
            scores[lr] = trial.train_score
            if not wanted and len(scores) < len(LR_FACTORS) + MAX_WIDENINGS:
                wanted = further_rates(scores)
        self.rates[condition.name] = (chosen_rate(scores, usual=condition.problem.lr), scores)

    def choose_rates_again(self) -> None:
        """Before depth is accused: a rate that a short trial bears may be too high for a long one, and where nothing was learnt in short
        trials they said nothing of rates."""
        length = self.times * self.steps
        for condition in [one for name, one in self.conditions.made.items() if name in ("deep", "shallow", "shallowest")]:
            (rate, scores), usual = self.rates[condition.name], condition.problem.lr
            blind = [] if learns(scores) else [usual * part for part in LR_FACTORS]
            longer: dict[float, float] = {}
            for lr in sorted({rate, rate / LR_STEP, usual, *blind}):
                self.say(f"learning rates: {condition.name} at {lr:.3g}, {length} steps")
                trial = _trial(condition, lr, CHOICE_SEED, length, name=f"{condition.name}, to choose its rate")
                self.trials.append(trial)
                longer[lr] = trial.train_score
            self.rates[condition.name] = (chosen_rate(longer, usual=usual), scores)

    def judge(self) -> None:
        """Seed after seed until a verdict is certain, or no time is left for another and the proof."""
        length = self.times * self.steps
        longest = 0.0
        self.shallow.clear()
        for seed in range(MAX_SEEDS[self.times]):
            if seed and self.clock.left() < longest + (self.pair_seconds() if self.with_proof else 0):
                self.say(f"no time is left for another seed: {seed} were judged")
                break
            began = time.monotonic()
            for condition in self.conditions.made.values():
                self.say(f"seed {seed}, {length} steps: {condition.name} ({condition.what})")
                net = condition.make(seed)
                self.trials.append(_trial(condition, self.rates[condition.name][0], seed, length, net=net))
                if condition.name == "shallow":
                    self.shallow[seed] = net
            if self.problem.lr_is_given and self.rates["deep"][0] != self.problem.lr:
                self.say(f"seed {seed}, {length} steps: the network at the learning rate given, {self.problem.lr:.3g}")
                self.trials.append(_trial(self.conditions.made["deep"], self.problem.lr, seed, length, name="given"))
            longest = max(longest, time.monotonic() - began)
            if seed + 1 >= FEWEST_SEEDS:
                found = suspect(self.evidence())
                out = ", ".join(ruled_out(self.evidence()))
                self.say(f"after {seed + 1} seeds: {found.name}; {found.because}" + (f"; ruled out: {out}" if out else ""))
                if found.certain:
                    break

    def construct(self) -> None:
        """The deep network with the trained shallow one inside it, as it is and trained on from there, as far as the time suffices."""
        length, rate, what = self.times * self.steps, self.rates["deep"][0], "the trained shallow network, and identities for the rest"
        for seed, shallow in self.shallow.items():
            net = constructed(self.problem, seed, shallow, self.conditions.left_out)
            if isinstance(net, str):
                self.say(f"no solution by construction: {net}")
                return
            self.say(f"seed {seed}: constructed ({what})")
            self.trials.append(as_it_is(self.problem, net, condition="constructed", seed=seed, steps=length))
            deep = next(trial.seconds for trial in reversed(self.trials) if trial.condition == "deep")
            if self.clock.left() > deep * (len(self.shallow) - seed) + (self.pair_seconds() if self.with_proof else 0):
                self.say(f"seed {seed}, {length} steps: trained on from there")
                self.trials.append(run_trial(self.problem, net, condition="continued", lr=rate, seed=seed, steps=length))

    def lasts(self, times: int) -> bool:
        """Whether there is time for the fewest seeds of `times` the steps, and a proof of as many."""
        a_seed = max(sum(trial.seconds for trial in self.trials if trial.seed == seed) for seed in range(FEWEST_SEEDS))
        deep = next(trial.seconds for trial in self.trials if trial.condition == "deep")
        needed = times * (FEWEST_SEEDS * a_seed + 2 * NUM_AGAIN * deep + (self.pair_seconds() if self.with_proof else 0))
        if self.clock.left() < needed:
            self.say(f"no time is left for trials of {times} times the steps, which would take {needed:.0f} s")
        return self.clock.left() >= needed

    def pair_seconds(self) -> float:
        """Of one seed of the network and its form with shortcuts."""
        return sum(next(trial.seconds for trial in reversed(self.trials) if trial.condition == name) for name in ("deep", "shortcuts"))

    def back_to_what_is_whole(self) -> None:
        """To the short trials, where too few of the longer ones were made."""
        if len(self.judged("deep")) < FEWEST_SEEDS:
            self.times = 1

    def judged(self, condition: str) -> list[Trial]:
        """One a seed."""
        length = self.times * self.steps
        return [one for one in self.trials if one.condition == condition and one.seed != CHOICE_SEED and one.steps == length]

    def evidence(self) -> Evidence:
        """For the rules."""
        names = (*self.conditions.made, "given", "constructed", "continued")
        by_name = {name: own for name in names if (own := self.judged(name))}
        deep = by_name.get("deep", [])
        return Evidence(
            train={name: [trial.train_score for trial in own] for name, own in by_name.items()},
            held={name: [trial.held_score for trial in own] for name, own in by_name.items()},
            held_at_half={name: [trial.held_at_half for trial in own] for name, own in by_name.items()},
            neighbours=self.neighbours,
            looks=MAX_SEEDS[self.times] - FEWEST_SEEDS + 1,
            is_short=self.times == 1,
            num_layers=self.conditions.num_layers,
            response_ratio=self.response_ratio,
            narrows=self.conditions.narrows,
            gradient_ratios=[(trial.start.gradient_ratio, trial.end.gradient_ratio) for trial in deep],
            dead_shares=[_larger(trial.start.dead_share, trial.end.dead_share) for trial in deep],
        )


def fitting_steps(problem: Problem, conditions: Conditions, clock: Clock, *, num_more: int = 0) -> int:
    """Steps a trial: learning rates, all seeds and `num_more` trials fit into the time. DiagnosisError where not even the fewest do."""
    number = len(conditions.made) + 2  # and the network at the rate given, and one that comes on the way
    num_trials = number * (len(LR_FACTORS) + MAX_SEEDS[1] + FEWEST_SEEDS) + num_more + 2 * NUM_AGAIN
    full_length = number * (len(LR_FACTORS) * _SHARE_OF_CHOICE + MAX_SEEDS[1] + LONGER * FEWEST_SEEDS) + LONGER * (num_more + 2 * NUM_AGAIN)

    def fitting(a_trial: float, a_step: float) -> int:
        """Raises DiagnosisError where the time is too short for the fewest steps."""
        fit = int((0.9 * clock.left() - num_trials * a_trial) / (full_length * a_step))
        if fit < MIN_STEPS:
            needed = math.ceil((num_trials * a_trial + full_length * a_step * 2 * MIN_STEPS + clock.used()) / 0.9 / 60)
            raise DiagnosisError(f"minutes {clock.seconds / 60:g}: too few for this network on this machine; give {needed} or more")
        return min(MAX_STEPS, fit)

    seconds = []
    for probe in (1, 2, 22):  # the first is not counted: it waits for what torch imports at its first step, seconds of it
        began = time.monotonic()
        lowest = problem.lr * LR_FACTORS[0]
        run_trial(problem, problem.net(CHOICE_SEED), condition="probe", lr=lowest, seed=CHOICE_SEED, steps=probe)
        seconds.append(time.monotonic() - began)
        if probe == 2 and 12 * seconds[1] > clock.left():
            fitting(seconds[1], seconds[1] / 4)  # no time even for the next probe
    return fitting(seconds[1], max(1e-5, (seconds[2] - seconds[1]) / 20))


def learns(scores: dict[float, float]) -> bool:
    """At one of the rates at least, better than guessing by more than MARGIN."""
    return min(scores.values()) <= 1 - MARGIN


def chosen_rate(scores: dict[float, float], *, usual: float) -> float:
    """The smallest whose score by rate is within half the MARGIN of the best: the largest that trains one seed fails on another.

    Where nothing is learnt at any, and `usual` does no harm, that: scores of guessing say nothing of rates.
    """
    as_good = min(scores.values()) + MARGIN / 2
    if not learns(scores) and scores.get(usual, math.inf) <= min(as_good, 1 + MARGIN):
        return usual
    return min(lr for lr, score in scores.items() if score <= as_good)


def further_rates(scores: dict[float, float]) -> list[float]:
    """One more, beyond the end at which the best of `scores` by rate lies, if it gained by more than MARGIN there or nothing learns yet."""
    ordered, best = sorted(scores), _best(scores)
    if len(ordered) < 2 or best not in (ordered[0], ordered[-1]):
        return []
    beside = ordered[1] if best == ordered[0] else ordered[-2]
    if scores[beside] - scores[best] <= MARGIN and learns(scores):
        return []
    return [best / LR_STEP if best == ordered[0] else best * LR_STEP]


def _best(scores: dict[float, float]) -> float:
    return min(scores, key=lambda lr: (scores[lr], lr))


def _trial(condition: Condition, lr: float, seed: int, steps: int, *, name: str | None = None, net: nn.Module | None = None) -> Trial:
    """A condition at a rate, of `net` if it was made before; looked into where it goes by its own name and is the network itself."""
    look = name is None and condition.name == "deep"
    net = net or condition.make(seed)
    return run_trial(condition.problem, net, condition=name or condition.name, lr=lr, seed=seed, steps=steps, look=look)


def _larger(a: float | None, b: float | None) -> float | None:
    known = [value for value in (a, b) if value is not None]
    return max(known) if known else None
