"""`diagnose`: find out by experiment whether depth hurts a network, or what else does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from reslearn.diagnose.experiment import TrialRunner
from reslearn.diagnose.final_trials import prove_screened
from reslearn.diagnose.findings import Screening
from reslearn.diagnose.mending import mend
from reslearn.diagnose.parallel import resolve_jobs
from reslearn.diagnose.plan import Deadline, RateChoice
from reslearn.diagnose.problem import Problem
from reslearn.diagnose.proof import Proof
from reslearn.diagnose.scores import Scores
from reslearn.diagnose.screening import screen, suggested_variants
from reslearn.diagnose.signals import (
    LayerSignal,
    Signals,
    measure_signals,
    response_ratio,
    signals_by_layer,
)
from reslearn.diagnose.stages import run_stages
from reslearn.diagnose.trial import CHOICE_SEED, Trial
from reslearn.diagnose.user_code import DiagnosisError
from reslearn.diagnose.variant import Variants, make_variants
from reslearn.diagnose.verdict import decide
from reslearn.diagnose.verdict_rules import NetworkVerdict

FEWEST_STEPS = 4


@dataclass(frozen=True, kw_only=True, eq=False)
class Diagnosis:
    """The verdict and everything it rests on.

    Attributes:
        screening: Findings on data, wiring and initial weights. A proof replaces the experiments.
        judged: The trials that the verdict rests on, by variant.
        rates: The learning rate of each variant, and the scores that chose it.
        start: Signals of the network before training.
        layers: Signals by layer of the variants "deep" and "shortcuts", before training.
        steps: Steps of the trials that were judged.
        short_steps: Steps of the short trials. Pass them as `steps` to repeat the diagnosis on any
            machine.
        minutes: The time limit.
        proof: None if it was not asked for, or if there is no repair to try.
        further: Diagnoses of the repaired network, as long as it hardly learned. The proof is of
            all repairs together.
        interrupted: Whether Ctrl-C ended the diagnosis. The verdict then rests on the trials so
            far.
    """

    problem: Problem
    verdict: NetworkVerdict
    scores: Scores
    screening: Screening
    variants: Variants
    trials: tuple[Trial, ...]
    judged: dict[str, tuple[Trial, ...]]
    rates: dict[str, RateChoice]
    start: Signals
    layers: dict[str, tuple[LayerSignal, ...]]
    steps: int
    short_steps: int
    seconds: float
    minutes: float
    proof: Proof | None = None
    further: tuple[Diagnosis, ...] = ()
    interrupted: bool = False


def diagnose(
    problem: Problem,
    *,
    minutes: float = 10.0,
    steps: int | None = None,
    with_proof: bool = False,
    jobs: int | None = 1,
    seed: int = 0,
    say: Callable[[str], None] = lambda text: None,
) -> Diagnosis:
    """Find out by experiment whether depth hurts the network, or what else does.

    Args:
        minutes: Time limit.
        steps: Steps of a short trial, by default as many as fit into `minutes`. If given, the
            result is independent of the machine.
        with_proof: Also train before and after the repair on a fresh seed. If the repaired network
            hardly learns, it is diagnosed too.
        jobs: Trials at once. 1 uses all threads, more fork this process, None is one per core.
        seed: Another seed repeats the diagnosis with other random numbers.
        say: Called with one line about each step of the diagnosis.

    Raises:
        DiagnosisError: If an argument is out of range or the time does not suffice.
    """
    jobs = _check_budget(minutes, steps, jobs)
    deadline = Deadline(seconds=60 * minutes)

    def diagnose_problem(problem: Problem, minutes: float = minutes) -> Diagnosis:
        return _diagnose(
            problem, minutes=minutes, steps=steps, with_proof=with_proof, jobs=jobs, say=say
        )

    def diagnose_again(mended: Problem) -> Diagnosis:
        say("The repaired network hardly learns, so it is diagnosed too.")
        minutes_left = deadline.remaining() / 60
        _check_budget(minutes_left, steps, jobs)
        return diagnose_problem(mended, minutes_left)

    diagnosis = diagnose_problem(replace(problem, seed=seed))
    return mend(diagnosis, diagnose_again) if with_proof else diagnosis


def _diagnose(
    problem: Problem,
    *,
    minutes: float,
    steps: int | None,
    with_proof: bool,
    jobs: int,
    say: Callable[[str], None],
) -> Diagnosis:
    """Diagnose one network, without what follows a repair."""
    deadline = Deadline(seconds=60 * minutes)
    screening = screen(problem, say=say)
    start = measure_signals(problem.net(CHOICE_SEED), problem)
    variants, layers = _variants_and_signals(problem, screening)
    runner = TrialRunner(
        problem=problem,
        variants=variants,
        response_ratio=response_ratio(layers.get("deep", ())),
        deadline=deadline,
        say=say,
        jobs=jobs,
        signal=screening.signal,
        with_proof=with_proof,
    )
    interrupted = not _run_until_interrupt(runner, steps, screening)
    scores = _with_proof(runner.scores(), screening)
    return Diagnosis(
        problem=problem,
        verdict=decide(scores),
        scores=scores,
        screening=screening,
        variants=variants,
        trials=tuple(runner.trials),
        judged=runner.judged_by_name(),
        rates=runner.rates,
        start=start,
        layers=layers,
        steps=runner.judged_steps,
        short_steps=runner.steps,
        seconds=deadline.elapsed(),
        minutes=minutes,
        proof=runner.proof,
        interrupted=interrupted,
    )


def _variants_and_signals(
    problem: Problem, screening: Screening
) -> tuple[Variants, dict[str, tuple[LayerSignal, ...]]]:
    """Return the variants, and the signals by layer if experiments are to follow."""
    variants = make_variants(problem)
    if screening.proof is not None:
        return replace(variants, notes=()), {}
    layers = signals_by_layer(problem, variants.by_name, seed=CHOICE_SEED)
    variants.by_name.update(suggested_variants(problem))
    return variants, layers


def _check_budget(minutes: float, steps: int | None, jobs: int | None) -> int:
    """Return the number of trials at once, if all arguments are in range."""
    if not minutes > 0:
        raise DiagnosisError(f"minutes is {minutes}: give more than 0")
    if steps is not None and steps < FEWEST_STEPS:
        raise DiagnosisError(f"steps is {steps}: give at least {FEWEST_STEPS}")
    return resolve_jobs(jobs)


def _with_proof(scores: Scores, screening: Screening) -> Scores:
    """Return the scores with the cause that screening proved, if it proved one."""
    proof = screening.proof
    if proof is None:
        return scores
    if "untrained parameters" in proof.causes:
        return replace(scores, untrained=proof.text)
    if "output layer" in proof.causes:
        return replace(scores, output_layer=proof.text)
    fault = proof.message.removesuffix(".")
    return replace(scores, fault=f"{fault[:1].lower()}{fault[1:]}")


def _run_until_interrupt(runner: TrialRunner, steps: int | None, screening: Screening) -> bool:
    """Run all experiments; return False if Ctrl-C stopped them.

    After a proof of the screening, only the repair is tried, if it was asked for.
    """
    try:
        if screening.proof is None:
            run_stages(runner, steps)
        elif runner.with_proof:
            prove_screened(runner, screening.proof.causes[0], steps)
    except KeyboardInterrupt:
        runner.say("Stopped: the verdict rests on the trials so far.")
        runner.drop_incomplete_trials()
        return False
    return True
