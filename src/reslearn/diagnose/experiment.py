"""The experiments in the order in which they are made, until the verdict is certain or the time is used up.

First what costs nothing (do inputs and targets vary, what do nearest neighbors reach), then learning rates, each condition at a few on a
seed of its own, further out where the best lies at an end, then seed after seed of every condition, paired, with a look at the rules
after the third and each further one. What depth or the rate seems to cost is tried once more with LONGER times the steps: a deeper network
may only be slower to begin, and get along with a lower rate in the long run.
"""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import torch
from torch import nn

from reslearn.diagnose.budget import MIN_STEPS, Clock, fitting_steps, speedup
from reslearn.diagnose.conditions import (
    Conditions,
    Variant,
    constructed,
    make_conditions,
    shallowest,
    wide,
)
from reslearn.diagnose.parallel import jobs_here, side_by_side
from reslearn.diagnose.problem import DiagnosisError, Problem
from reslearn.diagnose.proof import Proof, prove
from reslearn.diagnose.rates import LR_STEP, chosen_rate, further_rates, learns
from reslearn.diagnose.screening import fault_of_data, neighbors, suggested
from reslearn.diagnose.signals import LayerSignal, response_ratio, signals_by_layer
from reslearn.diagnose.trial import Signals, Trial, as_it_is, run_trial, signals
from reslearn.diagnose.verdict import (
    FEWEST_SEEDS,
    MARGIN,
    NEED_LONGER,
    Scores,
    Verdict,
    decide,
    ruled_out,
    suspect,
)

LR_FACTORS = (1 / 16, 1 / 4, 1.0, 4.0)
MAX_WIDENINGS = 4
CHOICE_SEED = 1000
LONGER = 4
MAX_SEEDS = {1: 4, LONGER: 6}
"""By how many times the steps."""
NUM_AGAIN = 3
"""Rates that a network and its shallower one are tried at in longer trials, mostly."""
FEWEST_STEPS = 4
_SHARE_OF_CHOICE = 0.5


@dataclass(frozen=True, kw_only=True, eq=False)
class Diagnosis:
    """The verdict and all it rests on. `steps`: of the trials judged; `short_steps`: of those made first, which `steps` of `diagnose` sets
    and which repeat it on any machine. `rates`: the learning rate taken for each condition, and the scores it was chosen by. `layers`: of
    "deep" and "shortcuts" at the start. `proof`: where it was asked for, and shortcuts can be had. `interrupted`: by Ctrl-C; the verdict
    is that of the evidence until then."""

    problem: Problem
    verdict: Verdict
    evidence: Scores
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


def diagnose(
    problem: Problem,
    *,
    minutes: float = 10.0,
    steps: int | None = None,
    with_proof: bool = False,
    jobs: int | None = 1,
    say: Callable[[str], None] = lambda text: None,
) -> Diagnosis:
    """Tell by experiment whether depth hurts the network, or what else does. `say` is told what is being tried and what was ruled out.

    steps: of a short trial, by default as many as let all fit into `minutes`; given, the outcome does not hang on the speed of the machine,
    as long as the time suffices. with_proof: train it before and after shortcuts too, on a seed by which nothing was judged; the minutes
    are shared out so that this fits in. jobs: trials at once; 1 trains here, with all threads; more, forks of this process with a thread
    each; None, one a core. Raises DiagnosisError where the time does not suffice for a single trial.
    """
    if not minutes > 0:
        raise DiagnosisError(f"minutes {minutes}: more than 0 is needed")
    if steps is not None and steps < FEWEST_STEPS:
        raise DiagnosisError(f"steps {steps}: {FEWEST_STEPS} or more are needed")
    jobs = jobs_here(jobs)
    clock = Clock(seconds=60 * minutes)
    fault = fault_of_data(problem)
    start = signals(problem.net(CHOICE_SEED), problem)
    conditions = make_conditions(problem)
    layers = {} if fault else signals_by_layer(problem, conditions.made, seed=CHOICE_SEED)
    ratio = response_ratio(layers.get("deep", ()))
    if not fault:
        conditions.made.update(suggested(problem, start, ratio))
    made = _Experiment(
        problem=problem,
        conditions=conditions,
        response_ratio=ratio,
        clock=clock,
        say=say,
        jobs=jobs,
        with_proof=with_proof and "shortcuts" in conditions.made,
    )
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
        problem=problem,
        verdict=decide(evidence),
        evidence=evidence,
        conditions=conditions,
        trials=tuple(made.trials),
        rates=made.rates,
        start=start,
        layers=layers,
        steps=made.times * made.steps,
        short_steps=made.steps,
        seconds=clock.used(),
        proof=made.proof,
        interrupted=interrupted,
    )


