"""The truth of each member of the second generation, and the rules that settle it.

The rules were written before anything was measured. Scores are training losses, divided by the
loss of guessing. Three seeds are paired. "Worse" means: the mean difference is above MARGIN and its
95 % interval lies above 0.

A fault by construction. The network and its cured twin train for four times the steps of a short
trial, which is the length on which verdicts rest, each at its own learning rate.

- The truth holds if the twin ends at LEARNED or below, and the network is worse.
- Shuffled targets can be memorized, so they are measured on held-out data (at most WORST_SCORE).
- A rate may cure the network too. If the best of four rates brings it to the score of the twin plus
  MARGIN or below, "bad learning rate" is right as well.

Everything else is measured at ten times the steps of a short trial, without any operation on the
network.

- healthy: at the given rate, all seeds end below MARGIN, so nothing could be better by MARGIN.
- Otherwise the network is trained at the best of four rates, chosen on a separate seed.
- degradation: at its best rate it is worse than the shallow twin and than the twin with shortcuts,
  if there is one. The twins have only four times the steps.
- bad learning rate: at the given rate it is worse than at its best one, at which it learns.
- healthy: worse than neither twin, which now train as long and at their own best rates, and all
  intervals of differences end below MARGIN. It beats guessing by MARGIN.
- For a degraded network that learns nothing, "vanishing or exploding signal" is right too.

A healthy member must also carry over to held-out data: its held-out loss beats guessing by MARGIN,
and it does not overfit (OVERFITTING_GAP above the training loss, and rising by MARGIN).

All other members are unsettled. They are dropped: no diagnosis sees them.

    python -m benchmarks.causes.truth --half tuning --members '*-softmax' --out truth.jsonl
"""

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.causes.members import Member
from benchmarks.depth.truth import CHOICE_SEED, DIAGNOSIS_STEPS, LR_FACTORS, Truth

from reslearn.diagnose import MARGIN, Problem, Trial, run_trial
from reslearn.diagnose.scores import exceeds_margin
from reslearn.diagnose.trial import WORST_SCORE
from reslearn.study import Answer, compare

CONSTRUCTED_STEPS = 4 * DIAGNOSIS_STEPS
STEPS = 10 * DIAGNOSIS_STEPS
SEEDS = 3
LEARNED = 0.5
OVERFITTING_GAP = 3 * MARGIN
CURABLE_BY_RATE = ("initialization", "dead units", "data")


class Length(NamedTuple):
    """Seeds, and steps of the two lengths."""

    steps: int
    short_steps: int
    seeds: int


Scores = dict[str, list[float]]


