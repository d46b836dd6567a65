"""Run the trials of a diagnosis: which are planned, recorded and judged, and at which rates.

`stages.py` decides which variants are examined, and in which order.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from reslearn.diagnose.parallel import run_parallel
from reslearn.diagnose.plan import (
    LR_STEP,
    MIN_STEPS,
    Candidate,
    Deadline,
    RateChoice,
    checked_rates,
    choose_rates,
    learns,
    look_counts,
    retune_rates,
    speedup,
)
from reslearn.diagnose.problem import Problem
from reslearn.diagnose.proof import Proof
from reslearn.diagnose.scores import AT_GIVEN_RATE, LEARNS, Scores
from reslearn.diagnose.trial import (
    CHOICE_SEED,
    PlannedTrial,
    Trial,
    judged_trials,
)
from reslearn.diagnose.variant import Variants
from reslearn.diagnose.verdict import FEWEST_SEEDS

LONGER = 4
"""Steps of a longer trial, in units of a short one."""
MAX_SEEDS = {1: 4, LONGER: 8}
"""Number of seeds at most, by the length of the trials."""
CHOICE_LENGTH = 0.5
"""Steps of a trial that chooses a learning rate, in units of a short one."""
_MAX_STEPS_DOWN = 2
"""How often the rate of a variant is lowered because a seed fails."""
_YARDSTICKS = ("wide", "constructed", "continued")


class _Length(NamedTuple):
    """What is judged at one length of trials."""

    judged_steps: int
    active: list[str]
    rates: dict[str, RateChoice]
    num_seeds: int | None
    is_extended: bool


@dataclass(kw_only=True, eq=False)
class TrialRunner:
    """The trials so far, and the methods that train further ones.

    Attributes:
        active: Names of the variants that are judged, in order. "deep" is the first.
        signal: What the initial weights do to the signal (`Scores.signal`).
        steps: Steps of a short trial.
        judged_steps: Steps of the judged trials.
        num_seeds: Number of seeds that the rules see; None for all.
        shallow_weights: Weights of the trained shallow networks, by seed.
        is_out_of_time: Whether a planned trial was left out because of the deadline.
    """

    problem: Problem
    variants: Variants
    response_ratio: float | None
    deadline: Deadline
    say: Callable[[str], None]
    with_proof: bool
    jobs: int = 1
    signal: str = ""
    neighbors: float = float("inf")
    linear: float = float("inf")
    steps: int = 0
    judged_steps: int = 0
    active: list[str] = field(default_factory=list)
    num_seeds: int | None = None
    trials: list[Trial] = field(default_factory=list)
    rates: dict[str, RateChoice] = field(default_factory=dict)
    shallow_weights: dict[int, bytes] = field(default_factory=dict)
    proof: Proof | None = None
    is_out_of_time: bool = False
    is_extended: bool = False
    _before: _Length | None = None

    @property
    def is_short(self) -> bool:
        """Whether the judged trials are short ones."""
        return self.judged_steps == self.steps

    @property
    def max_seeds(self) -> int:
        """Number of seeds at most, at the current length."""
        return MAX_SEEDS[1] if self.is_short else MAX_SEEDS[LONGER]

    def measure_seconds(self, steps: int) -> float:
        """Return the seconds of trials of the deep network, `jobs` of them at once.

        They run at once because they share the bandwidth of the memory.
        """
        start_time = time.monotonic()
        list(run_parallel([self._probe("deep", steps).run] * self.jobs, self.jobs))
        return time.monotonic() - start_time

    def relative_costs(self, names: Sequence[str], steps: int) -> dict[str, float]:
        """Return the time of a trial of each variant, in units of the deep network."""
        tasks = [self._probe(name, steps).run for name in ("deep", *names)]
        seconds = [trial.seconds for trial, _ in run_parallel(tasks, self.jobs)]
        costs = [max(0.2, value / max(1e-6, seconds[0])) for value in seconds[1:]]
        return dict(zip(names, costs, strict=True))

    def _probe(self, name: str, steps: int) -> PlannedTrial:
        variant = self.variants.by_name[name]
        return PlannedTrial(variant, self.problem.lr / 16, CHOICE_SEED, steps, name="probe")

    def train(self, planned: Iterable[PlannedTrial]) -> list[Trial]:
        """Run trials in parallel and record them in order, so that an interrupt leaves no gaps."""
        trials = []
        tasks = (plan.run for plan in self._affordable(planned))
        for trial, weights in run_parallel(tasks, self.jobs):
            trials.append(trial)
            self.trials.append(trial)
            if weights:
                self.shallow_weights[trial.seed] = weights
        return trials

    def _affordable(self, planned: Iterable[PlannedTrial]) -> Iterator[PlannedTrial]:
        """Yield trials until one would end after the deadline. The first trial always runs."""
        for plan in planned:
            seconds = self.seconds_of(plan.variant.name, plan.steps)
            if self.trials and self.deadline.remaining() < seconds + self.proof_seconds():
                self.is_out_of_time = True
                return
            yield plan

    def choose_rates(self, names: Sequence[str]) -> None:
        """Choose rates for variants by short trials on two seeds."""
        variants = [self.variants.by_name[name] for name in names]
        if not variants:
            return
        choices = choose_rates(variants, self.try_short)
        choices = checked_rates(variants, choices, self.try_second_seed)
        self.rates.update(choices)

    def retune_rates(self, names: Sequence[str]) -> None:
        """Tune learning rates again at the longer trial length.

        A rate that is stable in a short trial may diverge in a long one.
        """
        variants = [self.variants.by_name[name] for name in names]
        self.rates.update(retune_rates(variants, self.rates, self.try_long))

    def try_short(self, candidates: Sequence[Candidate]) -> list[float]:
        """Return training scores of trials that choose a learning rate."""
        return self.try_rates(candidates, self._choice_steps(), CHOICE_SEED)

    def try_second_seed(self, candidates: Sequence[Candidate]) -> list[float]:
        """Return training scores of trials on a second seed, as long as those on the first."""
        return self.try_rates(candidates, self._choice_steps(), CHOICE_SEED + 1)

    def try_long(self, candidates: Sequence[Candidate]) -> list[float]:
        """Return training scores of trials as long as those that are judged."""
        return self.try_rates(candidates, self.judged_steps, CHOICE_SEED)

    def _choice_steps(self) -> int:
        if self.steps <= MIN_STEPS:
            return self.steps
        return max(MIN_STEPS, int(CHOICE_LENGTH * self.steps))

    def try_rates(self, candidates: Sequence[Candidate], steps: int, seed: int) -> list[float]:
        """Train variants at learning rates; return their training scores, 2 without time left."""

        def planned() -> Iterator[PlannedTrial]:
            for variant, lr in candidates:
                self.say(f"Learning rates: {variant.name} at {lr:.3g}, {steps} steps.")
                name = f"{variant.name}, to choose its rate"
                yield PlannedTrial(variant, lr, seed, steps, name=name)

        scores = [trial.train_score for trial in self.train(planned())]
        return scores + [2.0] * (len(candidates) - len(scores))

    def train_seeds(self, num_seeds: int) -> None:
        """Train all active variants on the first `num_seeds` seeds, where that is not done yet.

        If a seed fails at a variant's rate, the rate is lowered. If the user's rate is better than
        the chosen one, it is taken.
        """
        self.num_seeds = None
        self.train(self._planned_seeds(range(num_seeds), self.active))
        for name in self.active:
            is_fixed = name in _YARDSTICKS or name.endswith(AT_GIVEN_RATE)
            if not is_fixed and learns(self.rates[name].scores or {0.0: 1.0}):
                self._step_rate_down(name, num_seeds)
        self._take_better_given_rate()
        self.train(self._planned_seeds(range(num_seeds), self.active))  # the rate may be new
        self.num_seeds = num_seeds

    def _planned_seeds(self, seeds: Sequence[int], names: Sequence[str]) -> Iterator[PlannedTrial]:
        """Yield the trials of variants on seeds that were not made yet at the current rates."""
        trained = {(trial.variant, trial.lr, trial.seed, trial.steps) for trial in self.trials}
        for seed in seeds:
            plans = [(name, self.rates[name].lr) for name in names]
            if self.problem.lr_is_given and "deep" in names:
                plans.append(("deep", self.problem.lr))
            for name, lr in dict.fromkeys(plans):
                if (name, lr, seed, self.judged_steps) in trained:
                    continue
                variant = self.variants.by_name[name]
                self.say(f"Seed {seed}, {self.judged_steps} steps: {name} at {lr:.3g}.")
                with_weights = name == "shallow"
                yield PlannedTrial(variant, lr, seed, self.judged_steps, with_weights=with_weights)

    def _step_rate_down(self, name: str, num_seeds: int) -> None:
        """Lower the rate of a variant while seeds fail at it and the lower rate is better."""
        for _ in range(_MAX_STEPS_DOWN):
            trials = self.judged(name)
            if not any(trial.train_score > LEARNS for trial in trials):
                return
            choice = self.rates[name]
            self.rates[name] = choice._replace(lr=choice.lr / LR_STEP)
            self.train(self._planned_seeds(range(num_seeds), [name]))
            if not _is_better(self.judged(name), trials):
                self.rates[name] = choice
                return

    def _take_better_given_rate(self) -> None:
        lr, choice = self.problem.lr, self.rates["deep"]
        at_given_rate = judged_trials(self.trials, "deep", self.judged_steps, lr)
        if self.problem.lr_is_given and _is_better(at_given_rate, self.judged("deep")):
            self.rates["deep"] = choice._replace(lr=lr)

    def look_counts(self) -> list[int]:
        """Return the numbers of seeds after which the rules are applied."""
        return look_counts(FEWEST_SEEDS, self.max_seeds)

    def proof_seconds(self) -> float:
        """Return the time that must remain for the proof; 0 if none was asked for."""
        return self.pair_seconds() if self.with_proof and self.proof is None else 0

    def pair_seconds(self) -> float:
        """Return the time of one trial of "deep" and one of "shortcuts"; 0 if there is none yet."""
        steps = self.judged_steps
        seconds = self.seconds_of("deep", steps) + self.seconds_of("shortcuts", steps)
        return seconds / speedup(2, self.jobs)

    def seconds_of(self, name: str, steps: int) -> float:
        """Predict the time of a trial from the latest trial of the variant, or of "deep".

        Returns:
            0 if there is none yet.
        """
        for variant in (name, "deep"):
            for trial in reversed(self.trials):
                if trial.variant.partition(",")[0] == variant and trial.steps:
                    return trial.seconds * max(0.2, steps / trial.steps)
        return 0.0

    def restart(self, steps: int) -> None:
        """Judge trials of `steps` from now on, and forget the rates that were chosen."""
        self.steps = self.judged_steps = steps
        self.active, self.rates, self.num_seeds = [], {}, None
        self.shallow_weights.clear()

    def lengthen(self, steps: int, names: list[str]) -> None:
        """Judge trials of more steps from now on, of the variants `names`."""
        self._before = _Length(
            self.judged_steps, self.active, dict(self.rates), self.num_seeds, self.is_extended
        )
        self.judged_steps, self.active, self.num_seeds = steps, names, None
        self.shallow_weights.clear()

    def drop_incomplete_trials(self) -> bool:
        """Judge the shorter trials if there are too few longer ones; return whether there are."""
        before = self._before
        self.num_seeds = None
        if before is None or len(self.judged("deep")) >= FEWEST_SEEDS:
            return False
        self.judged_steps, self.active, self.rates, self.num_seeds, self.is_extended = before
        self._before = None
        return True

    def judged(self, name: str) -> list[Trial]:
        """Return the trials of a variant that the verdict rests on, in the order of seeds."""
        lr = self.rates[name].lr if name in self.rates else None
        variant = name
        if name == "given":
            if not self.problem.lr_is_given or self.rates["deep"].lr == self.problem.lr:
                return []
            variant, lr = "deep", self.problem.lr
        trials = judged_trials(self.trials, variant, self.judged_steps, lr)
        trials = sorted(trials, key=lambda trial: trial.seed)
        return trials if self.num_seeds is None else trials[: self.num_seeds]

    def judged_by_name(self) -> dict[str, tuple[Trial, ...]]:
        """Return the judged trials of every variant that has some."""
        if "deep" not in self.rates:
            return {}
        names = dict.fromkeys((*self.variants.by_name, "given", "constructed", "continued"))
        return {name: tuple(trials) for name in names if (trials := self.judged(name))}

    def scores(self) -> Scores:
        """Return what the rules judge."""
        by_name = self.judged_by_name()
        deep = by_name.get("deep", ())
        return Scores(
            train=_values(by_name, lambda trial: trial.train_score),
            held_out=_values(by_name, lambda trial: trial.held_score),
            held_at_half=_values(by_name, lambda trial: trial.held_at_half),
            train_at_half=_values(by_name, lambda trial: trial.train_at_half),
            neighbors=self.neighbors,
            linear=self.linear,
            looks=len(self.look_counts()),
            is_short=self.is_short,
            is_extended=self.is_extended,
            num_layers=self.variants.num_layers,
            response_ratio=self.response_ratio,
            narrows=self.variants.narrows,
            gradient_ratios=[
                (trial.start.gradient_ratio, trial.end.gradient_ratio) for trial in deep
            ],
            dead_shares=[_larger(trial.start.dead_share, trial.end.dead_share) for trial in deep],
            signal=self.signal,
            given_lr=self.problem.lr if self.problem.lr_is_given else 0.0,
            best_lr=self.rates["deep"].lr if "deep" in self.rates else 0.0,
        )


def _values(
    by_name: dict[str, tuple[Trial, ...]], value: Callable[[Trial], float]
) -> dict[str, list[float]]:
    return {name: list(map(value, trials)) for name, trials in by_name.items()}


def _is_better(trials: Sequence[Trial], than: Sequence[Trial]) -> bool:
    """Return whether the mean training score of as many trials is lower."""
    if not trials or len(trials) < len(than):
        return False
    return sum(trial.train_score for trial in trials[: len(than)]) < sum(
        trial.train_score for trial in than
    )


def _larger(first: float | None, second: float | None) -> float | None:
    shares = [share for share in (first, second) if share is not None]
    return max(shares, default=None)
