"""Screening: everything that seconds can show before the experiments.

`screen` reports faults in plain words. `suggested_variants` and `nearest_neighbor_score` serve the
experiments.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from reslearn.diagnose.call_record import record_calls
from reslearn.diagnose.code_places import build_with_places
from reslearn.diagnose.data_checks import data_fault, data_findings, has_bad_scale
from reslearn.diagnose.findings import Screening, ScreeningFinding, ordered
from reslearn.diagnose.first_steps import (
    destroys,
    first_step_findings,
    rate_finding,
    take_first_steps,
)
from reslearn.diagnose.ignored_inputs import ignored_inputs
from reslearn.diagnose.interventions import standardized
from reslearn.diagnose.output_layer import output_findings
from reslearn.diagnose.problem import Problem
from reslearn.diagnose.signal_checks import signal_findings
from reslearn.diagnose.trial import CHOICE_SEED, WORST_SCORE
from reslearn.diagnose.user_code import describe
from reslearn.diagnose.variant import Variant
from reslearn.diagnose.wiring import wiring_findings

NUM_NEIGHBORS = 10
MAX_INPUTS = 256
_MAX_VALUES = 2**20
"""Number of input values on which the calls of a network are recorded, at most."""
_FEWEST_INPUTS = 4


def screen(problem: Problem, *, say: Callable[[str], None] = lambda text: None) -> Screening:
    """Examine the data, the wiring, the initial weights and a few steps, in seconds.

    A suspicion is evidence, not a verdict: the experiments decide. After a proof, no further check
    is made. A check that fails on the user's network is listed in `failures`.

    Args:
        say: Called with one line per finding, or with one line that there is none.
    """
    start_time = time.monotonic()
    findings, failures = _run_checks(problem, CHOICE_SEED)
    screening = Screening(
        findings=ordered(findings),
        failures=tuple(failures),
        seconds=time.monotonic() - start_time,
    )
    for line in screening.lines():
        say(line)
    return screening


def _run_checks(problem: Problem, seed: int) -> tuple[list[ScreeningFinding], list[str]]:
    """Return the findings, and the checks that failed, each with its error."""
    fault = data_fault(problem)
    if fault:
        return [_fault_finding(fault)], []
    inputs = _examined_inputs(problem)
    findings: list[ScreeningFinding] = []
    failures: list[str] = []
    checks: dict[str, Callable[[], list[ScreeningFinding]]] = {
        "wiring": lambda: wiring_findings(problem, seed),
        "output layer": lambda: output_findings(problem, problem.net(seed), inputs),
        "inputs without effect": lambda: ignored_inputs(problem, seed),
        "initial weights": lambda: _weight_findings(problem, inputs, seed),
        "data": lambda: data_findings(problem),
    }
    for name, check in checks.items():
        if any(finding.level == "proof" for finding in findings):
            break
        try:
            findings += check()
        except Exception as error:  # the user's network and loss may raise anything
            failures.append(f"{name}: {describe(error)}")
    return findings, failures


def _fault_finding(fault: str) -> ScreeningFinding:
    return ScreeningFinding(
        check="inputs",
        level="proof",
        causes=("data fault",),
        message=f"{fault[:1].upper()}{fault[1:]}.",
        evidence="Nothing was trained.",
    )


def _examined_inputs(problem: Problem) -> Tensor:
    num_values = problem.inputs[0].numel()
    return problem.inputs[: max(_FEWEST_INPUTS, min(MAX_INPUTS, _MAX_VALUES // num_values))]


def _weight_findings(problem: Problem, inputs: Tensor, seed: int) -> list[ScreeningFinding]:
    """Examine the initial weights by the signals and by a few steps."""
    net, places = build_with_places(problem, seed)
    record = record_calls(net, inputs)
    findings = signal_findings(record, places)
    steps = take_first_steps(problem, net, record, inputs, seed)
    if steps.equal_units:
        return first_step_findings(steps, places)  # equal units explain dead ones and the signal
    if findings and not steps.unused:
        return findings  # dead units and extreme signals explain what the steps show
    findings += first_step_findings(steps, places)
    if problem.lr_is_given and not findings and not has_bad_scale(problem) and destroys(steps):
        net = problem.net(seed + 1)  # a small network may die by bad luck
        further_steps = take_first_steps(problem, net, record_calls(net, inputs), inputs, seed + 1)
        if destroys(further_steps):
            findings.append(rate_finding(problem, steps))
    return findings


def suggested_variants(problem: Problem) -> dict[str, Variant]:
    """Return the variants that the inputs suggest."""
    return {"standardized": standardized(problem)} if has_bad_scale(problem) else {}


def nearest_neighbor_score(problem: Problem) -> float:
    """Return the held-out score of ten nearest neighbors on standardized inputs.

    A good score shows that there is something to learn. The loss is cross-entropy or mean squared
    error, whatever the user's loss is, because means are no good answers to some losses.
    """
    x, y = problem.inputs[:4000].flatten(1).float(), problem.targets[:4000]
    held_inputs = problem.held_inputs[:1000].flatten(1).float()
    answers = problem.held_targets[:1000]
    mean, deviation = x.mean(0), x.std(0, correction=0)
    deviation = deviation.where(deviation > 0, torch.ones_like(deviation))
    distances = torch.cdist((held_inputs - mean) / deviation, (x - mean) / deviation)
    neighbors = distances.topk(min(NUM_NEIGHBORS, len(y)), largest=False).indices
    if problem.task == "regression":
        outputs = y[neighbors].mean(1)
        guesses = problem.targets.mean(0).expand_as(answers)
        loss = functional.mse_loss(outputs, answers)
        guess_loss = functional.mse_loss(guesses, answers)
    else:
        num_classes = int(max(problem.targets.max(), problem.held_targets.max())) + 1
        counts = torch.bincount(problem.targets, minlength=num_classes)
        frequencies = (counts.float() / len(problem.targets)).clamp_min(1e-6).log()
        guess_loss = functional.cross_entropy(frequencies.expand(len(answers), -1), answers)
        votes = functional.one_hot(y[neighbors], num_classes).float().sum(1)
        votes += 0.5  # a class that no neighbor has is unlikely, not impossible
        loss = functional.nll_loss((votes / votes.sum(1, keepdim=True)).log(), answers)
    return min(WORST_SCORE, float(loss / guess_loss.clamp_min(1e-12)))
