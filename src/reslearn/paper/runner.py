"""From claims to findings: the runs of all claims gathered, each trained once, then every claim judged.

Two stages of training: the runs that choose learning rates, and those that depend on the choice (`protocol`). Called again in the
same folder it goes on where it stopped: what is complete stays.
"""

import importlib
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, Future, as_completed
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

from reslearn.paper.claim import Budget, ClaimModule, Finding, Fit, Runs, RunSpec
from reslearn.paper.stages import Stages
from reslearn.study import Engine


@dataclass(frozen=True, kw_only=True)
class ClaimsReport:
    """The findings in the order of the claims, with all they rest on."""

    findings: tuple[Finding, ...]
    evidence: Runs
    seconds: float
    num_runs: int
    num_diverged: int
    failures: tuple[str, ...]
    """Runs that ended without a result for a reason that is no evidence: a full disk, no memory."""


def run_claims(
    claims: Sequence[ClaimModule],
    budget: Budget,
    folder: Path | str,
    *,
    engine: Engine,
    fit: Fit,
    data_dir: Path | None = None,
    say: Callable[[str], None] = lambda text: None,
    continue_command: str | None = None,
    judges: Executor | None = None,
) -> ClaimsReport:
    """Train what the claims need below `folder`/runs and judge them. StudyStopped where a signal ended the training.

    `judges` judges claims side by side in processes of its own (a third of the demo's time is judging); without it, here, one by one.
    A run that diverged is evidence; one that failed otherwise (no memory, a full disk) leaves the claims that need it undecided.
    """
    started, folder = time.monotonic(), Path(folder)
    stages = Stages(
        budget,
        folder / "runs",
        engine,
        [] if data_dir is None else ["--data-dir", str(data_dir)],
        say,
    )
    evidence = Runs(
        budget=budget, runs=stages.runs, folder=folder, fit=fit, data_dir=data_dir, say=say
    )
    first = {claim.CLAIM.identifier: claim.conditions(budget) for claim in claims}
    stages.train(
        (condition for needed in first.values() for condition in needed),
        "choosing learning rates",
        continue_command,
    )
    then = {claim.CLAIM.identifier: _judged_conditions(claim, evidence) for claim in claims}
    stages.train(
        (condition for needed in then.values() for condition in needed),
        "each net at its learning rate",
        continue_command,
    )
    findings = _judge_all(
        claims, evidence, stages, {name: [*first[name], *then[name]] for name in first}, judges
    )
    return ClaimsReport(
        findings=findings,
        evidence=evidence,
        seconds=time.monotonic() - started,
        num_runs=len(stages.runs),
        num_diverged=len(stages.diverged),
        failures=stages.failure_lines(),
    )


def _judged_conditions(claim: ClaimModule, evidence: Runs) -> list[RunSpec]:
    needed: Callable[[Runs], list[RunSpec]] | None = getattr(claim, "judged_conditions", None)
    return [] if needed is None else needed(evidence)


def _judge_all(
    claims: Sequence[ClaimModule],
    evidence: Runs,
    stages: Stages,
    needed: dict[str, list[RunSpec]],
    judges: Executor | None,
) -> tuple[Finding, ...]:
    """The findings, in the order of the claims."""
    findings: dict[str, Finding] = {}
    pending: dict[Future[Finding], str] = {}
    for claim in claims:
        identifier = claim.CLAIM.identifier
        failed = {
            condition: stages.failures[condition]
            for condition in needed[identifier]
            if condition in stages.failures
        }
        if failed:
            condition, reason = next(iter(failed.items()))
            measured = f"run {condition.model}, seed {condition.seed} failed: {reason}"
            findings[identifier] = Finding(
                claim=claim.CLAIM, outcome="undecided", measured=measured
            )
        elif judges is None:
            evidence.say(f"judging {identifier}: {claim.CLAIM.text}")
            findings[identifier] = claim.judge(evidence)
        else:
            # A module cannot be sent to another process; its name can. Nor can a terminal.
            pending[
                judges.submit(
                    _judge_by_name,
                    str(getattr(claim, "__name__", "")),
                    replace(evidence, say=_silent),
                )
            ] = identifier
    if pending:
        evidence.say(f"judging {len(pending)} claims")
    for future in as_completed(pending):
        findings[pending[future]] = future.result()
        evidence.say(f"judged {pending[future]}: {findings[pending[future]].outcome}")
    return tuple(findings[claim.CLAIM.identifier] for claim in claims)


def _judge_by_name(module: str, evidence: Runs) -> Finding:
    claim = cast(ClaimModule, importlib.import_module(module))
    return claim.judge(evidence)


def _silent(text: str) -> None:
    """A judge in a process of its own has no terminal."""
