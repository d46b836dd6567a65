"""The cost of a study beyond training.

It is the time of all cores over the sum of the seconds that the runs trained and evaluated. A real
study on digits runs once per way of starting runs. `forked`: from one process that has imported
everything, as `reslearn study` does. `fresh`: each run in a process that imports for itself. The
start-up is the time of a run before its first step: imports, data and network.
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
class StudyBenchmarkRow:
    """One way of starting runs.

    Attributes:
        runs_start: "forked" or "fresh".
        jobs: Number of runs at once.
        seconds: Time of the study.
        training_seconds: Steps and evaluations of all runs, from their results.
        overhead_pct: Time of all cores beyond training, in percent of training.
        start_up_seconds: Median over runs.
    """

    runs_start: str
    runs: int
    jobs: int
    seconds: float
    training_seconds: float
    overhead_pct: float
    start_up_seconds: float


def engines(jobs: int) -> dict[str, Engine]:
    """Return the ways of starting runs, by name."""
    return {"forked": engine_named("local", jobs=jobs), "fresh": LocalEngine(jobs=jobs)}


def measure(
    *,
    models: Sequence[str],
    seeds: int,
    overrides: Sequence[str] = (),
    jobs: int | None = None,
    ways: Sequence[str] = ("forked", "fresh"),
) -> list[StudyBenchmarkRow]:
    """Run the same study in each way.

    Raises:
        ValueError: If a run fails.
    """
    at_once = jobs or available_cores()
    return [_row(way, engines(at_once)[way], models, seeds, overrides, at_once) for way in ways]


def _row(
    way: str, engine: Engine, models: Sequence[str], seeds: int, overrides: Sequence[str], jobs: int
) -> StudyBenchmarkRow:
    plan = study_from(
        {"models": tuple(models), "seeds": seeds, "recipe": "digits", "set": tuple(overrides)},
        source="reslearn bench study",
    )
    with tempfile.TemporaryDirectory() as folder:
        started = time.monotonic()
        report = run_study(plan.jobs(folder, cost=training_macs), folder, engine=engine)
        seconds = time.monotonic() - started
        if report.is_interrupted:
            raise SystemExit(report.exit_status)
        if not report.is_complete:
            raise ValueError("; ".join(report.result_lines()))
        return make_row(way, report, seconds=seconds, jobs=jobs)


def make_row(way: str, report: StudyReport, *, seconds: float, jobs: int) -> StudyBenchmarkRow:
    """Compute a row from the report of a study and its run folders."""
    trained = [
        float(RunFolder(outcome.job.folder).result["seconds"]) for outcome in report.outcomes
    ]
    return StudyBenchmarkRow(
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


def table(rows: Sequence[StudyBenchmarkRow]) -> str:
    """Return the rows as text, one line each."""
    lines = []
    for row in rows:
        lines.append(
            f"{row.runs_start:6}  {row.runs} runs, {row.jobs} at once: {row.seconds:.1f} s for "
            f"{row.training_seconds:.1f} s of training, an overhead of {row.overhead_pct:.1f} %; "
            f"start-up per run {row.start_up_seconds:.2f} s"
        )
    return "\n".join(lines)
