"""The experiments of a diagnosis, in order, until the verdict is certain or the time is used up.

1. Checks that need no training: do inputs vary, and how good are nearest neighbors?
2. Learning rates: each variant is tried at a few rates, on a separate seed.
3. Short trials: all variants are trained seed after seed, paired by seed. The rules are applied
   after three seeds and after each further one.
4. Longer trials, if depth or the learning rate seems to hurt. A deeper network may only be slow at
   the start, and it may need a lower rate in the long run. So rates are tuned again.
"""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import nn

from reslearn.diagnose.parallel import run_parallel
from reslearn.diagnose.plan import (
    LR_FACTORS,
    MIN_STEPS,
    Candidate,
    Deadline,
    RateChoice,
    TrialGroup,
    choose_rates,
    fitting_steps,
    learns,
    retune_rates,
    speedup,
)
from reslearn.diagnose.problem import Problem, takes_free_outputs
from reslearn.diagnose.scores import MARGIN, Scores
from reslearn.diagnose.screening import nearest_neighbor_score
from reslearn.diagnose.trial import (
    CHOICE_SEED,
    PlannedTrial,
    Trial,
    evaluate_untrained,
    judged_trials,
)
from reslearn.diagnose.variant import Variants, constructed, shallowest, wide
from reslearn.diagnose.verdict import FEWEST_SEEDS, NEED_LONGER, ruled_out, suspect

LONGER = 4
"""Steps of a longer trial, in units of a short one."""
MAX_SEEDS = {1: 4, LONGER: 6}
"""Number of seeds at most, by the length of the trials."""
PROOF_SEED = 2000
"""Nothing is chosen or judged by this seed, so the proof may contradict the diagnosis."""
_RETUNED_RATES = 3
"""Number of rates at which a network is usually tuned again."""
_CHOICE_LENGTH = 0.5
"""Steps of a trial that chooses a learning rate, in units of a short one."""


@dataclass(frozen=True, kw_only=True)
class Proof:
    """The network before and after shortcuts, trained on a fresh seed.

    Both are trained at their best learning rates, for as many steps as the judged trials.
    """

    before: Trial
    after: Trial

    @property
    def gain(self) -> float:
        """Decrease of the training score, as a share of the loss of guessing."""
        return self.before.train_score - self.after.train_score

    @property
    def helps(self) -> bool:
        """Whether the gain exceeds the margin of the rules. Only then is a patch recommended."""
        return self.gain > MARGIN

    def text(self) -> str:
        """Return a sentence with both training losses, without its final period."""
        losses = (
            f"on a fresh seed, the training loss is {self.before.train_score:.2f} before and "
            f"{self.after.train_score:.2f} after"
        )
        if self.helps:
            return f"Shortcuts help: {losses}"
        return f"Shortcuts do not help: {losses}, and a gain of more than {MARGIN:g} is needed"