@dataclass(kw_only=True, eq=False)
class _Experiment:
    """What was trained until now. Trials of `times` the `steps` are those that are judged."""

    problem: Problem
    conditions: Conditions
    response_ratio: float | None
    clock: Clock
    say: Callable[[str], None]
    with_proof: bool
    jobs: int = 1
    neighbors: float = 1.0
    steps: int = 0
    times: int = 1
    trials: list[Trial] = field(default_factory=list)
    rates: dict[str, tuple[float, dict[float, float]]] = field(default_factory=dict)
    shallow: dict[int, bytes] = field(default_factory=dict)  # weights as trained, by seed
    proof: Proof | None = None

    def run(self, steps: int | None) -> None:
        """All of it, in order."""
        self.say("nearest neighbors, as a yardstick")
        self.neighbors = neighbors(self.problem)
        self.steps = steps or fitting_steps(
            self.parts(), self.clock, self.seconds_of, jobs=self.jobs
        )
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
            rates = {name: lr for name, (lr, _) in self.rates.items()}
            self.proof = prove(
                self.conditions.made, rates, steps=self.times * self.steps, jobs=self.jobs
            )

    def parts(self) -> list[tuple[int, float]]:
        """Trials that there will be at most, those that can be side by side together, and their length in short ones."""
        num = (
            len(self.conditions.made) + 2
        )  # and the network at the rate given, and one that comes on the way
        more_seeds = MAX_SEEDS[1] - FEWEST_SEEDS
        return [
            (num * len(LR_FACTORS), _SHARE_OF_CHOICE),
            (num * FEWEST_SEEDS, 1),
            *[(num, 1)] * more_seeds,
            (2 * NUM_AGAIN, LONGER),
            (num * FEWEST_SEEDS, LONGER),
            (2 * self.with_proof, LONGER),
        ]

    def seconds_of(self, steps: int) -> float:
        """That trials of the whole network take, as many at once as there will be, since they share the memory."""
        began, lowest = time.monotonic(), self.problem.lr * LR_FACTORS[0]
        probe = _Planned(self.conditions.made["deep"], lowest, CHOICE_SEED, steps, name="probe")
        list(side_by_side([probe.run] * self.jobs, self.jobs))
        return time.monotonic() - began

    def train(self, planned: Iterable[_Planned]) -> list[Trial]:
        """Side by side; kept in their order, so that what was stopped has no gaps."""
        made = []
        for trial, weights in side_by_side((one.run for one in planned), self.jobs):
            made.append(trial)
            self.trials.append(trial)
            if weights:
                self.shallow[trial.seed] = weights
        return made

    def choose_rates(self) -> None:
        """For all conditions, and for those that what is seen on the way asks for."""
        made, rates = self.conditions.made, self.rates
        self.choose(list(made.values()))
        something = any(learns(rates[name][1]) for name in ("deep", "shallow") if name in rates)
        if not something and (least := shallowest(self.problem)) is not None:
            made["shallowest"] = least
            self.choose([least])
        fits_less = (
            min(rates["deep"][1].values()) - self.neighbors > MARGIN
        )  # than neighbors tell of what they never saw
        if fits_less and self.problem.inputs.is_floating_point():
            made["wide"] = wide(self.problem)
            self.choose([made["wide"]])

    def choose(self, conditions: Sequence[Variant]) -> None:
        """Rates by the training score, on a seed that nothing is judged by; further out for those whose best lies at an end."""
        short = (
            max(MIN_STEPS, int(_SHARE_OF_CHOICE * self.steps))
            if self.steps > MIN_STEPS
            else self.steps
        )
        scores: dict[str, dict[float, float]] = {condition.name: {} for condition in conditions}
        wanted = [
            (condition, condition.problem.lr * part)
            for condition in conditions
            for part in LR_FACTORS
        ]
        while wanted:
            for condition, lr, score in self.tried(wanted, short):
                scores[condition.name][lr] = score
            unsettled = [
                one
                for one in dict.fromkeys(one for one, _ in wanted)
                if len(scores[one.name]) < len(LR_FACTORS) + MAX_WIDENINGS
            ]
            wanted = [
                (condition, lr)
                for condition in unsettled
                for lr in further_rates(scores[condition.name])
            ]
        for condition in conditions:
            self.rates[condition.name] = (
                chosen_rate(scores[condition.name], usual=condition.problem.lr),
                scores[condition.name],
            )

    def choose_rates_again(self) -> None:
        """Before depth is accused: a rate that a short trial bears may be too high for a long one, and where nothing was learned in short
        trials they said nothing of rates."""
        conditions = [
            one
            for name, one in self.conditions.made.items()
            if name in ("deep", "shallow", "shallowest")
        ]
        wanted = []
        for condition in conditions:
            (rate, scores), usual = self.rates[condition.name], condition.problem.lr
            blind = [] if learns(scores) else [usual * part for part in LR_FACTORS]
            wanted += [(condition, lr) for lr in sorted({rate, rate / LR_STEP, usual, *blind})]
        longer: dict[str, dict[float, float]] = {condition.name: {} for condition in conditions}
        for condition, lr, score in self.tried(wanted, self.times * self.steps):
            longer[condition.name][lr] = score
        for condition in conditions:
            rate = chosen_rate(longer[condition.name], usual=condition.problem.lr)
            self.rates[condition.name] = (rate, self.rates[condition.name][1])

    def tried(
        self, wanted: Sequence[tuple[Variant, float]], steps: int
    ) -> list[tuple[Variant, float, float]]:
        """Conditions at rates, and their training scores."""

        def planned() -> Iterator[_Planned]:
            for condition, lr in wanted:
                self.say(f"learning rates: {condition.name} at {lr:.3g}, {steps} steps")
                yield _Planned(
                    condition, lr, CHOICE_SEED, steps, name=f"{condition.name}, to choose its rate"
                )

        trials = self.train(planned())
        return [
            (condition, lr, trial.train_score)
            for (condition, lr), trial in zip(wanted, trials, strict=True)
        ]

    def judge(self) -> None:
        """Seed after seed until a verdict is certain, or no time is left for another and the proof."""
        self.shallow.clear()
        seeds = range(MAX_SEEDS[self.times])
        for some in (
            seeds[:FEWEST_SEEDS],
            *(seeds[seed : seed + 1] for seed in seeds[FEWEST_SEEDS:]),
        ):
            self.train(self.planned(some))
            if len(self.judged("deep")) < some.stop:
                self.say(
                    f"no time is left for another seed: {len(self.judged('deep'))} were judged"
                )
                break
            found = suspect(self.evidence())
            out = ", ".join(ruled_out(self.evidence()))
            self.say(
                f"after {some.stop} seeds: {found.name}; {found.because}"
                + (f"; ruled out: {out}" if out else "")
            )
            if found.certain:
                break

    def planned(self, seeds: Sequence[int]) -> Iterator[_Planned]:
        """Every condition of `seeds`, as long as there is time for a seed more."""
        length = self.times * self.steps
        for seed in seeds:
            needed = self.seed_seconds() / speedup(len(self.conditions.made), self.jobs)
            if seed and self.clock.left() < needed + (
                self.pair_seconds() if self.with_proof else 0
            ):
                return
            for condition in self.conditions.made.values():
                self.say(f"seed {seed}, {length} steps: {condition.name} ({condition.what})")
                keep = condition.name == "shallow"
                yield _Planned(condition, self.rates[condition.name][0], seed, length, keep=keep)
            if self.problem.lr_is_given and self.rates["deep"][0] != self.problem.lr:
                self.say(
                    f"seed {seed}, {length} steps: the network at the learning rate given, {self.problem.lr:.3g}"
                )
                yield _Planned(
                    self.conditions.made["deep"], self.problem.lr, seed, length, name="given"
                )

    def construct(self) -> None:
        """The deep network with the trained shallow one inside it, as it is and trained on from there, as far as the time suffices."""
        length, (rate, _) = self.times * self.steps, self.rates["deep"]
        what = "the trained shallow network, and identities for the rest"

        def planned() -> Iterator[_Planned]:
            for place, (seed, weights) in enumerate(self.shallow.items()):
                shallow = self.conditions.made["shallow"].make(seed)
                shallow.load_state_dict(torch.load(io.BytesIO(weights), weights_only=True))
                net = constructed(self.problem, seed, shallow, self.conditions.left_out)
                if isinstance(net, str):
                    self.say(f"no solution by construction: {net}")
                    return
                self.say(f"seed {seed}: constructed ({what})")
                self.trials.append(
                    as_it_is(self.problem, net, condition="constructed", seed=seed, steps=length)
                )
                left, deep = len(self.shallow) - place, self.latest("deep")
                assert deep is not None, "it is what depth hurts"
                needed = left * deep.seconds / speedup(left, self.jobs)
                if self.clock.left() > needed + (self.pair_seconds() if self.with_proof else 0):
                    self.say(f"seed {seed}, {length} steps: trained on from there")
                    yield _Planned(
                        replace(self.conditions.made["deep"], make=_given(net)),
                        rate,
                        seed,
                        length,
                        name="continued",
                    )

        self.train(planned())

    def lasts(self, times: int) -> bool:
        """Whether there is time for the fewest seeds of `times` the steps, and a proof of as many."""
        num, num_rates, deep = (
            FEWEST_SEEDS * len(self.conditions.made),
            2 * NUM_AGAIN,
            self.latest("deep"),
        )
        assert deep is not None, "seed 0 is always trained"
        seeds = FEWEST_SEEDS * self.seed_seconds() / speedup(num, self.jobs)
        rates = num_rates * deep.seconds / speedup(num_rates, self.jobs)
        needed = times * (seeds + rates + (self.pair_seconds() if self.with_proof else 0))
        if self.clock.left() < needed:
            self.say(
                f"no time is left for trials of {times} times the steps, which would take {needed:.0f} s"
            )
        return self.clock.left() >= needed

    def seed_seconds(self) -> float:
        """Of the longest seed judged until now, its conditions one after another; 0 where there is none yet."""
        length = self.times * self.steps
        spent: dict[int, float] = {}
        for trial in self.trials:
            if trial.seed != CHOICE_SEED and trial.steps == length:
                spent[trial.seed] = spent.get(trial.seed, 0.0) + trial.seconds
        return max(spent.values(), default=0.0)

    def pair_seconds(self) -> float:
        """That a seed of the network and its form with shortcuts takes; 0 where there is none yet."""
        pair = [trial for name in ("deep", "shortcuts") if (trial := self.latest(name)) is not None]
        return sum(trial.seconds for trial in pair) / speedup(2, self.jobs)

    def latest(self, condition: str) -> Trial | None:
        """The last trial that was kept; None before the first."""
        return next(
            (trial for trial in reversed(self.trials) if trial.condition == condition), None
        )

    def back_to_what_is_whole(self) -> None:
        """To the short trials, where too few of the longer ones were made."""
        if len(self.judged("deep")) < FEWEST_SEEDS:
            self.times = 1

    def judged(self, condition: str) -> list[Trial]:
        """One a seed."""
        length = self.times * self.steps
        return [
            one
            for one in self.trials
            if one.condition == condition and one.seed != CHOICE_SEED and one.steps == length
        ]

    def evidence(self) -> Scores:
        """For the rules."""
        names = (*self.conditions.made, "given", "constructed", "continued")
        by_name = {name: own for name in names if (own := self.judged(name))}
        deep = by_name.get("deep", [])
        return Scores(
            train={name: [trial.train_score for trial in own] for name, own in by_name.items()},
            held={name: [trial.held_score for trial in own] for name, own in by_name.items()},
            held_at_half={
                name: [trial.held_at_half for trial in own] for name, own in by_name.items()
            },
            neighbors=self.neighbors,
            looks=MAX_SEEDS[self.times] - FEWEST_SEEDS + 1,
            is_short=self.times == 1,
            num_layers=self.conditions.num_layers,
            response_ratio=self.response_ratio,
            narrows=self.conditions.narrows,
            gradient_ratios=[
                (trial.start.gradient_ratio, trial.end.gradient_ratio) for trial in deep
            ],
            dead_shares=[_larger(trial.start.dead_share, trial.end.dead_share) for trial in deep],
        )


class _Made(NamedTuple):
    """A trial, and the weights that it ended with where they are wanted."""

    trial: Trial
    weights: bytes


@dataclass(frozen=True, eq=False)
class _Planned:
    """A condition at a rate. Looked into where it goes by its own name and is the network itself."""

    condition: Variant
    lr: float
    seed: int
    steps: int
    name: str | None = None
    keep: bool = False

    def run(self) -> _Made:
        """Train it."""
        one, net = self.condition, self.condition.make(self.seed)
        trial = run_trial(
            one.problem,
            net,
            condition=self.name or one.name,
            lr=self.lr,
            seed=self.seed,
            steps=self.steps,
            look=self.name is None and one.name == "deep",
        )
        weights = io.BytesIO()
        if self.keep:
            torch.save(net.state_dict(), weights)
        return _Made(trial, weights.getvalue())


def _given(net: nn.Module) -> Callable[[int], nn.Module]:
    return lambda seed: net


def _larger(a: float | None, b: float | None) -> float | None:
    known = [value for value in (a, b) if value is not None]
    return max(known) if known else None
