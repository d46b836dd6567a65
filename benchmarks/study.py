"""What a study costs beside training: the time of all its cores, over the sum of the seconds that its runs trained and evaluated.

A real study on digits, in each way in which runs can be started: `forked` from one process with its imports done, as `reslearn study`
does, and `fresh`, each in a process that imports for itself. `start-up` is what a run takes before its first step: imports, data, network.
"""

import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass

from reslearn.cli.study import engine_named
from reslearn.runs import RunFolder
from reslearn.study import (
    Engine,
    LocalEngine,
    StudyReport,
    available_cores,
    run_study,
    study_from,
    training_macs,
)


@dataclass(frozen=True, kw_only=True)
class Row:
    """One way of starting runs."""

    runs_start: str  # forked or fresh
    runs: int
    jobs: int  # at once
    seconds: float  # of the study
    training_seconds: float  # of all runs, as their results say: steps and evaluations
    overhead_pct: float  # of the study's cores over the training: 0 where they did nothing else
    start_up_seconds: float  # median over runs


def engines(jobs: int) -> dict[str, Engine]:
    """The ways, by name."""
    return {"forked": engine_named("local", jobs=jobs), "fresh": LocalEngine(jobs=jobs)}


def measure(
    *,
    models: Sequence[str],
    seeds: int,
    overrides: Sequence[str] = (),
    jobs: int | None = None,
    ways: Sequence[str] = ("forked", "fresh"),
) -> list[Row]:
    """Run the same study in each way. ValueError where a run fails."""
    at_once = jobs or available_cores()
    return [_row(way, engines(at_once)[way], models, seeds, overrides, at_once) for way in ways]


def _row(
    way: str, engine: Engine, models: Sequence[str], seeds: int, overrides: Sequence[str], jobs: int
) -> Row:
    plan = study_from(
        {"models": tuple(models), "seeds": seeds, "recipe": "digits", "set": tuple(overrides)},
        source="reslearn bench study",
    )
    with tempfile.TemporaryDirectory() as folder:
        begun = time.monotonic()
        report = run_study(plan.jobs(folder, cost=training_macs), folder, engine=engine)
        seconds = time.monotonic() - begun
        if not report.is_complete:
            raise ValueError("; ".join(report.lines()[:-1]))
        return row(way, report, seconds=seconds, jobs=jobs)


def row(way: str, report: StudyReport, *, seconds: float, jobs: int) -> Row:
    """What the study's report and its run folders say."""
    trained = [
        float(RunFolder(outcome.job.folder).result["seconds"]) for outcome in report.outcomes
    ]
    return Row(
        runs_start=way,
        runs=len(trained),
        jobs=jobs,
        seconds=seconds,
        training_seconds=sum(trained),
        overhead_pct=100 * (seconds * jobs / sum(trained) - 1),
        start_up_seconds=statistics.median(
            outcome.seconds - done for outcome, done in zip(report.outcomes, trained, strict=True)
        ),
    )


def table(rows: Sequence[Row]) -> str:
    """For people."""
    return "\n".join(
        f"{each.runs_start:6}  {each.runs} runs, {each.jobs} at once: {each.seconds:.1f} s for {each.training_seconds:.1f} s of training, "
        f"overhead {each.overhead_pct:.1f} % of it; start-up of a run {each.start_up_seconds:.2f} s"
        for each in rows
    )