def truth_of(member: Member, *, steps: int = STEPS, seeds: int = SEEDS) -> Truth:
    """Check the truth by construction, or measure it."""
    length = Length(steps, steps * CONSTRUCTED_STEPS // STEPS, seeds)
    if member.cured:
        measured = _measure_fault(member, length)
        return Truth(names=settle_fault(member.truths, measured), measured=measured)
    measured = _measure(member, length)
    return Truth(names=settle(measured), measured=measured)


def settle_fault(truths: tuple[str, ...], measured: dict[str, Any]) -> tuple[str, ...]:
    """Apply the rule of faults by construction."""
    scores = measured["scores"]
    cured = statistics.fmean(scores["cured"])
    if cured > LEARNED or _worse(scores["ill"], scores["cured"]) != "yes":
        return ()
    by_rate = measured.get("by_rate", {})
    if by_rate and min(by_rate.values()) <= cured + MARGIN:
        return (*truths, "bad learning rate")
    return truths


def settle(measured: dict[str, Any]) -> tuple[str, ...]:
    """Apply the rules of measured truths."""
    scores: Scores = measured["scores"]
    if max(scores["given"]) < MARGIN:
        return ("healthy",) if _carries_over(measured) else ()
    deep = scores.get("deep", scores["given"])
    learns = statistics.fmean(deep) <= 1 - MARGIN
    if is_degraded(scores):
        return ("degradation",) if learns else ("degradation", "vanishing or exploding signal")
    by_rate: Answer = "no"
    if "deep" in scores:
        by_rate = _worse(scores["given"], scores["deep"])
        if by_rate == "yes" and learns:
            return ("bad learning rate",)
    answers = [by_rate]
    answers += [_worse(deep, scores[name]) for name in scores if name.startswith("long ")]
    is_healthy = learns and len(answers) > 1 and set(answers) == {"no"}
    return ("healthy",) if is_healthy and _carries_over(measured) else ()


def is_degraded(scores: Scores) -> bool:
    """Return whether the network is worse than its shallow twin and its twin with shortcuts."""
    deep = scores.get("deep", scores["given"])
    twins = [name for name in ("shallow", "shortcuts") if name in scores]
    return "shallow" in twins and all(_worse(deep, scores[name]) == "yes" for name in twins)


def _worse(first: Sequence[float], second: Sequence[float]) -> Answer:
    return exceeds_margin(compare(first, second, paired=True))


def _carries_over(measured: dict[str, Any]) -> bool:
    """Return whether what was learned holds for held-out data too."""
    train = statistics.fmean(measured["scores"].get("deep", measured["scores"]["given"]))
    held_out, at_half = (statistics.fmean(measured[key]) for key in ("held_out", "held_at_half"))
    overfits = held_out - train > OVERFITTING_GAP and held_out - at_half > MARGIN
    return held_out < 1 - MARGIN and not overfits


def _measure_fault(member: Member, length: Length) -> dict[str, Any]:
    ill, cured = member.problem(), member.twin(**member.cured).problem()
    steps, on_held_out = length.short_steps, member.measured_on == "held-out"
    scores: Scores = {"ill": [], "cured": []}
    for name, problem in (("ill", ill), ("cured", cured)):
        for seed in range(length.seeds):
            trial = _train(problem, problem.lr, seed, steps)
            score = min(trial.held_score, WORST_SCORE) if on_held_out else trial.train_score
            scores[name].append(score)
    measured: dict[str, Any] = {"steps": steps, "scores": scores}
    if member.kind in CURABLE_BY_RATE and not on_held_out:
        measured["by_rate"] = _scores_by_rate(ill, steps)
    return measured


def _measure(member: Member, length: Length) -> dict[str, Any]:
    problem = member.problem()
    trials = [_train(problem, problem.lr, seed, length.steps) for seed in range(length.seeds)]
    scores: Scores = {"given": [trial.train_score for trial in trials]}
    measured: dict[str, Any] = {"steps": length.steps, "scores": scores}
    rates: dict[str, float] = {}
    if max(scores["given"]) >= MARGIN and member.shallow is not None:
        by_rate = _scores_by_rate(problem, length.steps)
        rates["deep"] = min(by_rate, key=lambda lr: by_rate[lr])
        if rates["deep"] != problem.lr:
            trials = [_train(problem, rates["deep"], s, length.steps) for s in range(length.seeds)]
            scores["deep"] = [trial.train_score for trial in trials]
        _measure_twins(member, length, scores, rates)
        measured |= {"rates": rates, "by_rate": by_rate}
    measured["held_out"] = [trial.held_score for trial in trials]
    measured["held_at_half"] = [trial.held_at_half for trial in trials]
    return measured


def _measure_twins(member: Member, length: Length, scores: Scores, rates: dict[str, float]) -> None:
    """Train the twins briefly, and as long as the network unless it is degraded already."""
    builds = {"shallow": member.shallow, "shortcuts": member.shortcuts}
    problems = {name: member.twin(build=build).problem() for name, build in builds.items() if build}
    for name, problem in problems.items():
        trials = [_train(problem, problem.lr, s, length.short_steps) for s in range(length.seeds)]
        scores[name] = [trial.train_score for trial in trials]
    if is_degraded(scores):
        return
    for name, problem in problems.items():
        by_rate = _scores_by_rate(problem, length.steps)
        rates[name] = min(by_rate, key=lambda lr: by_rate[lr])
        trials = [_train(problem, rates[name], s, length.steps) for s in range(length.seeds)]
        scores[f"long {name}"] = [trial.train_score for trial in trials]


def _scores_by_rate(problem: Problem, steps: int) -> dict[float, float]:
    rates = sorted(problem.lr * factor for factor in LR_FACTORS)
    return {lr: _train(problem, lr, CHOICE_SEED, steps).train_score for lr in rates}


def _train(problem: Problem, lr: float, seed: int, steps: int) -> Trial:
    net = problem.net(seed)
    return run_trial(problem, net, variant="truth", lr=lr, seed=seed, steps=steps)


def main() -> None:
    """Measure the truths that the file lacks, in one process of one thread."""
    import argparse
    from fnmatch import fnmatch

    import torch
    from benchmarks.depth import run
    from benchmarks.generations import SECOND

    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--half", choices=("tuning", "held-out", "both"), default="both")
    parser.add_argument("--members", default="*", help="a pattern of names")
    parser.add_argument("--out", type=Path, default=SECOND.truths)
    parser.add_argument("--jobs", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(1)
    chosen = [
        member
        for member in SECOND.members()
        if options.half in ("both", member.half) and fnmatch(member.name, options.members)
    ]
    run.measure_truths(SECOND, chosen, jobs=options.jobs, say=print, path=options.out)


if __name__ == "__main__":
    main()