@dataclass(kw_only=True, eq=False)
class TrialRunner:
    """The trials so far, and the methods that train further ones.

    Attributes:
        steps: Steps of a short trial.
        length: Steps of the judged trials, in units of a short one.
        shallow_weights: Weights of the trained shallow networks, by seed.
    """

    problem: Problem
    variants: Variants
    response_ratio: float | None
    deadline: Deadline
    say: Callable[[str], None]
    with_proof: bool
    jobs: int = 1
    neighbors: float = 1.0
    steps: int = 0
    length: int = 1
    trials: list[Trial] = field(default_factory=list)
    rates: dict[str, RateChoice] = field(default_factory=dict)
    shallow_weights: dict[int, bytes] = field(default_factory=dict)
    proof: Proof | None = None

    @property
    def judged_steps(self) -> int:
        return self.length * self.steps

    def run(self, steps: int | None) -> None:
        """Run all experiments in order."""
        self.say("Nearest neighbors, as a yardstick.")
        self.neighbors = nearest_neighbor_score(self.problem)
        self.steps = steps or fitting_steps(
            self.trial_groups(), self.deadline, self.measure_seconds, jobs=self.jobs
        )
        self.choose_rates()
        for length in MAX_SEEDS:
            if length > 1:
                if not self.has_time_for_longer(length):
                    break
                self.length = length
                self.retune_rates()
            self.judge()
            if suspect(self.scores()).name not in NEED_LONGER:
                break
        if suspect(self.scores()).name == "degradation":
            self.construct()
        if self.with_proof:
            self.prove()

    def trial_groups(self) -> list[TrialGroup]:
        """Return all trials that may be needed. A verdict needs the rates and the fewest seeds."""
        # Also the network at the given rate, and one variant that comes up during the diagnosis.
        num = len(self.variants.by_name) + 2
        further_seeds = MAX_SEEDS[1] - FEWEST_SEEDS
        return [
            TrialGroup(num * len(LR_FACTORS), _CHOICE_LENGTH, required=True),
            TrialGroup(num * FEWEST_SEEDS, 1, required=True),
            *[TrialGroup(num, 1)] * further_seeds,
            TrialGroup(2 * _RETUNED_RATES, LONGER),
            TrialGroup(num * FEWEST_SEEDS, LONGER),
            TrialGroup(2 * self.with_proof, LONGER),
        ]

    def measure_seconds(self, steps: int) -> float:
        """Return the seconds of trials of the deep network, `jobs` of them at once.

        They run at once because they share the bandwidth of the memory.
        """
        start_time, lowest_lr = time.monotonic(), self.problem.lr * LR_FACTORS[0]
        probe = PlannedTrial(
            self.variants.by_name["deep"], lowest_lr, CHOICE_SEED, steps, name="probe"
        )
        list(run_parallel([probe.run] * self.jobs, self.jobs))
        return time.monotonic() - start_time

    def train(self, planned: Iterable[PlannedTrial]) -> list[Trial]:
        """Run trials in parallel and record them in order, so that an interrupt leaves no gaps."""
        trials = []
        for trial, weights in run_parallel((plan.run for plan in planned), self.jobs):
            trials.append(trial)
            self.trials.append(trial)
            if weights:
                self.shallow_weights[trial.seed] = weights
        return trials

    def choose_rates(self) -> None:
        """Choose rates for all variants, and add the variants that the scores ask for."""
        by_name, rates = self.variants.by_name, self.rates
        rates.update(choose_rates(list(by_name.values()), self.try_short))
        names = [name for name in ("deep", "shallow") if name in rates]
        if not any(learns(rates[name].scores) for name in names):
            variant = shallowest(self.problem)
            if variant is not None:
                by_name["shallowest"] = variant
                rates.update(choose_rates([variant], self.try_short))
        # Does the network fit its training data worse than neighbors predict held-out data?
        fits_worse = min(rates["deep"].scores.values()) - self.neighbors > MARGIN
        is_number = self.problem.inputs.is_floating_point()
        if fits_worse and is_number and takes_free_outputs(self.problem):
            by_name["wide"] = wide(self.problem)
            rates.update(choose_rates([by_name["wide"]], self.try_short))

    def retune_rates(self) -> None:
        """Tune learning rates again at the longer trial length.

        A rate that is stable in a short trial may diverge in a long one.
        """
        names = ("deep", "shallow", "shallowest")
        variants = [variant for name, variant in self.variants.by_name.items() if name in names]
        self.rates.update(retune_rates(variants, self.rates, self.try_long))

    def try_short(self, candidates: Sequence[Candidate]) -> list[float]:
        """Return training scores of trials that choose a learning rate."""
        steps = self.steps
        if steps > MIN_STEPS:
            steps = max(MIN_STEPS, int(_CHOICE_LENGTH * steps))
        return self.try_rates(candidates, steps)

    def try_long(self, candidates: Sequence[Candidate]) -> list[float]:
        """Return training scores of trials as long as those that are judged."""
        return self.try_rates(candidates, self.judged_steps)

    def try_rates(self, candidates: Sequence[Candidate], steps: int) -> list[float]:
        """Train variants at learning rates and return their training scores."""

        def planned() -> Iterator[PlannedTrial]:
            for variant, lr in candidates:
                self.say(f"Learning rates: {variant.name} at {lr:.3g}, {steps} steps.")
                name = f"{variant.name}, to choose its rate"
                yield PlannedTrial(variant, lr, CHOICE_SEED, steps, name=name)

        return [trial.train_score for trial in self.train(planned())]

    def judge(self) -> None:
        """Train seed after seed until a verdict is certain or the time is used up."""
        self.shallow_weights.clear()
        start = 0
        for stop in range(FEWEST_SEEDS, MAX_SEEDS[self.length] + 1):
            self.train(self.planned_seeds(range(start, stop)))
            start = stop
            num_judged = len(self.judged("deep"))
            if num_judged < stop:
                self.say(f"No time is left for another seed. Number of seeds judged: {num_judged}.")
                break
            verdict = suspect(self.scores())
            line = f"After {stop} seeds: {verdict.name}. {verdict.reason}"
            causes = ruled_out(self.scores())
            if causes:
                line += f" Ruled out: {', '.join(causes)}."
            self.say(line)
            if verdict.certain:
                break

    def planned_seeds(self, seeds: Sequence[int]) -> Iterator[PlannedTrial]:
        """Yield the trials of every variant on `seeds`, while there is time for another seed."""
        steps, by_name = self.judged_steps, self.variants.by_name
        for seed in seeds:
            seconds = self.seed_seconds() / speedup(len(by_name), self.jobs)
            if seed and self.deadline.remaining() < seconds + self.proof_seconds():
                return
            for variant in by_name.values():
                self.say(f"Seed {seed}, {steps} steps: {variant.name} ({variant.description}).")
                yield PlannedTrial(
                    variant,
                    self.rates[variant.name].lr,
                    seed,
                    steps,
                    with_weights=variant.name == "shallow",
                )
            lr = self.problem.lr
            if self.problem.lr_is_given and self.rates["deep"].lr != lr:
                self.say(f"Seed {seed}, {steps} steps: deep at the given learning rate {lr:.3g}.")
                yield PlannedTrial(by_name["deep"], lr, seed, steps, name="given")

    def construct(self) -> None:
        """Evaluate the paper's solution by construction, and train it further while time is left.

        It is the deep network with the trained shallow one inside it and identities elsewhere.
        """
        self.train(self.planned_constructions())

    def planned_constructions(self) -> Iterator[PlannedTrial]:
        """Construct a network per seed and evaluate it; yield its further training."""
        steps, deep = self.judged_steps, self.variants.by_name["deep"]
        for index, (seed, weights) in enumerate(self.shallow_weights.items()):
            shallow = self.variants.by_name["shallow"].make(seed)
            shallow.load_state_dict(torch.load(io.BytesIO(weights), weights_only=True))
            net = constructed(self.problem, seed, shallow, self.variants.removed_blocks)
            if isinstance(net, str):
                self.say(f"There is no solution by construction: {net}.")
                return
            self.say(f"Seed {seed}: constructed (the trained shallow network and identities).")
            self.trials.append(
                evaluate_untrained(self.problem, net, variant="constructed", seed=seed, steps=steps)
            )
            num_remaining = len(self.shallow_weights) - index
            seconds = num_remaining * self.seconds_of("deep") / speedup(num_remaining, self.jobs)
            if self.deadline.remaining() > seconds + self.proof_seconds():
                self.say(
                    f"Seed {seed}, {steps} steps: further training of the constructed network."
                )
                variant = replace(deep, make=_constant(net))
                yield PlannedTrial(variant, self.rates["deep"].lr, seed, steps, name="continued")

    def prove(self) -> None:
        """Train the variants "deep" and "shortcuts" on PROOF_SEED."""
        self.say(f"Before and after on a fresh seed: about {self.pair_seconds():.0f} s.")
        tasks = []
        for name, variant_name in (("before", "deep"), ("after", "shortcuts")):
            variant, lr = self.variants.by_name[variant_name], self.rates[variant_name].lr
            planned = PlannedTrial(variant, lr, PROOF_SEED, self.judged_steps, name=name)
            tasks.append(planned.run)
        (before, _), (after, _) = run_parallel(tasks, self.jobs)
        self.proof = Proof(before=before, after=after)

    def has_time_for_longer(self, length: int) -> bool:
        """Return whether there is time for the fewest seeds at `length`, and for the proof."""
        num_seeds = FEWEST_SEEDS * len(self.variants.by_name)
        num_rates = 2 * _RETUNED_RATES
        seeds = FEWEST_SEEDS * self.seed_seconds() / speedup(num_seeds, self.jobs)
        rates = num_rates * self.seconds_of("deep") / speedup(num_rates, self.jobs)
        seconds = length * (seeds + rates + self.proof_seconds())
        if self.deadline.remaining() < seconds:
            self.say(
                f"No time is left for trials of {length} times the steps, which would take "
                f"{seconds:.0f} s."
            )
            return False
        return True

    def seed_seconds(self) -> float:
        """Return the time of the longest seed so far, its variants one after another; 0 if none."""
        seconds: dict[int, float] = {}
        for trial in self.trials:
            if trial.seed != CHOICE_SEED and trial.steps == self.judged_steps:
                seconds[trial.seed] = seconds.get(trial.seed, 0.0) + trial.seconds
        return max(seconds.values(), default=0.0)

    def proof_seconds(self) -> float:
        """Return the time that must remain for the proof; 0 if none was asked for."""
        return self.pair_seconds() if self.with_proof else 0

    def pair_seconds(self) -> float:
        """Return the time of one trial of "deep" and one of "shortcuts"; 0 if there is none yet."""
        seconds = self.seconds_of("deep") + self.seconds_of("shortcuts")
        return seconds / speedup(2, self.jobs)

    def seconds_of(self, variant: str) -> float:
        """Return the time of the latest trial of a variant; 0 if there is none yet."""
        for trial in reversed(self.trials):
            if trial.variant == variant:
                return trial.seconds
        return 0.0

    def drop_incomplete_trials(self) -> None:
        """Judge the short trials if there are too few longer ones."""
        if len(self.judged("deep")) < FEWEST_SEEDS:
            self.length = 1

    def judged(self, variant: str) -> list[Trial]:
        return judged_trials(self.trials, variant, self.judged_steps)

    def scores(self) -> Scores:
        """Return what the rules judge."""
        names = (*self.variants.by_name, "given", "constructed", "continued")
        by_name = {name: trials for name in names if (trials := self.judged(name))}
        deep = by_name.get("deep", [])
        train, held_out, held_at_half = {}, {}, {}
        for name, trials in by_name.items():
            train[name] = [trial.train_score for trial in trials]
            held_out[name] = [trial.held_score for trial in trials]
            held_at_half[name] = [trial.held_at_half for trial in trials]
        return Scores(
            train=train,
            held_out=held_out,
            held_at_half=held_at_half,
            neighbors=self.neighbors,
            looks=MAX_SEEDS[self.length] - FEWEST_SEEDS + 1,
            is_short=self.length == 1,
            num_layers=self.variants.num_layers,
            response_ratio=self.response_ratio,
            narrows=self.variants.narrows,
            gradient_ratios=[
                (trial.start.gradient_ratio, trial.end.gradient_ratio) for trial in deep
            ],
            dead_shares=[_larger(trial.start.dead_share, trial.end.dead_share) for trial in deep],
        )


def _constant(net: nn.Module) -> Callable[[int], nn.Module]:
    return lambda seed: net


def _larger(first: float | None, second: float | None) -> float | None:
    shares = [share for share in (first, second) if share is not None]
    return max(shares, default=None)
